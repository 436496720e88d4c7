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


class SchemaError(ValueError):
    """The text is no JSON schema; the message says where, never what else it holds."""


@lru_cache(maxsize=512)
def _compiled(schema_json: str) -> jsonschema_rs.Validator:
    # Offline: a $ref to a host would make the service fetch what a caller names. Linear-time
    # patterns: a backtracking one would let a schema stall the event loop.
    return jsonschema_rs.validator_for(
        json.loads(schema_json), offline=True, pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 20)
    )


def compile_schema(schema: JsonObject) -> jsonschema_rs.Validator:
    """A validator for `schema`; SchemaError when it is none."""
    try:
        return _compiled(json.dumps(schema, sort_keys=True))
    except jsonschema_rs.ReferencingError:
        raise SchemaError("has a $ref that cannot be resolved inside it") from None
    except (jsonschema_rs.ValidationError, ValueError, RecursionError):
        raise SchemaError("is not a valid JSON schema") from None


def json_in(text: str) -> Any:
    """The JSON value that is the whole text, or the one fenced block in it; ValueError when neither."""
    stripped = text.strip()
    if stripped.count(_FENCE) == 2:
        stripped = stripped.split(_FENCE)[1].removeprefix("json").strip()
    try:
        return json.loads(stripped)
    except RecursionError:
        raise ValueError("nested too deeply") from None


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
            if not compile_schema(schemas[use.name]).is_valid(use.input):
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
    return Judgement(Accept() if compile_schema(schema).is_valid(value) else Reject("schema"))
