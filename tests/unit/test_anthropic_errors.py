"""Every error of the API through the real SDK over real HTTP: the right Failure, from exactly one request."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, get_args

import anthropic
import httpx2
import pytest
import pytest_asyncio
from aiohttp import web

from fallback import errors
from fallback.errors import Failure
from fallback.providers.anthropic_api import AnthropicProvider, Platform, make_client, make_provider
from fallback.providers.anthropic_errors import failure_in_body, failure_of, headroom, retry_after_s
from fallback.providers.anthropic_post import SdkPost
from fallback.types import Headroom, Message, StopReason, TextBlock, Usage
from tests.support.fakes import FakeClock, reply, request, tier
from tests.support.upstream import MESSAGE, Upstream, Way, provider, send, upstream


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Upstream]:
    async with upstream() as made:
        yield made


@pytest_asyncio.fixture(params=get_args(Way))
async def road(server: Upstream, clock: FakeClock, request: pytest.FixtureRequest) -> AsyncIterator[AnthropicProvider]:
    """Both ways of sending: every test of errors and bodies holds for either."""
    async with provider(server.url, clock, request.param) as made:
        yield made


def _error(kind: str, code: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": "canary text of the upstream"}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


async def _failure(road: AnthropicProvider, server: Upstream) -> Failure:
    """The Failure of one send, which made one HTTP request and carries nothing of anybody's text."""
    with pytest.raises(Failure) as caught:
        await send(road, request("canary prompt"))
    failure = caught.value
    assert len(server.seen) == 1
    assert "canary" not in repr(vars(failure)) + str(failure) + repr(failure)
    assert failure.__suppress_context__ or failure.__context__ is None
    return failure


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", errors.RequestRefused),
        (401, "authentication_error", errors.CredentialsRefused),
        (402, "billing_error", errors.SpendLimited),
        (403, "permission_error", errors.CredentialsRefused),
        (404, "not_found_error", errors.TierNotServed),
        (405, "invalid_request_error", errors.RequestRefused),
        (408, "timeout_error", errors.UpstreamError),
        (409, "conflict_error", errors.UpstreamError),
        (410, "gone", errors.RequestRefused),
        (413, "request_too_large", errors.RequestRefused),
        (418, "teapot", errors.RequestRefused),
        (422, "invalid_request_error", errors.RequestRefused),
        (429, "rate_limit_error", errors.RateLimited),
        (431, "invalid_request_error", errors.RequestRefused),
        (499, "client_closed_request", errors.RequestRefused),
        (500, "api_error", errors.UpstreamError),
        (501, "api_error", errors.UpstreamError),
        (502, "api_error", errors.UpstreamError),
        (503, "overloaded_error", errors.Overloaded),
        (504, "timeout_error", errors.TimedOut),
        (529, "overloaded_error", errors.Overloaded),
        (599, "api_error", errors.UpstreamError),
    ],
)
async def test_every_status(
    server: Upstream, road: AnthropicProvider, status: int, kind: str, expected: type[Failure]
) -> None:
    server.says(status, _error(kind), request_id="req_7")
    failure = await _failure(road, server)
    assert type(failure) is expected
    assert (failure.error_type, failure.http_status, failure.upstream_request_id) == (kind, status, "req_7")
    assert failure.retry_after_s is None


@pytest.mark.parametrize("status", [400, 403, 429])
@pytest.mark.parametrize(
    "code",
    ["enforced_spend_limit_reached", "contract_spend_limit_reached", "linked_organization_spend_limit_reached"],
)
async def test_a_spend_limit_is_no_rate_limit_whatever_status_it_comes_with(
    server: Upstream, road: AnthropicProvider, status: int, code: str
) -> None:
    server.says(status, _error("rate_limit_error" if status == 429 else "invalid_request_error", code))
    failure = await _failure(road, server)
    assert type(failure) is errors.SpendLimited
    assert failure.http_status == status


async def test_a_billing_error_is_a_spend_limit_also_as_400(server: Upstream, road: AnthropicProvider) -> None:
    server.says(400, _error("billing_error"))
    assert type(await _failure(road, server)) is errors.SpendLimited


@pytest.mark.parametrize("code", ["ramp_limit_exceeded", "something_new"])
async def test_another_code_with_429_only_slows_down(server: Upstream, road: AnthropicProvider, code: str) -> None:
    server.says(429, _error("rate_limit_error", code), retry_after="3")
    failure = await _failure(road, server)
    assert (type(failure), failure.retry_after_s) == (errors.RateLimited, 3.0)


@pytest.mark.parametrize(
    "body",
    ["<html>canary</html>", "", "[]", '"canary"', '{"error": 3}', '{"error": {"type": {"a": "canary"}}}', "\x00"],
)
async def test_a_proxys_page_is_judged_by_its_status(server: Upstream, road: AnthropicProvider, body: str) -> None:
    server.says(503, body)
    failure = await _failure(road, server)
    assert type(failure) is errors.Overloaded
    assert failure.error_type in {"http_503", "unknown"}


@pytest.mark.parametrize("kind", ["canary with spaces", "canary\nline", "x" * 65, "Canary"])
async def test_an_error_type_that_is_no_code_is_not_kept(server: Upstream, road: AnthropicProvider, kind: str) -> None:
    server.says(500, _error(kind))
    assert (await _failure(road, server)).error_type == "unknown"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(server: Upstream, road: AnthropicProvider, status: int) -> None:
    server.says(status, "", location="/elsewhere")
    assert type(await _failure(road, server)) is errors.UpstreamError


async def test_x_should_retry_does_not_make_the_sdk_retry(server: Upstream, road: AnthropicProvider) -> None:
    server.says(529, _error("overloaded_error"), x_should_retry="true", retry_after="0")
    failure = await _failure(road, server)
    assert failure.retry_after_s == 0.0


# --- Retry-After -----------------------------------------------------------------------------

NOW_S = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "0.2"}, 0.2),
        ({"retry-after": "5"}, 5.0),
        ({"retry-after": " 5 "}, 5.0),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "1e9"}, 1e9),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "0x10"}, None),
        ({"retry-after": "9" * 500}, None),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:50 GMT"}, 30.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:13:50 -0000"}, 30.0),
        ({"retry-after": "Mon, 21 Sep 2026 16:13:50 +0200"}, 30.0),
        ({"retry-after": "Mon, 21 Sep 2026 14:12:00 GMT"}, 0.0),
        ({"retry-after": "Mon, 99 Sep 2026 14:12:00 GMT"}, None),
        ({"retry-after": "Mon, 21 Sep 99999 14:12:00 GMT"}, None),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW_S) == (seconds if seconds is None else pytest.approx(seconds, abs=1e-6))


async def test_retry_after_reaches_the_failure_by_the_given_clock(
    server: Upstream, road: AnthropicProvider, clock: FakeClock
) -> None:
    clock.wall_now_s = NOW_S
    server.says(429, _error("rate_limit_error"), Retry_After="Mon, 21 Sep 2026 14:13:50 GMT")
    assert (await _failure(road, server)).retry_after_s == 30.0


# --- connections and time --------------------------------------------------------------------


@pytest.mark.parametrize("way", get_args(Way))
async def test_a_refused_connection(way: Way) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        async with provider(f"http://127.0.0.1:{taken.getsockname()[1]}", way=way) as road:
            with pytest.raises(errors.ConnectionFailed) as caught:
                await send(road)
    assert caught.value.error_type == "connection_error"
    assert caught.value.http_status is None


async def _cut(incoming: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-length": "1000"})
    await response.prepare(incoming)
    await response.write(b'{"id": ')
    assert incoming.transport is not None
    incoming.transport.abort()
    return response


async def _hang_up(incoming: web.Request) -> web.StreamResponse:
    assert incoming.transport is not None
    incoming.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [_cut, _hang_up])
async def test_a_cut_connection(server: Upstream, road: AnthropicProvider, answer: Any) -> None:
    server.answer = answer
    assert type(await _failure(road, server)) is errors.ConnectionFailed


async def test_a_body_that_is_not_what_its_header_says(server: Upstream, road: AnthropicProvider) -> None:
    server.says(200, b"plain", content_encoding="gzip")
    assert isinstance(await _failure(road, server), errors.Transient)


@pytest.mark.parametrize("begun", [False, True])
async def test_silence_and_trickles_end_at_the_attempts_time(
    server: Upstream, road: AnthropicProvider, *, begun: bool
) -> None:
    async def answer(incoming: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begun:
            await response.prepare(incoming)
            await response.write(b" ")
        await server.released.wait()
        return response

    server.answer = answer
    with pytest.raises(errors.TimedOut) as caught:
        await send(road, timeout_s=0.2)
    assert caught.value.error_type == "client_timeout_error"
    assert len(server.seen) == 1


async def test_a_cancelled_call_closes_its_connection(server: Upstream, road: AnthropicProvider) -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def watch(incoming: web.Request) -> web.StreamResponse:
        begun.set()
        while incoming.transport is not None:  # noqa: ASYNC110 - a lost connection sets no event
            await asyncio.sleep(0.005)
        closed.set()
        return web.Response()

    server.answer = watch
    task = asyncio.ensure_future(send(road))
    await asyncio.wait_for(begun.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(closed.wait(), 10)


# --- what is sent and what comes back --------------------------------------------------------


async def test_a_good_answer_and_the_request_that_asked_for_it(server: Upstream, road: AnthropicProvider) -> None:
    server.says(200, MESSAGE)
    assert await send(road, request("hi")) == reply("hello", usage=Usage(10, 5))
    ((path, headers, body),) = server.seen
    assert path == "/v1/messages"
    assert headers["Authorization"] == "Bearer sk-canary-key"
    assert headers["anthropic-version"] == "2026-10-21"
    assert "traceparent" not in headers
    assert json.loads(body) == {
        "model": "claude-haiku-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize("platform", ["anthropic", "foundry"])
@pytest.mark.parametrize("path", ["", "/deployed/here/"])
async def test_a_prepared_request_is_the_one_that_the_sdk_would_send(
    server: Upstream, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, platform: Platform, path: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-team: search")
    server.says(200, MESSAGE)
    base_url = server.url + path
    client = make_client(platform, api_key="sk-canary-key", base_url=base_url)
    by_sdk = AnthropicProvider(SdkPost(client), clock)
    prepared = make_provider(platform, clock, api_key="sk-canary-key", base_url=base_url)
    asked = request("Grüße, \u2028 and \U0001f600", output_schema={"type": "object"})
    for road in (by_sdk, prepared, prepared):
        await send(road, asked)
    await by_sdk.close()
    await prepared.close()
    of_sdk, first, second = server.seen
    assert first == second
    # What the SDK alone sends: its timeouts, for the provider's statistics, and HTTP/1.1's default in words.
    of_sdk_alone = {"x-stainless-timeout", "x-stainless-read-timeout", "connection"}
    expected = {name.lower(): value for name, value in of_sdk[1].items() if name.lower() not in of_sdk_alone}
    assert {name.lower(): value for name, value in first[1].items()} == expected
    assert (expected["x-team"], expected["anthropic-version"]) == ("search", "2026-10-21")
    assert (first[0], first[2]) == (of_sdk[0], of_sdk[2])


@pytest.mark.parametrize("way", get_args(Way))
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
async def test_the_environments_proxy_is_used(
    server: Upstream, monkeypatch: pytest.MonkeyPatch, way: Way, variable: str
) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, server.url)
    server.says(200, MESSAGE)
    async with provider("http://claude.invalid", way=way) as road:
        await send(road)
    ((path, headers, _),) = server.seen
    assert (path, headers["Host"]) == ("/v1/messages", "claude.invalid")
    monkeypatch.setenv(variable, "http://127.0.0.1:1")  # where nobody listens
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with provider(server.url, way=way) as road:
        await send(road)
    assert len(server.seen) == 2


async def test_a_compressed_answer(server: Upstream, road: AnthropicProvider) -> None:
    server.says(200, gzip.compress(json.dumps(MESSAGE).encode()), content_encoding="gzip")
    assert (await send(road)).stop_reason is StopReason.END_TURN


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"$ref": "#"}}},
        {"type": "object", "properties": {"x": True, "y": {"type": ["string", "null"]}, "z": {"enum": [1, "a"]}}},
        {"type": "object", "patternProperties": {"^a": {}}, "if": {}, "then": {"required": ["a"]}},
        {"type": "object", "allOf": [{"anyOf": [{}, {"not": {}}]}], "items": [{}], "additionalProperties": {}},
    ],
    ids=range(6),
)
async def test_an_output_schema_is_sent_in_a_form_and_never_stands_in_the_way(
    server: Upstream, road: AnthropicProvider, schema: dict[str, Any]
) -> None:
    server.says(200, MESSAGE)
    before = json.dumps(schema)
    for _ in range(2):
        await send(road, request(output_schema=schema))
    assert json.dumps(schema) == before
    first, second = (json.loads(body)["output_config"]["format"] for _, _, body in server.seen)
    assert first == second
    assert (first["type"], isinstance(first["schema"], dict)) == ("json_schema", True)


@pytest.mark.parametrize("status", [200, 201])
async def test_an_error_object_with_a_good_status(server: Upstream, road: AnthropicProvider, status: int) -> None:
    server.says(status, _error("overloaded_error"))
    failure = await _failure(road, server)
    assert (type(failure), failure.http_status) == (errors.Overloaded, 200)


async def test_a_large_request_needs_no_streaming(server: Upstream, road: AnthropicProvider) -> None:
    server.says(200, MESSAGE)
    asked = request(messages=(Message("user", (TextBlock("x" * 500_000),)),))
    await road.send(asked, tier(), "claude-haiku-5-5", max_tokens=128_000, timeout_s=10.0)
    assert len(server.seen) == 1


async def test_neither_prompt_nor_key_is_logged(
    server: Upstream, road: AnthropicProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for status, body in ((200, MESSAGE), (529, _error("overloaded_error")), (400, _error("invalid_request_error"))):
        server.says(status, body)
        with suppress(Failure):
            await send(road, request("canary prompt"))
    assert "canary" not in caplog.text


def test_errors_of_the_sdk_without_a_status() -> None:
    sent = httpx2.Request("POST", "http://127.0.0.1/v1/messages")
    answered = httpx2.Response(200, request=sent)
    for error, expected in (
        (anthropic.APITimeoutError(sent), errors.TimedOut),
        (anthropic.APIConnectionError(request=sent), errors.ConnectionFailed),
        (anthropic.APIResponseValidationError(answered, None), errors.MalformedReply),
    ):
        assert type(failure_of(error, 0.0)) is expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", errors.Overloaded),
        ("rate_limit_error", errors.RateLimited),
        ("timeout_error", errors.TimedOut),
        ("authentication_error", errors.CredentialsRefused),
        ("permission_error", errors.CredentialsRefused),
        ("billing_error", errors.SpendLimited),
        ("not_found_error", errors.TierNotServed),
        ("invalid_request_error", errors.RequestRefused),
        ("request_too_large", errors.RequestRefused),
        ("api_error", errors.UpstreamError),
        ("Something Else", errors.UpstreamError),
        (None, errors.UpstreamError),
    ],
)
def test_an_error_without_a_status(kind: object, expected: type[Failure]) -> None:
    failure = failure_in_body(kind)
    assert (type(failure), failure.http_status) == (expected, 200)
    assert failure.error_type in {kind, "unknown"}


@pytest.mark.parametrize(
    ("platform", "settings"),
    [
        ("anthropic", {"api_key": "k", "base_url": "http://127.0.0.1:1"}),
        ("bedrock", {"api_key": "k", "region": "us-east-1"}),
        ("vertex", {"region": "us-east5", "project": "p"}),
        ("foundry", {"api_key": "k", "resource": "r"}),
        ("foundry", {"api_key": "k", "base_url": "http://127.0.0.1:1"}),
    ],
)
async def test_every_platforms_client_has_its_own_retries_off(platform: Any, settings: dict[str, str]) -> None:
    client = make_client(platform, **settings)
    assert client.max_retries == 0
    await client.close()
    road = make_provider(platform, FakeClock(), **settings)
    await road.close()
    await road.close()


async def test_credentials_that_cannot_be_read_are_refused_credentials(clock: FakeClock) -> None:
    road = make_provider("vertex", clock, region="us-east5", project="p")
    with pytest.raises(errors.CredentialsRefused):  # the extra for it is not installed here
        await send(road)
    await road.close()


# --- rate-limit headers ----------------------------------------------------------------------


def _limit(name: str, limit: object, remaining: object, reset: str) -> dict[str, str]:
    values = {"limit": str(limit), "remaining": str(remaining), "reset": reset}
    return {f"anthropic-ratelimit-{name}-{key}": value for key, value in values.items()}


IN_A_MINUTE = datetime.fromtimestamp(NOW_S + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_scarcest_limit_says_what_is_left_and_until_when() -> None:
    headers = _limit("requests", 4_000, 3_999, IN_A_MINUTE) | _limit("input-tokens", 100, 7, IN_A_MINUTE)
    found = headroom(headers, NOW_S)
    assert found is not None
    assert (found.share, found.resets_in_s) == (0.07, pytest.approx(60.0, abs=1.0))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        _limit("requests", 0, 0, IN_A_MINUTE),
        _limit("requests", 100, -1, IN_A_MINUTE),
        _limit("requests", "many", 1, IN_A_MINUTE),
        _limit("requests", 100, "nan", IN_A_MINUTE),
        _limit("requests", 100, "9" * 5_000, "soon"),
        _limit("requests", 100, 1, ""),
    ],
)
def test_nonsense_in_the_headers_says_nothing(headers: dict[str, str]) -> None:
    assert headroom(headers, NOW_S) is None


def test_a_reset_in_the_past_is_now_and_more_than_all_is_all() -> None:
    past = _limit("tokens", 10, "9" * 5_000, "2020-01-01T00:00:00")
    assert headroom(past, NOW_S) == Headroom(1.0, 0.0)


async def test_a_429_without_a_wait_waits_until_the_spent_limit_is_whole_again(
    server: Upstream, road: AnthropicProvider
) -> None:
    sent = {key.replace("-", "_"): value for key, value in _limit("requests", 50, 0, IN_A_MINUTE).items()}
    server.says(429, _error("rate_limit_error"), **sent)
    failure = await _failure(road, server)
    assert failure.retry_after_s is not None
    assert failure.retry_after_s >= 0


async def test_a_reply_brings_what_is_left(server: Upstream, road: AnthropicProvider) -> None:
    sent = {key.replace("-", "_"): value for key, value in _limit("requests", 50, 5, IN_A_MINUTE).items()}
    server.says(200, MESSAGE, **sent)
    assert (await send(road)).headroom.share == 0.1  # type: ignore[union-attr]
