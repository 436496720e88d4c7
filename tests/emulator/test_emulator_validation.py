"""What is answered with 400, per tier."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from fallback.emulator.api_errors import ApiError
from fallback.emulator.prompt_cache import PromptCache
from fallback.emulator.validate import check_body
from tests.support.emulator import MODEL, running

OBJECT = {"type": "object", "properties": {}, "additionalProperties": False}
TOOL = {"name": "lookup", "input_schema": {"type": "object"}}
ALL, HAIKU, SONNET, OPUS = ("haiku", "sonnet", "opus"), ("haiku",), ("sonnet",), ("opus",)


def body(tier: str = "haiku", **more: Any) -> dict[str, Any]:
    return {"model": MODEL[tier], "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}], **more}


def effort(level: str, thinking: str) -> dict[str, Any]:
    return {"output_config": {"effort": level}, "thinking": {"type": thinking}}


@pytest.mark.parametrize(
    ("more", "accepted"),
    [
        ({"thinking": {"type": "adaptive"}}, ALL),
        ({"thinking": {"type": "disabled"}}, HAIKU),
        ({"thinking": {"type": "between_tools"}}, SONNET),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, ()),
        (effort("high", "between_tools"), SONNET),
        (effort("xhigh", "between_tools"), ()),
        (effort("max", "disabled"), ()),
        ({"tools": [TOOL], "tool_choice": {"type": "any"}}, HAIKU),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "lookup"}}, HAIKU),
        ({"tools": [TOOL], "tool_choice": {"type": "auto"}}, ALL),
        ({"tools": [TOOL], "tool_choice": {"type": "none"}}, ALL),
        ({"temperature": 0.0}, ()),
        ({"top_p": 0.5}, ()),
        ({"top_k": 5}, ()),
        ({"speed": "fast"}, OPUS),
        ({"max_tokens": 128_000}, ALL),
        ({"max_tokens": 128_001}, ()),
    ],
)
def test_each_tier_accepts_its_own_parameters(more: dict[str, Any], accepted: tuple[str, ...]) -> None:
    for tier in accepted:
        assert check_body(body(tier, **more)).spec.tier == tier
    for tier in set(ALL) - set(accepted):
        with pytest.raises(ApiError) as caught:
            check_body(body(tier, **more))
        assert caught.value.status == 400


CALL = {"type": "tool_use", "id": "t1", "name": "lookup", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t1"}
USER = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"model": None}, "model"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"nonsense": 1}, "nonsense: Extra inputs"),
        ({"messages": None}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": []}, "at least one"),
        ({"messages": ["Hello"]}, "messages.0"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": []}]}, "empty"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text.text"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "not permitted"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "citations": [1]}]}]}, "citations"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "first message"),
        ({"messages": [USER, {"role": "assistant", "content": "a"}]}, "prefill"),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "document", "source": {}}]}]}, "not permitted"),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "tool_use_id"),
        ({"messages": [USER, {"role": "assistant", "content": [CALL]}, USER]}, "tool_result"),
        (
            {"messages": [USER, {"role": "assistant", "content": [CALL]}, {"role": "assistant", "content": "a"}]},
            "tool_",
        ),
        ({"system": [{"type": "image", "source": {}}]}, "system.0"),
        ({"system": [{"type": "text", "text": "a", "cache_control": {"type": "forever"}}]}, "cache_control"),
        ({"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 5}, "maximum of 4"),
        ({"cache_control": {"type": "ephemeral", "ttl": "9m"}}, "cache_control"),
        ({"thinking": {}}, "thinking.type"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"effort": "extreme"}}, "effort"),
        ({"output_config": {"mood": "good"}}, "output_config.mood"),
        ({"output_config": {"format": {"type": "xml"}}}, "format.type"),
        ({"output_config": {"format": {"type": "json_schema", "schema": []}}}, "schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "objekt"}}}}, "valid JSON schema"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "integer", "minimum": 1}}}},
            "'minimum' is not supported",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "http://127.0.0.1:9/x"}}}},
            "external",
        ),
        ({"tools": {}}, "tools"),
        ({"tools": ["a"]}, "tools.0"),
        ({"tools": [TOOL, TOOL]}, "unique"),
        ({"tools": [{**TOOL, "name": "no spaces"}]}, "tools.0.name"),
        ({"tools": [{**TOOL, "input_schema": {"type": "string"}}]}, "input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "other"}}, "tool_choice"),
        ({"stop_sequences": "end"}, "stop_sequences"),
        ({"stop_sequences": [" "]}, "non-whitespace"),
        ({"service_tier": "gold"}, "service_tier"),
        ({"speed": "warp"}, "speed"),
        ({"metadata": {"name": "x"}}, "metadata"),
    ],
)
def test_wrong_bodies_are_refused_with_the_field(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ApiError) as caught:
        check_body(body(**more))
    assert caught.value.status == 400
    assert words in caught.value.message


@pytest.mark.parametrize(
    "more",
    [
        {"system": "Be brief.", "metadata": {"user_id": "u"}, "service_tier": "standard_only"},
        {"messages": [USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}]},
        {"messages": [USER, USER]},
        {"output_config": {"format": {"type": "json_schema", "schema": OBJECT}, "effort": "low"}},
        {"max_tokens": 0},
        {"stop_sequences": ["END"]},
    ],
)
def test_right_bodies_are_taken(more: dict[str, Any]) -> None:
    assert check_body(body(**more)).spec.tier == "haiku"


def test_unknown_models_are_not_found_and_platform_prefixes_are_known() -> None:
    with pytest.raises(ApiError) as caught:
        check_body(body(model="claude-nothing-9"))
    assert caught.value.status == 404
    assert check_body(body(model="anthropic.claude-opus-5-5")).spec.tier == "opus"


def test_counting_needs_no_max_tokens() -> None:
    document = body()
    del document["max_tokens"]
    assert check_body(document, counting=True).spec.tier == "haiku"


def test_prompts_beyond_the_context_window_are_refused() -> None:
    document = body(messages=[{"role": "user", "content": "x" * 4_000_400}])
    with pytest.raises(ApiError, match="prompt is too long"):
        PromptCache(lambda: 0.0).charge(document, check_body(document).spec)


async def test_the_sdk_sees_the_refusals() -> None:
    async with running() as bench:
        for tier in ("sonnet", "opus"):
            with pytest.raises(anthropic.BadRequestError) as caught:
                await bench.ask(tier=tier, thinking={"type": "disabled"})
            assert caught.value.type == "invalid_request_error"
            with pytest.raises(anthropic.BadRequestError):
                await bench.ask(tier=tier, tools=[TOOL], tool_choice={"type": "any"})
        with pytest.raises(anthropic.BadRequestError, match="temperature"):
            await bench.ask(extra_body={"temperature": 0.5})
        assert (await bench.ask(thinking={"type": "disabled"})).stop_reason == "end_turn"
