"""JSON in a reply, schemas for it and for tool calls, and what a schema may not do to the service."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fallback.checks import Check
from fallback.checks.schema import (
    JsonSchemaCheck,
    OutputSchemaCheck,
    SchemaError,
    ToolArgumentsCheck,
    compile_schema,
    fits,
    json_in,
)
from fallback.types import Accept, Reject, Request, Tool, ToolChoice, ToolUseBlock
from tests.support.fakes import case, reply, request

SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "tag": {"enum": ["a", "b"]}},
    "required": ["id"],
    "additionalProperties": False,
}
BROKEN: list[dict[str, Any]] = [
    {"type": "nope"},
    {"properties": 3},
    {"required": "id"},
    {"minimum": "1"},
    {"pattern": "("},
    {"$ref": "http://127.0.0.1:1/schema.json"},
    {"$ref": "https://json-schema.org/draft/2020-12/nowhere"},
    {"$ref": "file:///etc/passwd"},
    {"$ref": "other.json"},
    {"$ref": "#/nowhere"},
    {"$ref": "#/$defs/a/0/x", "$defs": {"a": [True]}},
    {"$ref": "#nowhere"},
    {"$id": "http://127.0.0.1:1/", "$ref": "other.json"},
    {"$schema": "http://127.0.0.1:1/meta.json"},
    {"minimum": float("nan")},
    {"title": "\ud800"},
    {"default": {1, 2}},
]


@pytest.mark.parametrize("schema", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_schema_by_itself_is_refused_without_a_look_outside(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError) as caught:
        compile_schema(schema)
    assert caught.value.__suppress_context__
    assert "127.0.0.1" not in str(caught.value)
    with pytest.raises(SchemaError):
        JsonSchemaCheck(schema)


def _doubling(n: int, link: str = "allOf") -> dict[str, Any]:
    steps: dict[str, Any] = {f"a{i}": {link: [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(n)}
    return {"$ref": "#/$defs/a0", "$defs": steps | {f"a{n}": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        _doubling(40),
        _doubling(40, "anyOf"),
        {"properties": {"x": _doubling(40) | {"$ref": "#/properties/x/$defs/a0"}}},
        {
            "$ref": "#a0",
            "definitions": {
                f"a{i}": {"$anchor": f"a{i}", "oneOf": [{"$ref": f"#a{i + 1}"}, {"$ref": f"#a{i + 1}"}]}
                for i in range(40)
            }
            | {"z": {"$anchor": "a40"}},
        },
        {"allOf": [{"pattern": f"a{i}"} for i in range(201)]},
        {"patternProperties": {f"a{i}": True for i in range(201)}},
        {"pattern": r"(?:\w{50}){5000}"},
        {"allOf": [{"pattern": rf"\p{{L}}{{1,500}}{i}"} for i in range(100)]},
    ],
    ids=range(8),
)
def test_a_schema_that_costs_too_much_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        compile_schema(schema)


@pytest.mark.parametrize("reference", ["#", "#/$defs/a~1b", "#/$defs/c~0d", "#/allOf/0"])
def test_references_inside_are_followed(reference: str) -> None:
    schema = {
        "properties": {"x": {"$ref": reference}},
        "$defs": {"a/b": {"type": "object"}, "c~d": {"type": "object"}},
        "allOf": [{"type": "object"}],
    }
    assert fits({"x": {}}, schema)
    assert not fits({"x": 3}, schema)


def test_recursion_is_no_problem() -> None:
    for schema in (
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ):
        assert fits({}, schema)
    tree = {"type": "object", "properties": {"l": {"$ref": "#"}, "r": {"$ref": "#"}}}
    assert fits({"l": {"l": {}, "r": {}}}, tree)
    assert not fits({"l": {"l": {}, "r": 1}}, tree)


def test_a_value_that_no_json_text_has_fits_nothing() -> None:
    assert not fits({"\ud800": 1}, {"type": "object", "properties": {"a": {}}})
    assert not fits("\ud800", {"type": "string", "pattern": "a"})


@pytest.mark.parametrize("pattern", [r"^\p{L}{1,64}$", r"^.{1,5000}$", r"^[\p{L} '-]{1,100}$", r"^[\w.+-]+@[\w.-]+$"])
def test_everyday_patterns_are_not_too_costly(pattern: str) -> None:
    assert fits("e@x" if "@" in pattern else "é", {"pattern": pattern})


# --- JSON in text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        (' {"a": 1}\n', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1]\n```", [1]),
        ('Here it is:\n```json\n{"a": 1}\n```\nAnything else?', {"a": 1}),
        ('{"code": "```x```"}', {"code": "```x```"}),
        ('"```"', "```"),
    ],
)
def test_json_bare_or_fenced(text: str, value: Any) -> None:
    assert json_in(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        'It is {"a": 1}.',
        '{"a": 1} {"b": 2}',
        "```json\n{}\n```\n```json\n{}\n```",
        "```json\n{}",
        "NaN",
        "Infinity",
        "[-Infinity]",
        "``````",
        "[" * 50_000,
        "```" + "[" * 50_000 + "```",
    ],
)
def test_what_is_no_single_json_value(text: str) -> None:
    with pytest.raises(ValueError):
        json_in(text)


# --- the checks ------------------------------------------------------------------------------


async def _reason(check: Check, text: str, asked: Request | None = None) -> str:
    verdict = (await check.judge(case(reply(text), asked))).verdict
    return verdict.reason if isinstance(verdict, Reject) else ""


CASES = [
    ('{"id": 1}', ""),
    ('```json\n{"id": 1, "tag": "b"}\n```', ""),
    ('{"id": "1"}', "schema"),
    ('{"id": 1, "tag": "c"}', "schema"),
    ('{"id": 1, "x": 1}', "schema"),
    ("[]", "schema"),
    ("the id is 1", "not_json"),
    ('{"id": NaN}', "not_json"),
    ('{"id": 1, "\\ud800": 1}', "schema"),
]


@pytest.mark.parametrize(("text", "reason"), CASES)
async def test_the_workloads_and_the_requests_schema(text: str, reason: str) -> None:
    assert await _reason(JsonSchemaCheck(SCHEMA), text) == reason
    assert await _reason(OutputSchemaCheck(), text, request(output_schema=SCHEMA)) == reason


async def test_the_requests_schema_is_for_requests_that_have_one_and_answers_that_are_no_calls() -> None:
    assert await _reason(OutputSchemaCheck(), "prose") == ""
    called = case(reply(blocks=(ToolUseBlock("u", "t", {}),)), request(output_schema=SCHEMA))
    assert (await OutputSchemaCheck().judge(called)).verdict == Accept()


TOOLS = (Tool("find", "", SCHEMA), Tool("stop", "", {"type": "object"}))


def _use(name: str, **arguments: Any) -> ToolUseBlock:
    return ToolUseBlock("u", name, arguments)


@pytest.mark.parametrize(
    ("choice", "uses", "reason"),
    [
        (ToolChoice(), (), ""),
        (ToolChoice(), (_use("find", id=1),), ""),
        (ToolChoice(), (_use("find", id=1), _use("stop")), ""),
        (ToolChoice(), (_use("find"),), "arguments_schema"),
        (ToolChoice(), (_use("find", id=1), _use("find", id="x")), "arguments_schema"),
        (ToolChoice(), (_use("fnid", id=1),), "unknown_tool"),
        (ToolChoice("any"), (), "no_tool_call"),
        (ToolChoice("any"), (_use("stop"),), ""),
        (ToolChoice("tool", "find"), (), "no_tool_call"),
        (ToolChoice("tool", "find"), (_use("stop"),), "other_tool"),
        (ToolChoice("tool", "find"), (_use("stop"), _use("find", id=1)), ""),
        (ToolChoice("none"), (), ""),
    ],
)
async def test_tool_calls(choice: ToolChoice, uses: tuple[ToolUseBlock, ...], reason: str) -> None:
    asked = request(tools=TOOLS, tool_choice=choice)
    verdict = (await ToolArgumentsCheck().judge(case(reply("text", blocks=uses), asked))).verdict
    assert (verdict.reason if isinstance(verdict, Reject) else "") == reason


def test_a_schema_in_another_order_is_the_same_compiled_one() -> None:
    turned = json.loads(json.dumps(dict(reversed(SCHEMA.items()))))
    assert compile_schema(turned) is compile_schema(SCHEMA)
