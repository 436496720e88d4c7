"""Refuses what the real API refuses: one pass over a request body, ending in a 4xx or in a `Checked`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fallback.emulator.api_errors import ApiError, invalid
from fallback.emulator.models import EFFORTS, ModelSpec, find_model
from fallback.emulator.schema import check_output_schema
from fallback.emulator.validate_messages import check_blocks, check_mark, check_messages

Body = Mapping[str, Any]

_FIELDS = frozenset(
    (
        *("model", "messages", "max_tokens", "system", "tools", "tool_choice", "stop_sequences", "stream"),
        *("thinking", "output_config", "cache_control", "metadata", "service_tier", "speed", "inference_geo"),
        *("container", "diagnostics", "user_profile_id", "temperature", "top_p", "top_k"),
    )
)
_SAMPLING = ("temperature", "top_p", "top_k")
_THINKING_OFF = ("disabled", "between_tools")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}\Z")
_MAX_CACHE_MARKS = 4


@dataclass(frozen=True, slots=True)
class Checked:
    """What validation worked out: the model, and the settings with their defaults filled in."""

    spec: ModelSpec
    max_tokens: int
    stream: bool
    thinking: bool
    effort: str
    schema: Mapping[str, Any] | None
    tools: tuple[Mapping[str, Any], ...]
    must_call: str  # "" or "any" or the tool's name


def check_body(body: Body, *, counting: bool = False) -> Checked:
    """Check a body of POST /v1/messages, or of count_tokens where `counting`. Raises ApiError."""
    spec = _model(body)
    for name in _SAMPLING:
        if name in body:
            raise invalid(f"{name}: this parameter is not supported by this model")
    for name in body:
        if name not in _FIELDS:
            raise invalid(f"{name}: Extra inputs are not permitted")
    max_tokens = 1 if counting else _max_tokens(body, spec)
    stream = body.get("stream", False)
    if not isinstance(stream, bool):
        raise invalid("stream: Input should be a valid boolean")
    marks = check_messages(body.get("messages"))
    marks += _system(body.get("system"))
    effort, schema = _output_config(body.get("output_config"), spec)
    thinking = _thinking(body.get("thinking"), spec, effort)
    tools, tool_marks = _tools(body.get("tools"))
    marks += tool_marks
    must_call = _tool_choice(body.get("tool_choice"), tools, spec)
    _rest(body, spec)
    marks += check_mark(body.get("cache_control"), "request")
    if marks > _MAX_CACHE_MARKS:
        raise invalid(f"A maximum of {_MAX_CACHE_MARKS} blocks with cache_control may be provided. Found {marks}.")
    if isinstance(body.get("tool_choice"), dict) and body["tool_choice"].get("type") == "none":
        tools = ()
    return Checked(spec, max_tokens, stream, thinking, effort, schema, tools, must_call)


def _model(body: Body) -> ModelSpec:
    if "model" not in body:
        raise invalid("model: Field required")
    if not isinstance(body["model"], str) or not body["model"]:
        raise invalid("model: Input should be a valid string")
    spec = find_model(body["model"])
    if spec is None:
        raise ApiError(404, f"model: {body['model'][:128]}")
    return spec


def _max_tokens(body: Body, spec: ModelSpec) -> int:
    value = body.get("max_tokens")
    if value is None:
        raise invalid("max_tokens: Field required")
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid("max_tokens: Input should be a valid integer")
    if value < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    if value > spec.max_output_tokens:
        raise invalid(
            f"max_tokens: {value} > {spec.max_output_tokens}, which is the maximum allowed number of output tokens "
            f"for {spec.id}"
        )
    return value


def _system(system: object) -> int:
    if system is None or isinstance(system, str):
        return 0
    return check_blocks(system, "system", role="system")


def _output_config(config: object, spec: ModelSpec) -> tuple[str, Mapping[str, Any] | None]:
    if config is None:
        return spec.default_effort, None
    if not isinstance(config, dict):
        raise invalid("output_config: Input should be an object")
    for name in config:
        if name not in ("effort", "format"):
            raise invalid(f"output_config.{name}: Extra inputs are not permitted")
    effort = config.get("effort") or spec.default_effort
    if effort not in EFFORTS:
        raise invalid(f"output_config.effort: Input should be {', '.join(EFFORTS)}")
    form = config.get("format")
    if form is None:
        return effort, None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    schema = form.get("schema")
    if not isinstance(schema, dict):
        raise invalid("output_config.format.schema: Input should be an object")
    check_output_schema(schema)
    return effort, schema


def _thinking(thinking: object, spec: ModelSpec, effort: str) -> bool:
    if thinking is None:
        return True
    if not isinstance(thinking, dict) or not isinstance(thinking.get("type"), str):
        raise invalid("thinking.type: Field required")
    kind = thinking["type"]
    if kind not in spec.thinking:
        raise invalid(f"thinking.type: '{kind}' is not supported by {spec.id}")
    if kind in _THINKING_OFF and effort in ("xhigh", "max"):
        raise invalid(f"thinking.type: '{kind}' is not supported at effort '{effort}'")
    return kind not in _THINKING_OFF


def _tools(tools: object) -> tuple[tuple[Mapping[str, Any], ...], int]:
    if tools is None:
        return (), 0
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    seen: set[str] = set()
    marks = 0
    for n, tool in enumerate(tools):
        where = f"tools.{n}"
        if not isinstance(tool, dict):
            raise invalid(f"{where}: Input should be an object")
        if tool.get("type", "custom") not in ("custom", None):
            raise invalid(f"{where}.type: the emulator knows client tools only")
        name = tool.get("name")
        if not isinstance(name, str) or not _TOOL_NAME.match(name):
            raise invalid(f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if name in seen:
            raise invalid("tools: Tool names must be unique.")
        seen.add(name)
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise invalid(f"{where}.input_schema.type: Input should be 'object'")
        marks += check_mark(tool.get("cache_control"), where)
    return tuple(tools), marks


def _tool_choice(choice: object, tools: tuple[Mapping[str, Any], ...], spec: ModelSpec) -> str:
    if choice is None:
        return ""
    if not isinstance(choice, dict) or choice.get("type") not in ("auto", "any", "tool", "none"):
        raise invalid("tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'")
    kind = choice["type"]
    if kind in ("auto", "none"):
        return ""
    if not tools:
        raise invalid("tool_choice: may only be specified while providing tools")
    if not spec.forced_tool_choice:
        raise invalid(f"tool_choice.type: '{kind}' is not supported by {spec.id}; use 'auto' or 'none'")
    if kind == "any":
        return "any"
    name = choice.get("name")
    if not isinstance(name, str) or all(tool["name"] != name for tool in tools):
        raise invalid("tool_choice: the named tool was not found in tools")
    return name


def _rest(body: Body, spec: ModelSpec) -> None:
    stops = body.get("stop_sequences")
    if stops is not None:
        if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
            raise invalid("stop_sequences: Input should be a list of strings")
        if not all(stop.strip() for stop in stops):
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")
    if body.get("service_tier", "auto") not in ("auto", "standard_only"):
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")
    if body.get("speed") not in (None, "standard", "fast"):
        raise invalid("speed: Input should be 'standard' or 'fast'")
    if body.get("speed") == "fast" and not spec.fast_mode:
        raise invalid(f"speed: 'fast' is not supported by {spec.id}")
    metadata = body.get("metadata")
    if metadata is not None and not (isinstance(metadata, dict) and metadata.keys() <= {"user_id"}):
        raise invalid("metadata: only user_id is permitted")
