"""A response body is a Reply, or a Failure; nothing else, whatever stands in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback import errors
from fallback.errors import Failure, MalformedReply
from fallback.providers import anthropic_api
from fallback.providers.anthropic_api import parse_reply
from fallback.types import Reply, StopReason, TextBlock, ToolUseBlock, Usage
from tests.support.upstream import MESSAGE


def _body(**changes: Any) -> bytes:
    return json.dumps(MESSAGE | changes).encode()


def test_blocks_are_picked_by_type_and_thinking_is_left_out() -> None:
    reply = parse_reply(
        _body(
            content=[
                {"type": "thinking", "thinking": "", "signature": "s"},
                {"type": "text", "text": "a", "citations": None},
                {"type": "something_new", "x": 1},
                {"type": "tool_use", "id": "u", "name": "t", "input": {"q": [1, "é"]}},
                {"type": "text", "text": "b"},
            ],
            stop_reason="tool_use",
        )
    )
    assert reply.content == (TextBlock("a"), ToolUseBlock("u", "t", {"q": [1, "é"]}), TextBlock("b"))
    assert (reply.text, len(reply.tool_uses)) == ("ab", 1)
    assert (reply.model, reply.upstream_id) == ("claude-haiku-5-5", "msg_1")


@pytest.mark.parametrize("stop", list(StopReason))
def test_every_stop_reason(stop: StopReason) -> None:
    assert parse_reply(_body(stop_reason=stop.value)).stop_reason is stop


@pytest.mark.parametrize("stop", ["something_new", None, 3, [], {}])
def test_an_unknown_stop_reason_is_unknown(stop: Any) -> None:
    assert parse_reply(_body(stop_reason=stop)).stop_reason is StopReason.UNKNOWN


def test_a_refusal_is_a_reply_also_without_content() -> None:
    reply = parse_reply(_body(stop_reason="refusal", content=[], stop_details={"category": "cyber"}))
    assert (reply.stop_reason, reply.content, reply.usage) == (StopReason.REFUSAL, (), Usage(10, 5))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 0, "output_tokens": 0}, Usage()),
        ({"cache_read_input_tokens": 7, "cache_creation_input_tokens": 9}, Usage(10, 5, 9, 0, 7)),
        ({"cache_creation_input_tokens": None, "cache_read_input_tokens": None, "cache_creation": None}, Usage(10, 5)),
        (
            {
                "cache_creation_input_tokens": 30,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            },
            Usage(10, 5, 10, 20),
        ),
        (
            {
                "cache_creation_input_tokens": 20,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 20},
            },
            Usage(10, 5, 0, 20),
        ),
        ({"cache_creation_input_tokens": 20, "cache_creation": {}}, Usage(10, 5, 20)),
        ({"output_tokens_details": {"thinking_tokens": 3}, "service_tier": "standard"}, Usage(10, 5)),
    ],
)
def test_usage_as_billed(usage: dict[str, Any], expected: Usage) -> None:
    assert parse_reply(_body(usage={"input_tokens": 10, "output_tokens": 5} | usage)).usage == expected


BROKEN: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"3",
    b"[]",
    b'"text"',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"type": "error"}',
    b'{"type": "error", "error": []}',
    *(json.dumps({k: v for k, v in MESSAGE.items() if k != name}).encode() for name in ("id", "model", "content")),
    *(json.dumps({k: v for k, v in MESSAGE.items() if k != name}).encode() for name in ("usage", "stop_reason")),
    _body(id=None),
    _body(model=7),
    _body(content=None),
    _body(content="text"),
    _body(content={"type": "text"}),
    _body(content=["text"]),
    _body(content=[{"text": "x"}]),
    _body(content=[{"type": "text"}]),
    _body(content=[{"type": "text", "text": None}]),
    _body(content=[{"type": "text", "text": 3}]),
    _body(content=[{"type": "text", "text": "\ud800"}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t"}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": None}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": "{}"}]),
    _body(content=[{"type": "tool_use", "id": None, "name": "t", "input": {}}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": ["t"], "input": {}}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": {"a": "\udfff"}}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": {"\ud800": 1}}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": {"a": float("nan")}}]),
    _body(content=[{"type": "tool_use", "id": "u", "name": "t", "input": {"a": 1}}]).replace(b'"a": 1', b'"a": 1e999'),
    _body(usage=None),
    _body(usage=[]),
    _body(usage={}),
    _body(usage={"input_tokens": None, "output_tokens": 5}),
    _body(usage={"input_tokens": 10}),
    *(
        _body(usage={"input_tokens": value, "output_tokens": 5})
        for value in (-1, 1.5, "10", True, [1], float("nan"), 10**12)
    ),
    _body(usage={"input_tokens": 1, "output_tokens": 5, "cache_read_input_tokens": -1}),
    _body(usage={"input_tokens": 1, "output_tokens": 5, "cache_creation": [1]}),
    _body(usage={"input_tokens": 1, "output_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": "1"}}),
]


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_body_that_is_no_message_is_malformed(content: bytes) -> None:
    with pytest.raises(MalformedReply) as caught:
        parse_reply(content)
    assert (caught.value.error_type, caught.value.http_status) == ("malformed_body", 200)
    assert caught.value.__suppress_context__


def test_a_body_beyond_all_bounds_is_not_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anthropic_api, "_MAX_REPLY_BYTES", 100)
    with pytest.raises(MalformedReply) as caught:
        parse_reply(b" " * 101)
    assert caught.value.error_type == "too_large"


def test_names_of_the_upstream_are_cut_to_a_bounded_length() -> None:
    reply = parse_reply(_body(id="m" * 500, model="c" * 500))
    assert (len(reply.upstream_id), len(reply.model)) == (128, 128)


def test_an_error_object_is_its_failure() -> None:
    with pytest.raises(errors.RateLimited) as caught:
        parse_reply(b'{"type": "error", "error": {"type": "rate_limit_error", "message": "canary"}}')
    assert "canary" not in repr(vars(caught.value))


_any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=4), c, max_size=3),
    max_leaves=6,
)
_blocks = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "tool_use", "thinking"])}, optional={"text": _any, "id": _any, "input": _any}
)
_bodies = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["message", "error"]),
        "error": _any | st.fixed_dictionaries({"type": _any}),
        "content": st.lists(_blocks | _any, max_size=3) | _any,
        "usage": _any | st.just(MESSAGE["usage"]),
        "stop_reason": _any | st.just("end_turn"),
        "model": _any | st.just("m"),
        "id": _any | st.just("i"),
    },
)


@settings(max_examples=500)
@given(_bodies.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_body_is_a_sendable_reply_or_a_failure(content: bytes) -> None:
    got: Reply | Failure
    try:
        got = parse_reply(content)
    except Failure as failure:
        got = failure
    if isinstance(got, Failure):
        assert got.http_status == 200
    else:
        got.text.encode()
        json.dumps([dict(use.input) for use in got.tool_uses], allow_nan=False, ensure_ascii=False).encode()
