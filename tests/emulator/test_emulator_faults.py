"""Each fault as the SDK meets it, and the script that orders them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import anthropic
import httpx2
import pytest

from fallback.emulator.fault_engine import FaultEngine
from fallback.emulator.faults import FaultScript, FaultScriptError
from fallback.emulator.latency import PLAUSIBLE, Latency
from fallback.emulator.models import MODELS
from fallback.emulator.static import StaticSource
from tests.support.emulator import MODEL, Bench, FakeTime, running, until

HAIKU, OPUS = MODELS["claude-haiku-5-5"], MODELS["claude-opus-5-5"]


def script(**action: Any) -> list[dict[str, Any]]:
    return [{"action": action}]


async def read_stream(bench: Bench) -> str:
    stream = bench.client.messages.stream(
        model=MODEL["haiku"], max_tokens=500, messages=[{"role": "user", "content": "Hello"}]
    )
    async with stream as events:
        return str((await events.get_final_message()).stop_reason)


async def read_events(bench: Bench, seen: list[str]) -> None:
    stream = await bench.client.messages.create(
        model=MODEL["haiku"], max_tokens=500, messages=[{"role": "user", "content": "Hello"}], stream=True
    )
    async for event in stream:
        seen.append(event.type)  # noqa: PERF401 - what came before the cut counts


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.PaymentRequiredError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (408, anthropic.RequestTimeoutError, "timeout_error"),
        (409, anthropic.ConflictError, "conflict_error"),
        (413, anthropic.ContentTooLargeError, "request_too_large"),
        (422, anthropic.UnprocessableEntityError, "invalid_request_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (431, anthropic.RequestHeaderFieldsTooLargeError, "request_too_large"),
        (500, anthropic.InternalServerError, "api_error"),
        (501, anthropic.HTTPNotImplementedError, "api_error"),
        (503, anthropic.ServiceUnavailableError, "overloaded_error"),
        (504, anthropic.GatewayTimeoutError, "timeout_error"),
        (529, anthropic.OverloadedError, "overloaded_error"),
        (418, anthropic.APIStatusError, "invalid_request_error"),
        (599, anthropic.InternalServerError, "api_error"),
    ],
)
async def test_each_status_is_its_sdk_error(status: int, expected: type[anthropic.APIStatusError], kind: str) -> None:
    async with running(faults=script(kind="status", status=status)) as bench:
        with pytest.raises(expected) as caught:
            await bench.ask()
        assert bench.stats["by_status"] == {str(status): 1}
    assert type(caught.value) is expected
    assert (caught.value.status_code, caught.value.type) == (status, kind)
    assert caught.value.request_id == json.loads(caught.value.response.text)["request_id"]


async def test_error_codes_reach_the_sdk() -> None:
    fault = script(kind="status", status=429, error_code="enforced_spend_limit_reached", headers={"x-extra": "1"})
    async with running(faults=fault) as bench:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await bench.ask()
    assert caught.value.error_code == "enforced_spend_limit_reached"
    assert caught.value.response.headers["x-extra"] == "1"


@pytest.mark.parametrize(
    ("retry_after", "header", "value"),
    [
        ({"seconds": 1.5}, "retry-after", "1.5"),
        ({"seconds": -3}, "retry-after", "-3"),
        ({"seconds": 1e9}, "retry-after", "1e+09"),
        ({"ms": 250}, "retry-after-ms", "250"),
        ({"date_in_s": 5}, "retry-after", "Mon, 21 Sep 2026 14:13:25 GMT"),
        ({"raw": "NaN"}, "retry-after", "NaN"),
        ({"raw": "soon, I hope"}, "retry-after", "soon, I hope"),
    ],
)
async def test_retry_after_in_every_dress(retry_after: dict[str, Any], header: str, value: str) -> None:
    fault = script(kind="status", status=529, retry_after=retry_after, should_retry=False)
    async with running(faults=fault) as bench:
        with pytest.raises(anthropic.OverloadedError) as caught:
            await bench.ask()
    assert caught.value.response.headers[header] == value
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_a_proxys_page_is_no_json() -> None:
    async with running(faults=script(kind="status", status=503, html=True)) as bench:
        with pytest.raises(anthropic.ServiceUnavailableError) as caught:
            await bench.ask()
    assert caught.value.type is None


async def test_a_hang_ends_when_the_client_goes_and_is_counted() -> None:
    async with running(faults=script(kind="hang")) as bench:
        task = asyncio.create_task(bench.ask())
        await until(lambda: bench.stats["in_flight"] == 1)
        assert bench.stats["connections_open"] == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: bench.stats["in_flight"] == 0)
        assert (bench.stats["cancelled"], bench.stats["requests"]) == (1, 1)
        await until(lambda: bench.stats["connections_open"] == 0)


async def test_a_hang_runs_into_the_clients_timeout() -> None:
    async with running(faults=script(kind="hang"), timeout_s=0.05) as bench:
        with pytest.raises(anthropic.APITimeoutError):
            await bench.ask()


async def test_stopping_ends_hangs() -> None:
    async with running(faults=script(kind="hang")) as bench:
        task = asyncio.create_task(bench.ask())
        await until(lambda: bench.stats["in_flight"] == 1)
        await bench.emulator.stop()
        with pytest.raises(anthropic.APIConnectionError):
            await task


async def test_slow_headers_wait_and_then_answer() -> None:
    time = FakeTime()
    async with running(faults=script(kind="slow_headers", delay_s=7.5), time=time) as bench:
        assert (await bench.ask()).stop_reason == "end_turn"
    assert time.slept == [7.5]


async def test_a_trickle_arrives_whole_in_pieces() -> None:
    time = FakeTime()
    fault = script(kind="trickle", chunk_bytes=100, interval_s=2.0)
    async with running(faults=fault, time=time) as bench:
        assert (await bench.ask()).stop_reason == "end_turn"
        pieces = len(time.slept)
        assert pieces > 5
        assert set(time.slept) == {2.0}
        assert await read_stream(bench) == "end_turn"
        assert len(time.slept) > 2 * pieces


async def test_connections_are_cut_before_headers_and_in_the_body() -> None:
    async with running() as bench:
        for when in ("before_headers", "mid_body", "mid_stream"):
            bench.emulator.set_faults(script(kind="cut", when=when))
            with pytest.raises(anthropic.APIConnectionError) as caught:
                await bench.ask()
            assert not isinstance(caught.value, anthropic.APITimeoutError)
        assert bench.stats["by_status"] == {"cut": 3}
        bench.emulator.set_faults(None)
        assert (await bench.ask()).stop_reason == "end_turn"


async def test_a_stream_is_cut_after_so_many_events() -> None:
    async with running(
        StaticSource("word " * 50), faults=script(kind="cut", when="mid_stream", after_events=4)
    ) as bench:
        seen: list[str] = []
        with pytest.raises((anthropic.APIConnectionError, httpx2.RemoteProtocolError)):
            await read_events(bench, seen)
        assert seen == ["message_start", "content_block_start", "content_block_delta"]  # the SDK hides the ping
        assert bench.stats["by_status"] == {"cut": 1}


async def test_an_error_event_in_mid_stream_and_its_status_without_a_stream() -> None:
    fault = script(kind="stream_error", error_type="overloaded_error", after_events=4)
    async with running(faults=fault) as bench:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await read_stream(bench)
        assert caught.value.type == "overloaded_error"
        assert caught.value.status_code == 200
        with pytest.raises(anthropic.OverloadedError):
            await bench.ask()


@pytest.mark.parametrize("shape", ["not_json", "truncated", "empty"])
async def test_bodies_that_are_no_json(shape: str) -> None:
    async with running(faults=script(kind="malformed", body=shape)) as bench:
        with pytest.raises((anthropic.APIError, json.JSONDecodeError)):
            await bench.ask()
        assert bench.stats["by_status"] == {"200": 1}


async def test_json_that_is_no_message() -> None:
    async with running(faults=script(kind="malformed", body="not_a_message")) as bench:
        message = await bench.ask()
    assert message.content is None


async def test_refusals_and_truncations_are_200_and_billed() -> None:
    async with running(StaticSource("word " * 50), faults=script(kind="refusal", category="cyber")) as bench:
        refused = await bench.ask()
        bench.emulator.set_faults(script(kind="truncate", max_tokens=3))
        cut = await bench.ask()
        streamed = await read_stream(bench)
        assert bench.stats["usage"][MODEL["haiku"]]["output_tokens"] == 1 + 3 + 3
    assert refused.stop_reason == "refusal"
    assert refused.stop_details is not None
    assert refused.stop_details.category == "cyber"
    assert (cut.stop_reason, cut.usage.output_tokens, cut.content[0].text) == ("max_tokens", 3, "word word wo")
    assert streamed == "max_tokens"


async def test_latency_rules_add_up_and_let_the_next_rule_work() -> None:
    time = FakeTime()
    faults = [
        {"action": {"kind": "latency", "fixed_s": 1.0}},
        {"action": {"kind": "latency", "p50_s": 2.0, "p99_s": 2.0}, "model": "haiku"},
        {"action": {"kind": "status", "status": 529}, "nth": [2]},
    ]
    async with running(faults=faults, time=time) as bench:
        await bench.ask()
        with pytest.raises(anthropic.OverloadedError):
            await bench.ask()
        await bench.ask(tier="opus")
        assert bench.stats["by_rule"] == {"rules[0]": 3, "rules[1]": 2, "rules[2]": 1}
    assert time.slept == [3.0, 3.0, 1.0]


async def test_latency_is_drawn_per_tier_and_repeats_with_the_seed() -> None:
    async def slept() -> list[float]:
        time = FakeTime()
        tiers = {"haiku": Latency.fixed(0.5), "sonnet": Latency.lognormal(1.0, 4.0)}
        async with running(latency=tiers, time=time, seed=5) as bench:
            for tier in ("haiku", "sonnet", "sonnet", "opus"):
                await bench.ask(tier=tier)
        return time.slept

    once = await slept()
    assert once == await slept()
    assert once[0] == 0.5
    assert len(once) == 3
    assert once[1] != once[2]


def test_the_lognormal_has_its_median_and_99th_percentile() -> None:
    rng = Random(1)
    drawn = sorted(Latency.lognormal(0.3, 2.5).draw(rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.3, rel=0.05)
    assert drawn[19_800] == pytest.approx(2.5, rel=0.10)
    assert all(PLAUSIBLE[tier].draw(rng) > 0 for tier in MODEL)


@pytest.mark.parametrize(("text", "expected"), [("0.3", (0.3, 0.3)), ("0.3,2.5", (0.3, 2.5)), ("0", (0, 0))])
def test_latencies_are_read(text: str, expected: tuple[float, float]) -> None:
    assert Latency.parse(text) == Latency(*expected)


@pytest.mark.parametrize("text", ["", "fast", "1,2,3", "2,1", "nan", "inf", "-1", "0,1"])
def test_wrong_latencies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="latency"):
        Latency.parse(text)


async def test_faults_on_other_routes_leave_messages_alone() -> None:
    faults = [
        {"route": "models", "action": {"kind": "status", "status": 500}},
        {"route": "count_tokens", "action": {"kind": "cut", "when": "before_headers"}},
    ]
    async with running(faults=faults) as bench:
        with pytest.raises(anthropic.InternalServerError):
            await bench.client.models.list()
        with pytest.raises(anthropic.APIConnectionError):
            await bench.client.messages.count_tokens(
                model=MODEL["haiku"], messages=[{"role": "user", "content": "Hello"}]
            )
        assert (await bench.ask()).stop_reason == "end_turn"


# --- which requests a rule takes -----------------------------------------------------------------


def taken(rule: dict[str, Any], n: int = 10, *, seed: int = 0, time: FakeTime | None = None) -> list[int]:
    """Which of n haiku requests get the fault."""
    clock = time or FakeTime()
    engine = FaultEngine(FaultScript.parse([{"action": {"kind": "hang"}, **rule}]), seed, clock)
    found = []
    for number in range(1, n + 1):
        if engine.plan("messages", "/eu", HAIKU).action is not None:
            found.append(number)
        clock.now_s += 1
    return found


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, list(range(1, 11))),
        ({"nth": [1, 4]}, [1, 4]),
        ({"every": 3}, [3, 6, 9]),
        ({"after": 7}, [8, 9, 10]),
        ({"first": 2}, [1, 2]),
        ({"after": 2, "every": 2, "first": 3}, [4, 6, 8]),
        ({"from_s": 3, "until_s": 5}, [4, 5]),
        ({"model": "haiku", "first": 1}, [1]),
        ({"model": "claude-haiku-5-5", "first": 1}, [1]),
        ({"model": "opus"}, []),
        ({"endpoint": "/eu", "first": 1}, [1]),
        ({"endpoint": "/us"}, []),
        ({"route": "models"}, []),
        ({"probability": 0.0}, []),
    ],
)
def test_rules_take_the_requests_they_name(rule: dict[str, Any], expected: list[int]) -> None:
    assert taken(rule) == expected


def test_a_probability_picks_its_share_and_the_seed_repeats_it() -> None:
    picked = taken({"probability": 0.2}, 2_000, seed=4)
    assert 330 <= len(picked) <= 470
    assert picked == taken({"probability": 0.2}, 2_000, seed=4)
    assert picked != taken({"probability": 0.2}, 2_000, seed=5)


def test_rules_count_requests_that_others_took() -> None:
    rules = [
        {"nth": [1], "action": {"kind": "hang"}},
        {"nth": [2], "action": {"kind": "refusal"}},
    ]
    engine = FaultEngine(FaultScript.parse(rules), 0, FakeTime())
    kinds = [engine.plan("messages", "", OPUS).action for _ in range(3)]
    assert [action.kind if action else None for action in kinds] == ["hang", "refusal", None]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (7, "script"),
        ({"rule": []}, "rule: "),
        ([{}], "rules[0].action: "),
        ([{"action": {"kind": "explode"}}], "rules[0].action: "),
        ([{"action": {"kind": "status"}}], "rules[0].action.status: "),
        ([{"action": {"kind": "status", "status": "529"}}], "rules[0].action.status: "),
        ([{"action": {"kind": "status", "status": 529, "retry_after": {}}}], "rules[0].action.retry_after: "),
        ([{"action": {"kind": "status", "status": 529, "headers": {"a": "b\r\nc: d"}}}], "rules[0].action.headers: "),
        (
            [{"action": {"kind": "status", "status": 529, "retry_after": {"raw": "\n"}}}],
            "rules[0].action.retry_after: ",
        ),
        ([{"action": {"kind": "cut", "when": "later"}}], "rules[0].action.when: "),
        ([{"action": {"kind": "trickle", "chunk_bytes": 0}}], "rules[0].action.chunk_bytes: "),
        ([{"action": {"kind": "latency"}}], "rules[0].action: "),
        ([{"action": {"kind": "latency", "p50_s": 2.0, "p99_s": 1.0}}], "rules[0].action: "),
        ([{"action": {"kind": "stream_error", "error_type": "x"}}], "rules[0].action.error_type: "),
        ([{"action": {"kind": "hang"}}, {"model": "gpt", "action": {"kind": "hang"}}], "rules[1].model: "),
        ([{"action": {"kind": "hang"}, "probability": 1.5}], "rules[0].probability: "),
        ([{"action": {"kind": "hang"}, "from_s": 5.0, "until_s": 5.0}], "rules[0]: "),
        ([{"action": {"kind": "hang"}, "nth": [0]}], "rules[0].nth[0]: "),
        ([{"action": {"kind": "hang"}, "often": True}], "rules[0].often: "),
    ],
)
def test_wrong_scripts_are_refused_with_the_field(value: object, field: str) -> None:
    with pytest.raises(FaultScriptError) as caught:
        FaultScript.parse(value)
    assert str(caught.value).startswith(field)


def test_scripts_are_read_from_toml_and_json(tmp_path: Path) -> None:
    toml = tmp_path / "a.toml"
    toml.write_text("[[rules]]\nmodel = 'haiku'\naction = { kind = 'latency', fixed_s = 1 }\n")
    document = tmp_path / "a.json"
    document.write_text(json.dumps({"rules": [{"model": "haiku", "action": {"kind": "latency", "fixed_s": 1}}]}))
    assert FaultScript.load(toml) == FaultScript.load(document)
    document.write_text("{")
    for path in (document, tmp_path / "none.toml"):
        with pytest.raises(FaultScriptError, match=path.name):
            FaultScript.load(path)


async def test_a_replaced_script_starts_anew() -> None:
    faults = {"rules": [{"first": 1, "action": {"kind": "status", "status": 529}}]}
    async with running(faults=faults) as bench, aiohttp.ClientSession(bench.base_url) as http:
        for again in (lambda: None, bench.emulator.reset):
            again()
            with pytest.raises(anthropic.OverloadedError):
                await bench.ask()
            await bench.ask()
        async with http.post("/emulator/faults", json=faults) as response:
            assert response.status == 200
        with pytest.raises(anthropic.OverloadedError):
            await bench.ask()
