"""The Messages API as the real SDK sees it."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import aiohttp
import anthropic
import pytest

from fallback.emulator.server import Emulator, run_forever
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.static import StaticSource
from tests.support.emulator import MODEL, FakeTime, running

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["city", "count"],
    "additionalProperties": False,
}
TOOL = {"name": "get_weather", "description": "Weather.", "input_schema": SCHEMA}
LONG = "All replies are short and polite. " * 100  # 3,400 characters: 850 tokens


async def test_a_message_has_text_usage_and_stop_reason() -> None:
    async with running(StaticSource("Hello there.", output_tokens=7)) as bench:
        message = await bench.ask("x" * 400)
    assert message.content[0].type == "text"
    assert message.content[0].text == "Hello there."
    assert message.stop_reason == "end_turn"
    assert message.model == "claude-haiku-5-5"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (100, 7)
    assert message._request_id is not None
    assert message._request_id.startswith("req_")


async def test_headers_name_request_organization_limits_and_that_it_is_emulated() -> None:
    async with running() as bench:
        first, second = await bench.raw(), await bench.raw()
    assert first.headers["x-tierwise-emulated"] == "simulated"
    assert first.headers["anthropic-organization-id"]
    assert first.headers["anthropic-ratelimit-requests-limit"] == "4000"
    assert [r.headers["anthropic-ratelimit-requests-remaining"] for r in (first, second)] == ["3999", "3998"]
    assert first.headers["anthropic-ratelimit-input-tokens-reset"] == "2026-09-21T14:14:00Z"
    assert first.headers["request-id"] != second.headers["request-id"]


async def test_streaming_gives_the_same_message_as_json() -> None:
    prompt = "Tell me something about streams."
    async with running(SimulatedSource(1)) as bench:
        whole = await bench.ask(prompt, "sonnet")
        bench.emulator.reset()  # so that it is the first sample again
        stream = bench.client.messages.stream(
            model=MODEL["sonnet"], max_tokens=1_000, messages=[{"role": "user", "content": prompt}]
        )
        async with stream as events:
            kinds = [event.type async for event in events]
            streamed = await events.get_final_message()
    assert [block.type for block in streamed.content] == ["thinking", "text"]
    assert streamed.content[1].text == whole.content[1].text
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert kinds.index("content_block_start") < kinds.index("content_block_delta") < kinds.index("content_block_stop")


async def test_streamed_tool_calls_arrive_whole() -> None:
    async with running(SimulatedSource()) as bench:
        stream = bench.client.messages.stream(
            model=MODEL["haiku"],
            max_tokens=1_000,
            messages=[{"role": "user", "content": "Weather, please."}],
            tools=[TOOL],
            tool_choice={"type": "any"},
        )
        async with stream as events:
            message = await events.get_final_message()
    call = message.content[-1]
    assert call.type == "tool_use"
    assert call.input == {"city": "simulated", "count": 0}
    assert message.stop_reason == "tool_use"


async def test_tools_are_called_when_forced_or_named_and_not_after_a_result() -> None:
    async with running(SimulatedSource()) as bench:
        forced = await bench.ask(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"})
        named = await bench.ask("Please use get_weather.", "opus", tools=[TOOL])
        unnamed = await bench.ask("Good morning.", "opus", tools=[TOOL])
        none = await bench.ask("Please use get_weather.", "opus", tools=[TOOL], tool_choice={"type": "none"})
        result = {"type": "tool_result", "tool_use_id": named.content[-1].id, "content": "sunny"}
        turns = [
            {"role": "user", "content": "Please use get_weather."},
            {"role": "assistant", "content": [block.to_dict() for block in named.content]},
            {"role": "user", "content": [result]},
        ]
        after = await bench.ask(tier="opus", messages=turns, tools=[TOOL])
    assert [m.stop_reason for m in (forced, named, unnamed, none, after)] == [
        "tool_use",
        "tool_use",
        "end_turn",
        "end_turn",
        "end_turn",
    ]


async def test_an_output_schema_is_honoured() -> None:
    async with running(SimulatedSource()) as bench:
        message = await bench.ask(
            "Anything.",
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
            thinking={"type": "disabled"},
        )
    assert json.loads(message.content[0].text) == {"city": "simulated", "count": 0}


async def test_limits_cut_the_reply_and_thinking_counts() -> None:
    async with running(StaticSource("word " * 100)) as bench:
        cut = await bench.ask(max_tokens=10)
        stopped = await bench.ask(stop_sequences=["nothing", "rd"])
        warmed = await bench.ask(max_tokens=0)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 10)
    assert len(cut.content[0].text) < 60
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "rd", "wo")
    assert (warmed.content, warmed.usage.output_tokens) == ([], 0)
    async with running(SimulatedSource()) as bench:
        eaten = await bench.ask("Hello", "sonnet", max_tokens=2)
    assert eaten.stop_reason == "max_tokens"
    assert [block.type for block in eaten.content] == ["thinking"]
    assert eaten.usage.output_tokens == 2


async def test_marked_prefixes_are_written_once_per_model_then_read_until_they_expire() -> None:
    time = FakeTime()
    marked: dict[str, Any] = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    async with running(time=time) as bench:
        first = (await bench.ask("one", system=[marked])).usage
        second = (await bench.ask("two", system=[marked])).usage
        other = (await bench.ask("two", "sonnet", system=[marked])).usage
        time.now_s += 301
        late = (await bench.ask("two", system=[marked])).usage
        unmarked = (await bench.ask("two", "opus", system=LONG)).usage
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens, first.input_tokens) == (850, 0, 1)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens, second.input_tokens) == (0, 850, 1)
    assert other.cache_creation_input_tokens == 850
    assert late.cache_creation_input_tokens == 850
    assert (unmarked.input_tokens, unmarked.cache_creation_input_tokens) == (851, 0)


async def test_an_hour_and_five_minutes_are_billed_apart_and_short_prefixes_not_at_all() -> None:
    hour: dict[str, Any] = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    turn: dict[str, Any] = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    short: dict[str, Any] = {"type": "text", "text": "short", "cache_control": {"type": "ephemeral"}}
    async with running() as bench:
        both = (await bench.ask(system=[hour], messages=[{"role": "user", "content": [turn]}])).usage
        tiny = (await bench.ask(system=[short])).usage
        automatic = (await bench.ask(LONG, cache_control={"type": "ephemeral"})).usage
        with pytest.raises(anthropic.BadRequestError):
            await bench.ask(system=[turn], messages=[{"role": "user", "content": [hour]}])
    assert both.cache_creation is not None
    assert both.cache_creation.ephemeral_1h_input_tokens == 850
    assert both.cache_creation.ephemeral_5m_input_tokens == 850
    assert tiny.cache_creation_input_tokens == 0
    assert automatic.cache_creation_input_tokens == 850


async def test_models_and_count_tokens() -> None:
    async with running() as bench:
        listed = [model async for model in bench.client.models.list()]
        sonnet = await bench.client.models.retrieve("claude-sonnet-5-5")
        counted = await bench.client.messages.count_tokens(
            model=MODEL["opus"], messages=[{"role": "user", "content": "x" * 40}]
        )
        with pytest.raises(anthropic.NotFoundError):
            await bench.client.models.retrieve("claude-none")
        assert bench.stats["requests"] == 0
        assert bench.stats["other_requests"] == 4
    assert [model.id for model in listed] == list(MODEL.values())
    assert sonnet.lifecycle == "active"
    assert sonnet.capabilities is not None
    assert sonnet.capabilities.thinking.types.between_tools.supported
    assert not sonnet.capabilities.thinking.types.disabled.supported
    assert counted.input_tokens == 10


async def test_every_request_counts_once_at_arrival_whatever_becomes_of_it() -> None:
    async with running() as bench:
        await bench.ask()
        await bench.ask(tier="opus")
        with pytest.raises(anthropic.BadRequestError):
            await bench.ask(max_tokens=-1)
        with pytest.raises(anthropic.NotFoundError):
            await bench.client.messages.create(model="x", max_tokens=1, messages=[{"role": "user", "content": "a"}])
        stats = bench.stats
    assert (stats["requests"], stats["in_flight"]) == (4, 0)
    assert stats["by_status"] == {"200": 2, "400": 1, "404": 1}
    assert stats["by_model"] == {"claude-haiku-5-5": 2, "claude-opus-5-5": 1, "(unknown)": 1}
    assert stats["usage"]["claude-opus-5-5"]["output_tokens"] == 6


async def test_base_urls_may_have_a_path_of_their_own() -> None:
    async with running() as bench:
        eu = bench.client.with_options(base_url=f"{bench.base_url}/eu")
        await eu.messages.create(model=MODEL["haiku"], max_tokens=5, messages=[{"role": "user", "content": "a"}])
        assert bench.stats["by_endpoint"] == {"/eu": 1}


async def _post(url: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=headers) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("headers", "body", "status", "kind"),
    [
        ({}, b"{}", 401, "authentication_error"),
        ({"x-api-key": "k"}, b"{}", 400, "invalid_request_error"),
        ({"x-api-key": "k", "anthropic-version": "2026-10-21"}, b"{nonsense", 400, "invalid_request_error"),
        ({"x-api-key": "k", "anthropic-version": "2026-10-21"}, b"[1]", 400, "invalid_request_error"),
        ({"authorization": "Bearer k", "anthropic-version": "2026-10-21"}, b"{}", 400, "invalid_request_error"),
        ({"authorization": "Bearer "}, b"{}", 401, "authentication_error"),
    ],
)
async def test_error_bodies(headers: dict[str, str], body: bytes, status: int, kind: str) -> None:
    async with running() as bench:
        got, document = await _post(f"{bench.base_url}/v1/messages", body, headers)
    assert got == status
    assert document["type"] == "error"
    assert document["error"]["type"] == kind
    assert document["request_id"].startswith("req_")


async def test_oversized_bodies_wrong_paths_and_wrong_methods() -> None:
    async with running() as bench:
        too_large, body = await _post(f"{bench.base_url}/v1/messages", b" " * (33 * 1024 * 1024), {"x-api-key": "k"})
        nowhere, _ = await _post(f"{bench.base_url}/v1/nothing", b"{}", {})
        async with aiohttp.ClientSession() as session, session.get(f"{bench.base_url}/v1/messages") as response:
            method = response.status
    assert (too_large, body["error"]["type"]) == (413, "request_too_large")
    assert (nowhere, method) == (404, 405)


async def test_x_api_key_is_accepted_too() -> None:
    body = {"model": MODEL["haiku"], "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
    async with running() as bench:
        status, document = await _post(
            f"{bench.base_url}/v1/messages",
            json.dumps(body).encode(),
            {"x-api-key": "k", "anthropic-version": "2026-10-21"},
        )
    assert (status, document["type"]) == (200, "message")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::", "example.org"])
async def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        await Emulator(StaticSource()).start(host=host)


async def test_it_starts_once_and_can_be_started_again_after_a_stop() -> None:
    emulator = Emulator(StaticSource())
    url = await emulator.start()
    with pytest.raises(RuntimeError):
        await emulator.start()
    with pytest.raises(OSError, match="address already in use"):
        await Emulator(StaticSource()).start(int(url.rsplit(":", 1)[1]))
    await emulator.stop()
    await emulator.stop()
    assert await emulator.start()
    await emulator.stop()


async def test_the_control_endpoints() -> None:
    async with running() as bench, aiohttp.ClientSession(bench.base_url) as http:
        await bench.ask()
        async with http.get("/emulator/stats") as response:
            assert (await response.json())["requests"] == 1
        async with http.post("/emulator/faults", json=[{"action": {"kind": "status", "status": 529}}]) as response:
            assert await response.json() == {"rules": 1}
        with pytest.raises(anthropic.OverloadedError):
            await bench.ask()
        async with http.post("/emulator/faults", json=[{"action": {"kind": "status", "status": 5}}]) as response:
            assert response.status == 400
            assert "rules[0].action.status" in (await response.json())["error"]
        async with http.post("/emulator/faults", data=b"{") as response:
            assert response.status == 400
        async with http.post("/emulator/reset") as response:
            assert response.status == 200
        assert bench.stats["requests"] == 0
        async with http.get("/emulator/other") as response:
            assert response.status == 404
        async with http.get("/emulator/stats", headers={"host": "evil.example"}) as response:
            assert response.status == 403


async def test_the_same_seed_gives_the_same_bytes() -> None:
    async def replies() -> list[str]:
        async with running(SimulatedSource(3), seed=3) as bench:
            return [(await bench.ask(f"prompt {n}", tier)).to_json() for n in range(3) for tier in MODEL]

    assert await replies() == await replies()


async def test_run_forever_announces_where_it_listens_and_stops_when_cancelled() -> None:
    announced: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(run_forever(seed=1, latency="0.0", announce=announced.put_nowait))
    line = await announced.get()
    assert "http://127.0.0.1:" in line
    assert "SIMULATED" in line
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_run_forever_names_what_is_wrong(tmp_path: Any) -> None:
    script = tmp_path / "faults.toml"
    script.write_text("[[rules]]\naction = { kind = 'status', status = 5 }\n")
    with pytest.raises(ValueError, match=r"faults.toml: rules\[0\].action.status"):
        await run_forever(faults=script)
    with pytest.raises(ValueError, match="latency"):
        await run_forever(latency="soon")
    with pytest.raises(ValueError, match="generation"):
        await run_forever(recorded=tmp_path / "x.parquet")
