"""A request as each tier's own body: what one tier accepts another answers 400."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from fallback.providers.render import render
from fallback.types import (
    DocumentBlock,
    ImageBlock,
    Message,
    Request,
    TextBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from tests.support.fakes import request, tier

HAIKU, SONNET, OPUS = tier("haiku"), tier("sonnet"), tier("opus")
TOOLS = (Tool("look", "looks", {"type": "object"}), Tool("say", "", {"type": "object"}, "1h"))


def _render(asked: Request, to: Any = HAIKU) -> dict[str, Any]:
    body = render(asked, to, to.model, 100)
    assert json.loads(json.dumps(body, allow_nan=False)) == body, "plain JSON and nothing else"
    return body


def test_the_least_body() -> None:
    assert _render(request("hi")) == {
        "model": "claude-haiku-5-5",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_model_and_limit_are_the_attempts_own() -> None:
    body = render(request(max_tokens=100), HAIKU, "anthropic.claude-haiku-5-5", 4_000)
    assert (body["model"], body["max_tokens"]) == ("anthropic.claude-haiku-5-5", 4_000)


def test_every_block() -> None:
    asked = request(
        system=(TextBlock("brief"), TextBlock("long", "1h")),
        stop_sequences=("END",),
        messages=(
            Message(
                "user",
                (
                    TextBlock("look", "5m"),
                    ImageBlock("image/png", b"\x00\xff"),
                    ImageBlock(url="https://x/y.png"),
                    DocumentBlock("application/pdf", b"%PDF", title="t"),
                    DocumentBlock("text/plain", "wörds".encode()),
                    DocumentBlock(url="https://x/z.pdf", cache="5m"),
                ),
            ),
            Message("assistant", (TextBlock("calling"), ToolUseBlock("u1", "look", {"q": 1}))),
            Message(
                "user",
                (ToolResultBlock("u1", (TextBlock("ok"), ImageBlock(url="https://x")), is_error=True, cache="1h"),),
            ),
        ),
    )
    body = _render(asked)
    assert body["system"] == [
        {"type": "text", "text": "brief"},
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert body["stop_sequences"] == ["END"]
    first, second, third = (message["content"] for message in body["messages"])
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert first == [
        {"type": "text", "text": "look", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {
            "type": "document",
            "source": {
                "type": "base64",
                "media_type": "application/pdf",
                "data": base64.b64encode(b"%PDF").decode(),
            },
            "title": "t",
        },
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "wörds"}},
        {
            "type": "document",
            "source": {"type": "url", "url": "https://x/z.pdf"},
            "cache_control": {"type": "ephemeral", "ttl": "5m"},
        },
    ]
    assert second[1] == {"type": "tool_use", "id": "u1", "name": "look", "input": {"q": 1}}
    assert third == [
        {
            "type": "tool_result",
            "tool_use_id": "u1",
            "content": [
                {"type": "text", "text": "ok"},
                {"type": "image", "source": {"type": "url", "url": "https://x"}},
            ],
            "is_error": True,
            "cache_control": {"type": "ephemeral", "ttl": "1h"},
        }
    ]


def test_a_marked_single_text_keeps_its_mark() -> None:
    asked = request(messages=(Message("user", (TextBlock("hi", "5m"),)),))
    assert _render(asked)["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}


def test_tools() -> None:
    body = _render(request(tools=TOOLS))
    assert body["tools"] == [
        {"name": "look", "input_schema": {"type": "object"}, "description": "looks"},
        {"name": "say", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
    ]
    assert "tool_choice" not in body
    assert "thinking" not in body
    assert _render(request(tools=TOOLS, tool_choice=ToolChoice("none")))["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("choice", "rendered"),
    [(ToolChoice("any"), {"type": "any"}), (ToolChoice("tool", "look"), {"type": "tool", "name": "look"})],
)
def test_only_a_tier_that_takes_a_forced_choice_gets_one(choice: ToolChoice, rendered: dict[str, str]) -> None:
    asked = request(tools=TOOLS, tool_choice=choice, effort="high", output_schema={"type": "object"})
    body = _render(asked, HAIKU)
    assert body["tool_choice"] == rendered
    assert body["thinking"] == {"type": "disabled"}
    assert "effort" not in body["output_config"], "thinking is off at the default effort only"
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": {"type": "object"}}
    for other in (SONNET, OPUS):
        body = _render(asked, other)
        assert "tool_choice" not in body
        assert "thinking" not in body
        assert body["output_config"]["effort"] == "high"


def test_effort_and_output_schema() -> None:
    assert _render(request(effort="max"))["output_config"] == {"effort": "max"}
    assert _render(request(output_schema={"type": "object"}))["output_config"] == {
        "format": {"type": "json_schema", "schema": {"type": "object"}}
    }


@pytest.mark.parametrize("to", [HAIKU, SONNET, OPUS])
def test_what_every_tier_refuses_is_never_sent(to: Any) -> None:
    asked = request(tools=TOOLS, tool_choice=ToolChoice("auto"), effort="low", system=(TextBlock("s"),))
    assert not {"temperature", "top_p", "top_k", "metadata"} & set(_render(asked, to))


def test_rendering_shares_nothing_with_the_request() -> None:
    schema = {"type": "object"}
    asked = request(tools=(Tool("t", "", schema),), output_schema=schema)
    body = _render(asked)
    body["tools"][0]["input_schema"]["x"] = 1
    body["output_config"]["format"]["schema"]["y"] = 1
    assert schema == {"type": "object"}


def test_all_texts_of_a_request_in_reading_order() -> None:
    result = ToolResultBlock("u1", (TextBlock("d"), ImageBlock(url="https://x")))
    asked = request(
        system=(TextBlock("a"),),
        messages=(
            Message("user", (TextBlock("b"), DocumentBlock("text/plain", b"c\xff"), DocumentBlock(url="https://x"))),
            Message("user", (result, TextBlock("e"))),
        ),
    )
    assert asked.texts() == ["a", "b", "c\ufffd", "d", "e"]
    assert "b" not in repr(asked.messages), "no content in a log by accident"
