"""From the wire to the chain's values: every wrong field by its path, nothing else ever, and no content in errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

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
from router.fields import InvalidField, Limits
from router.prompts import request_of
from router.translate import bounds_of, feedback_of, idempotency_key_of, labels_of, workload_of
from router.v1 import feedback_pb2, router_pb2

LIMITS = Limits(("haiku", "sonnet", "opus"), max_text_chars=10_000)
CANARY = "canary-4711"
CONTROLS = ["\x00", "\n", "\r", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029"]


def _text(text: str = "hello", cache_control: Any = 0) -> router_pb2.ContentBlock:
    return router_pb2.ContentBlock(text=router_pb2.TextBlock(text=text), cache_control=cache_control)


def _system(text: str, cache_control: Any = 0) -> router_pb2.TextBlock:
    return router_pb2.TextBlock(text=text, cache_control=cache_control)


def _prompt(**changes: Any) -> router_pb2.Prompt:
    values: dict[str, Any] = {
        "messages": [router_pb2.Message(role="user", content=[_text()])],
        "max_tokens": 100,
    } | changes
    return router_pb2.Prompt(**values)


def _user(block: router_pb2.ContentBlock) -> router_pb2.Prompt:
    return _prompt(messages=[router_pb2.Message(role="user", content=[block])])


def _assistant(block: router_pb2.ContentBlock) -> router_pb2.Prompt:
    said = router_pb2.Message(role="assistant", content=[block])
    return _prompt(messages=[said, router_pb2.Message(role="user", content=[_text()])])


def _tool(name: str = "t", schema: str = '{"type": "object"}', **changes: Any) -> router_pb2.Tool:
    return router_pb2.Tool(name=name, input_schema_json=schema, **changes)


def _image(**changes: Any) -> router_pb2.ContentBlock:
    return router_pb2.ContentBlock(image=router_pb2.ImageBlock(**changes))


def _document(**changes: Any) -> router_pb2.ContentBlock:
    return router_pb2.ContentBlock(document=router_pb2.DocumentBlock(**changes))


def _use(**changes: Any) -> router_pb2.ContentBlock:
    values = {"id": "u1", "name": "t", "input_json": "{}"} | changes
    return router_pb2.ContentBlock(tool_use=router_pb2.ToolUseBlock(**values))


def _result(**changes: Any) -> router_pb2.ContentBlock:
    return router_pb2.ContentBlock(tool_result=router_pb2.ToolResultBlock(**({"tool_use_id": "u1"} | changes)))


def _doubling(n: int) -> str:
    """A short schema whose references unfold to 2^n nodes."""
    steps: dict[str, Any] = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(n)}
    return json.dumps({"type": "object", "$ref": "#/$defs/a0", "$defs": steps | {f"a{n}": {"type": "object"}}})


def _deep(n: int) -> str:
    return '{"a":' * n + "1" + "}" * n


WRONG: list[tuple[router_pb2.Prompt, str]] = [
    # messages
    (_prompt(messages=[]), "prompt.messages"),
    (_prompt(messages=[router_pb2.Message(role="user")]), "prompt.messages[0].content"),
    (_prompt(messages=[router_pb2.Message(content=[_text()])]), "prompt.messages[0].role"),
    (_prompt(messages=[router_pb2.Message(role="system", content=[_text()])]), "prompt.messages[0].role"),
    (_prompt(messages=[router_pb2.Message(role="assistant", content=[_text()])]), "prompt.messages[0].role"),
    (_user(router_pb2.ContentBlock()), "prompt.messages[0].content[0]"),
    (_user(_text("")), "prompt.messages[0].content[0].text.text"),
    (
        _user(_text("x", 7)),
        "prompt.messages[0].content[0].cache_control",
    ),
    # images and documents
    (_user(_image(media_type="image/png")), "prompt.messages[0].content[0].image.data"),
    (_user(_image(data=b"x")), "prompt.messages[0].content[0].image.media_type"),
    (_user(_image(data=b"x", media_type="image/tiff")), "prompt.messages[0].content[0].image.media_type"),
    (_user(_image(url="http://x/y.png")), "prompt.messages[0].content[0].image.url"),
    (_user(_image(url="file:///etc/passwd")), "prompt.messages[0].content[0].image.url"),
    (_user(_image(url="https://x/\r\nhost: y")), "prompt.messages[0].content[0].image.url"),
    (_user(_image(url="https://x/" + "y" * 2_048)), "prompt.messages[0].content[0].image.url"),
    (_user(_document(data=b"x", media_type="text/html")), "prompt.messages[0].content[0].document.media_type"),
    (_user(_document(url="ftp://x")), "prompt.messages[0].content[0].document.url"),
    (_user(_document(url="https://x", title="a\nb")), "prompt.messages[0].content[0].document.title"),
    (_user(_document(url="https://x", title="t" * 257)), "prompt.messages[0].content[0].document.title"),
    (_assistant(_image(url="https://x")), "prompt.messages[0].content[0].image"),
    (_assistant(_document(url="https://x")), "prompt.messages[0].content[0].document"),
    # tool calls and results
    (_user(_use()), "prompt.messages[0].content[0].tool_use"),
    (_assistant(_result()), "prompt.messages[0].content[0].tool_result"),
    (_assistant(_use(name="a b")), "prompt.messages[0].content[0].tool_use.name"),
    (_assistant(_use(id="")), "prompt.messages[0].content[0].tool_use.id"),
    (_assistant(_use(id="a\n")), "prompt.messages[0].content[0].tool_use.id"),
    (_assistant(_use(id="a" * 129)), "prompt.messages[0].content[0].tool_use.id"),
    (_assistant(_use(input_json="")), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json="[]")), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json='{"a": NaN}')), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json='{"a": 1e999}')), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json='{"a": "\\ud800"}')), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json=f'{{"a": 1{"0" * 5_000}}}')), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json=_deep(101))), "prompt.messages[0].content[0].tool_use.input_json"),
    (_assistant(_use(input_json='{"a":' * 1_900)), "prompt.messages[0].content[0].tool_use.input_json"),
    (_user(_result(tool_use_id="")), "prompt.messages[0].content[0].tool_result.tool_use_id"),
    (_user(_result(tool_use_id="x\x00")), "prompt.messages[0].content[0].tool_result.tool_use_id"),
    (_user(_result(content=[_result()])), "prompt.messages[0].content[0].tool_result.content[0]"),
    (_user(_result(content=[_text(), _text("")])), "prompt.messages[0].content[0].tool_result.content[1].text.text"),
    # limits
    (_prompt(max_tokens=0), "prompt.max_tokens"),
    (_prompt(max_tokens=-1), "prompt.max_tokens"),
    (_prompt(max_tokens=128_001), "prompt.max_tokens"),
    (_prompt(max_tokens_ceiling=99), "prompt.max_tokens_ceiling"),
    (_prompt(max_tokens_ceiling=-5), "prompt.max_tokens_ceiling"),
    (_prompt(max_tokens_ceiling=128_001), "prompt.max_tokens_ceiling"),
    (_prompt(stop_sequences=["x"] * 17), "prompt.stop_sequences"),
    (_prompt(stop_sequences=["x", ""]), "prompt.stop_sequences"),
    (_prompt(stop_sequences=["x" * 1_001]), "prompt.stop_sequences"),
    (_prompt(effort="extreme"), "prompt.effort"),
    # system
    (_prompt(system=[router_pb2.TextBlock()]), "prompt.system[0].text"),
    (_prompt(system=[_system("x", 9)]), "prompt.system[0].cache_control"),
    # schemas and tools
    (_prompt(output_schema_json="{"), "prompt.output_schema_json"),
    (_prompt(output_schema_json="3"), "prompt.output_schema_json"),
    (_prompt(output_schema_json="{}"), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "array"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "properties": 3}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "$ref": "http://x/y"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "$ref": "file:///etc/passwd"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "$ref": "#/nowhere"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "$schema": "http://x/y"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "pattern": "(a"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "pattern": "(?=a)"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json='{"type": "object", "pattern": "(\\\\w{1000}){1000}"}'), "prompt.output_schema_json"),
    (_prompt(output_schema_json=_doubling(40)), "prompt.output_schema_json"),
    (_prompt(tools=[_tool(name="")]), "prompt.tools[0].name"),
    (_prompt(tools=[_tool(name="a.b")]), "prompt.tools[0].name"),
    (_prompt(tools=[_tool(name="a\n")]), "prompt.tools[0].name"),
    (_prompt(tools=[_tool(name="a" * 65)]), "prompt.tools[0].name"),
    (_prompt(tools=[_tool(schema="")]), "prompt.tools[0].input_schema_json"),
    (_prompt(tools=[_tool(schema="nope")]), "prompt.tools[0].input_schema_json"),
    (_prompt(tools=[_tool(), _tool("u", '{"type": "string"}')]), "prompt.tools[1].input_schema_json"),
    (_prompt(tools=[_tool(cache_control=3)]), "prompt.tools[0].cache_control"),
    (_prompt(tools=[_tool(), _tool()]), "prompt.tools"),
    (_prompt(tools=[_tool(f"t{i}", "broken") for i in range(129)]), "prompt.tools"),
    (_prompt(tool_choice=router_pb2.ToolChoice(kind="some")), "prompt.tool_choice.kind"),
    (_prompt(tool_choice=router_pb2.ToolChoice(kind="any")), "prompt.tool_choice.kind"),
    (_prompt(tool_choice=router_pb2.ToolChoice(kind="tool", name="t")), "prompt.tool_choice.name"),
    (_prompt(tool_choice=router_pb2.ToolChoice(name="t")), "prompt.tool_choice.name"),
    # the whole text
    (_user(_text("x" * 10_001)), "prompt"),
    (_prompt(system=[router_pb2.TextBlock(text="x" * 5_000)] * 3), "prompt"),
    (_prompt(tools=[_tool(description="x" * 10_001)]), "prompt"),
    (_user(_result(content=[_text("x" * 10_001)])), "prompt"),
    (_user(_document(data=b"x" * 10_001, media_type="text/plain")), "prompt"),
    (_assistant(_use(input_json="[" * 10_001)), "prompt"),
    (_prompt(tools=[_tool(schema="x" * 10_001)]), "prompt"),
]


@pytest.mark.parametrize(("prompt", "field"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_field_is_refused_by_its_path(prompt: router_pb2.Prompt, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        request_of("w", prompt, LIMITS)
    assert caught.value.field == field
    assert str(caught.value) == f"{field}: {caught.value.description}"
    assert caught.value.description
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_oversized_schema_is_refused_even_where_the_text_limit_is_wide() -> None:
    with pytest.raises(InvalidField, match=r"prompt\.output_schema_json: more than 100000 characters"):
        request_of("w", _prompt(output_schema_json=" " * 100_001), Limits(LIMITS.ladder, 10**6))


def test_a_plain_prompt() -> None:
    assert request_of("w", _prompt(), LIMITS) == Request(
        workload="w", messages=(Message("user", (TextBlock("hello"),)),), max_tokens=100, max_tokens_ceiling=100
    )


def test_a_prompt_with_everything_in_it() -> None:
    schema = '{"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}'
    messages = [
        router_pb2.Message(
            role="user",
            content=[
                _text("look", router_pb2.CACHE_CONTROL_1H),
                _image(data=b"\x89", media_type="image/png"),
                _image(url="https://x/y.png"),
                _document(data=b"words", media_type="text/plain", title="t"),
            ],
        ),
        router_pb2.Message(role="assistant", content=[_text("calling"), _use(input_json='{"q": [1, "\\u00e9"]}')]),
        router_pb2.Message(
            role="user",
            content=[_result(content=[_text("found"), _image(url="https://x/z.png")], is_error=True)],
        ),
    ]
    prompt = _prompt(
        messages=messages,
        system=[router_pb2.TextBlock(text="be brief", cache_control=router_pb2.CACHE_CONTROL_5M)],
        tools=[_tool("t", schema, description="looks", cache_control=router_pb2.CACHE_CONTROL_5M)],
        tool_choice=router_pb2.ToolChoice(kind="tool", name="t"),
        max_tokens_ceiling=4_000,
        stop_sequences=["END"],
        output_schema_json=schema,
        effort="high",
    )
    assert request_of("w", prompt, LIMITS) == Request(
        workload="w",
        messages=(
            Message(
                "user",
                (
                    TextBlock("look", "1h"),
                    ImageBlock("image/png", b"\x89"),
                    ImageBlock(url="https://x/y.png"),
                    DocumentBlock("text/plain", b"words", title="t"),
                ),
            ),
            Message("assistant", (TextBlock("calling"), ToolUseBlock("u1", "t", {"q": [1, "é"]}))),
            Message(
                "user", (ToolResultBlock("u1", (TextBlock("found"), ImageBlock(url="https://x/z.png")), is_error=True),)
            ),
        ),
        max_tokens=100,
        max_tokens_ceiling=4_000,
        system=(TextBlock("be brief", "5m"),),
        tools=(Tool("t", "looks", json.loads(schema), "5m"),),
        tool_choice=ToolChoice("tool", "t"),
        stop_sequences=("END",),
        output_schema=json.loads(schema),
        effort="high",
    )


@pytest.mark.parametrize(("kind", "choice"), [("", "auto"), ("auto", "auto"), ("none", "none"), ("any", "any")])
def test_tool_choices(kind: str, choice: str) -> None:
    prompt = _prompt(tools=[_tool()], tool_choice=router_pb2.ToolChoice(kind=kind))
    assert request_of("w", prompt, LIMITS).tool_choice == ToolChoice(choice)  # type: ignore[arg-type]


def test_legitimate_schemas_are_not_too_costly() -> None:
    tree = {
        "type": "object",
        "properties": {"op": {"enum": ["+"]}, "left": {"$ref": "#"}, "right": {"anyOf": [{"$ref": "#"}, True]}},
    }
    chain = {f"s{i}": {"properties": {"next": {"$ref": f"#/$defs/s{i + 1}"}}} for i in range(100)}
    wide = {"type": "object", "properties": {f"f{i}": {"type": "string", "pattern": "^[a-z]+$"} for i in range(150)}}
    anchored = {"type": "object", "properties": {"a": {"$ref": "#leaf"}}, "$defs": {"x": {"$anchor": "leaf"}}}
    for schema in (tree, {"type": "object", "$ref": "#/$defs/s0", "$defs": chain | {"s100": True}}, wide, anchored):
        assert request_of("w", _prompt(output_schema_json=json.dumps(schema)), Limits(LIMITS.ladder, 10**6))


# --- bounds, labels, keys, feedback ----------------------------------------------------------


@pytest.mark.parametrize("name", ["A", "a b", "-a", ".a", "a" * 65, "ä", "a\n", "a/b", *CONTROLS])
def test_workload_names(name: str) -> None:
    with pytest.raises(InvalidField) as caught:
        workload_of(name)
    assert caught.value.field == "workload"


def test_good_workload_names() -> None:
    assert workload_of("") == "default"
    assert workload_of("a-b_c.9") == "a-b_c.9"
    assert workload_of("a" * 64) == "a" * 64


@pytest.mark.parametrize(
    ("bounds", "field"),
    [
        (router_pb2.Bounds(lowest_tier="mini"), "bounds.lowest_tier"),
        (router_pb2.Bounds(highest_tier="Opus"), "bounds.highest_tier"),
        (router_pb2.Bounds(lowest_tier="opus", highest_tier="sonnet"), "bounds.lowest_tier"),
        (router_pb2.Bounds(cost_cap_usd=-0.01), "bounds.cost_cap_usd"),
        (router_pb2.Bounds(cost_cap_usd=math.nan), "bounds.cost_cap_usd"),
        (router_pb2.Bounds(cost_cap_usd=math.inf), "bounds.cost_cap_usd"),
    ],
)
def test_wrong_bounds(bounds: router_pb2.Bounds, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        bounds_of(bounds, LIMITS)
    assert caught.value.field == field


def test_good_bounds() -> None:
    whole = bounds_of(router_pb2.Bounds(), LIMITS)
    assert (whole.allowed, whole.cost_cap_usd) == (("haiku", "sonnet", "opus"), math.inf)
    some = bounds_of(router_pb2.Bounds(lowest_tier="sonnet", highest_tier="sonnet", cost_cap_usd=0.5), LIMITS)
    assert (some.allowed, some.cost_cap_usd) == (("sonnet",), 0.5)


@pytest.mark.parametrize(
    "labels",
    [
        {f"k{i}": "v" for i in range(17)},
        {"": "v"},
        {"k" * 65: "v"},
        {"k": "v" * 257},
        *({f"k{c}": "v"} for c in CONTROLS),
        *({"k": f"v{c}"} for c in CONTROLS),
    ],
)
def test_wrong_labels(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidField) as caught:
        labels_of(labels)
    assert caught.value.field == "labels"


def test_good_labels() -> None:
    labels = {"team": "größe 語", "k" * 64: "v" * 256, "empty": ""}
    assert labels_of(router_pb2.CompleteRequest(labels=labels).labels) == labels


def test_idempotency_keys() -> None:
    assert idempotency_key_of("") == ""
    assert idempotency_key_of("k" * 128) == "k" * 128
    for key in ("k" * 129, *CONTROLS):
        with pytest.raises(InvalidField, match="idempotency_key"):
            idempotency_key_of(key)


def _report(**changes: Any) -> feedback_pb2.ReportOutcomeRequest:
    values: dict[str, Any] = {"request_id": "0" * 32, "quality": feedback_pb2.QUALITY_GOOD} | changes
    return feedback_pb2.ReportOutcomeRequest(**values)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": ""}, "request_id"),
        ({"request_id": "0" * 31}, "request_id"),
        ({"request_id": "A" * 32}, "request_id"),
        ({"request_id": "0" * 32 + "\n"}, "request_id"),
        ({"quality": feedback_pb2.QUALITY_UNSPECIFIED}, "quality"),
        ({"quality": 9}, "quality"),
        ({"sufficient_tier": "mini"}, "sufficient_tier"),
        ({"score": -0.1}, "score"),
        ({"score": 1.1}, "score"),
        ({"score": math.nan}, "score"),
        ({"reason": "r" * 257}, "reason"),
        ({"reason": "a\nb"}, "reason"),
    ],
)
def test_wrong_feedback(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        feedback_of(_report(**changes), LIMITS)
    assert caught.value.field == field


def test_good_feedback() -> None:
    feedback_of(_report(), LIMITS)
    feedback_of(_report(quality=feedback_pb2.QUALITY_BAD, sufficient_tier="opus", score=0.0, reason="wrong"), LIMITS)


# --- any prompt at all -----------------------------------------------------------------------

_junk = st.text(max_size=12).map(lambda s: CANARY + s) | st.sampled_from(["", "user", "assistant", "tool", "t", "a b"])
_json = st.one_of(
    _junk,
    st.sampled_from(
        [
            "{}",
            "[]",
            "{",
            '{"type": "object"}',
            "NaN",
            '{"a": -Infinity}',
            '{"type":"object","$ref":"#"}',
            _doubling(30),
        ]
    ),
    st.integers(1, 3_000).map(_deep),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(["type", "$ref", "anyOf", "x"]), c),
        max_leaves=8,
    ).map(json.dumps),
)
_enum = st.integers(-2, 5)
_bytes = st.binary(max_size=8)
_media = _junk | st.sampled_from(["image/png", "text/plain", "application/pdf"])
_url = _junk | st.sampled_from(["https://a/b", "http://a"])
_texts = st.builds(router_pb2.TextBlock, text=_junk, cache_control=_enum)


def _sources(kind: Callable[..., Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, media_type=_media, data=_bytes) | st.builds(kind, media_type=_media, url=_url)


_uses = st.builds(router_pb2.ToolUseBlock, id=_junk, name=_junk, input_json=_json)
_flat = st.one_of(
    st.builds(router_pb2.ContentBlock, text=_texts, cache_control=_enum),
    st.builds(router_pb2.ContentBlock, image=_sources(router_pb2.ImageBlock)),
    st.builds(router_pb2.ContentBlock, document=_sources(router_pb2.DocumentBlock)),
    st.builds(router_pb2.ContentBlock, tool_use=_uses, cache_control=_enum),
    st.builds(router_pb2.ContentBlock),
)
_blocks = st.recursive(
    _flat,
    lambda inner: st.builds(
        router_pb2.ContentBlock,
        tool_result=st.builds(
            router_pb2.ToolResultBlock,
            tool_use_id=_junk,
            content=st.lists(inner, max_size=2),
            is_error=st.booleans(),
        ),
    ),
    max_leaves=4,
)
_prompts = st.builds(
    router_pb2.Prompt,
    messages=st.lists(
        st.builds(
            router_pb2.Message,
            role=st.sampled_from(["user", "user", "assistant", ""]) | _junk,
            content=st.lists(_blocks, max_size=3),
        ),
        max_size=3,
    ),
    system=st.lists(_texts, max_size=2),
    tools=st.lists(
        st.builds(router_pb2.Tool, name=_junk, description=_junk, input_schema_json=_json, cache_control=_enum),
        max_size=2,
    ),
    tool_choice=st.builds(router_pb2.ToolChoice, kind=_junk, name=_junk),
    max_tokens=st.integers(-(2**31), 2**31 - 1) | st.just(5),
    max_tokens_ceiling=st.integers(-(2**31), 2**31 - 1) | st.just(0),
    stop_sequences=st.lists(_junk, max_size=2),
    output_schema_json=st.just("") | _json,
    effort=st.just("") | _junk,
)


@settings(max_examples=500)
@given(_prompts)
@example(_user(_text("x" * 1_000_000)))
@example(_user(_text("\x00")))
def test_any_prompt_gives_a_request_or_a_named_field_and_never_repeats_content(prompt: router_pb2.Prompt) -> None:
    got: Request | InvalidField
    try:
        got = request_of("w", prompt, LIMITS)
    except InvalidField as error:
        got = error
    if isinstance(got, InvalidField):
        assert got.field.startswith("prompt")
        assert CANARY not in str(got)
        assert str(got).isprintable()
        assert len(str(got)) < 300
    else:
        assert sum(map(len, got.texts())) <= LIMITS.max_text_chars


@given(st.binary(max_size=200))
def test_any_bytes_that_parse_are_handled(raw: bytes) -> None:
    prompt = router_pb2.Prompt()
    try:
        prompt.ParseFromString(raw)
    except Exception:  # noqa: BLE001 - not a prompt at all: the transport's business
        return
    with suppress(InvalidField):
        request_of("w", prompt, LIMITS)
