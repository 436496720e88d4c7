"""JSON schemas, compiled once: for the reply's text and for the arguments of tool calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jsonschema_rs

from fallback.checks import Case, Judgement
from fallback.types import Accept, JsonObject, Reject

_FENCE = "```"
# Bounds on what a schema may cost. References may double at every step, so a short schema can unfold
# to more nodes than a day of validation visits; patterns take memory while they are cached.
_MAX_UNFOLDED_NODES = 200_000
_MAX_PATTERNS = 200
_PATTERN_BYTES = 16 << 20  # of one schema, shared among its patterns
_DEFINITIONS = frozenset({"$defs", "definitions"})


class SchemaError(ValueError):
    """The text is no JSON schema; the message says where, never what else it holds."""


@lru_cache(maxsize=128)
def _compiled(schema_json: str) -> jsonschema_rs.Validator:
    # Offline: a $ref to a host would make the service fetch what a caller names. Linear-time
    # patterns: a backtracking one would let a schema stall the event loop.
    schema = json.loads(schema_json)
    patterns = _patterns(schema)
    if _unfolded(schema, schema, {}) > _MAX_UNFOLDED_NODES or patterns > _MAX_PATTERNS:
        raise SchemaError("is too costly to check against")
    linear = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES // max(1, patterns))
    return jsonschema_rs.validator_for(schema, offline=True, pattern_options=linear)


def _unfolded(root: Any, node: Any, sizes: dict[int, int]) -> int:
    """Nodes that one validation may visit: references followed, each cycle once."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = 1  # while it is being counted: a cycle
        if isinstance(node, list):
            total = sum(_unfolded(root, child, sizes) for child in node)
        else:
            total = sum(_unfolded(root, child, sizes) for name, child in node.items() if name not in _DEFINITIONS)
            for name in ("$ref", "$dynamicRef"):
                if isinstance(reference := node.get(name), str):
                    total += _unfolded(root, _target(root, reference), sizes)
        sizes[id(node)] = 1 + min(total, _MAX_UNFOLDED_NODES)
    return sizes[id(node)]


def _target(root: Any, reference: str) -> Any:
    """What a reference inside the schema points at, by JSON pointer or anchor; None where that is nothing."""
    _, _, fragment = reference.partition("#")
    if fragment and not fragment.startswith("/"):
        return _anchored(root, fragment)
    node = root
    for part in fragment.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            return None
    return node


def _anchored(node: Any, anchor: str) -> Any:
    if isinstance(node, dict) and anchor in (node.get("$anchor"), node.get("$dynamicAnchor")):
        return node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((found for child in children if (found := _anchored(child, anchor)) is not None), None)


def _patterns(node: Any) -> int:
    if isinstance(node, list):
        return sum(map(_patterns, node))
    if not isinstance(node, dict):
        return 0
    own = isinstance(node.get("pattern"), str)
    by_name = node.get("patternProperties")
    return own + (len(by_name) if isinstance(by_name, dict) else 0) + sum(map(_patterns, node.values()))


def compile_schema(schema: JsonObject) -> jsonschema_rs.Validator:
    """A validator for `schema`; SchemaError when it is none."""
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except SchemaError:
        raise
    except jsonschema_rs.ReferencingError:
        raise SchemaError("has a $ref that cannot be resolved inside it") from None
    except (jsonschema_rs.ValidationError, ValueError, TypeError, RecursionError):
        raise SchemaError("is not a valid JSON schema") from None


def fits(value: Any, schema: JsonObject) -> bool:
    """Whether `value` is one of `schema`; a value that no JSON text has (a lone surrogate) never is."""
    try:
        return compile_schema(schema).is_valid(value)
    except UnicodeError:
        return False


def with_pattern(pattern: str) -> JsonObject:
    """The schema of texts in which `pattern` occurs, multi-line; matched in time linear in the text."""
    return {"type": "string", "pattern": f"(?m){pattern}"}


def json_in(text: str) -> Any:
    """The JSON value that is the whole text, or the one fenced block in it; ValueError when neither."""
    stripped = text.strip()
    try:
        return json.loads(stripped, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        if stripped.count(_FENCE) != 2:
            raise
    return json_in(stripped.split(_FENCE)[1].removeprefix("json"))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, slots=True)
class OutputSchemaCheck:
    """The reply's text is one JSON value of the request's own output schema, where it has one."""

    name: ClassVar[str] = "output_schema"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    async def judge(self, case: Case) -> Judgement:
        """Only for requests with an output schema; a tool call instead of an answer passes."""
        if case.request.output_schema is None or case.reply.tool_uses:
            return Judgement(Accept())
        return _matches(case.reply.text, case.request.output_schema)


@dataclass(frozen=True, slots=True)
class JsonSchemaCheck:
    """The reply's text is one JSON value of the workload's schema, fenced or bare."""

    name: ClassVar[str] = "json_schema"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    schema: dict[str, Any]

    def __post_init__(self) -> None:
        compile_schema(self.schema)

    async def judge(self, case: Case) -> Judgement:
        """By the workload's schema."""
        return _matches(case.reply.text, self.schema)


@dataclass(frozen=True, slots=True)
class ToolArgumentsCheck:
    """Every tool call names a tool of the request and fits that tool's schema."""

    name: ClassVar[str] = "tool_arguments"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    async def judge(self, case: Case) -> Judgement:
        """By the request's own tools."""
        schemas = {tool.name: tool.input_schema for tool in case.request.tools}
        for use in case.reply.tool_uses:
            if use.name not in schemas:
                return Judgement(Reject("unknown_tool"))
            if not fits(use.input, schemas[use.name]):
                return Judgement(Reject("arguments_schema"))
        if case.request.tool_choice.kind in ("any", "tool") and not case.reply.tool_uses:
            return Judgement(Reject("no_tool_call"))
        if case.request.tool_choice.kind == "tool" and all(
            use.name != case.request.tool_choice.name for use in case.reply.tool_uses
        ):
            return Judgement(Reject("other_tool"))
        return Judgement(Accept())


def _matches(text: str, schema: JsonObject) -> Judgement:
    try:
        value = json_in(text)
    except ValueError:
        return Judgement(Reject("not_json"))
    return Judgement(Accept() if fits(value, schema) else Reject("schema"))
