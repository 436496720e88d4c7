"""A prompt from the wire as the chain's Request. Every wrong field is refused by its path; nothing is decided here."""

from __future__ import annotations

import json
import re
from typing import Any, cast, get_args

from fallback.checks.schema import SchemaError, compile_schema
from fallback.types import (
    CacheMark,
    ContentBlock,
    DocumentBlock,
    Effort,
    ImageBlock,
    JsonObject,
    Message,
    Request,
    Role,
    TextBlock,
    Tool,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from router.fields import PRINTABLE, InvalidField, Limits
from router.v1 import router_pb2

_MAX_TOKENS = 128_000
_MAX_STOP_SEQUENCES = 16
_MAX_TOOLS = 128
_MAX_SCHEMA_CHARS = 100_000
_MAX_JSON_DEPTH = 100
_MAX_STOP_SEQUENCE_CHARS = 1_000
_IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_DOCUMENT_TYPES = frozenset({"application/pdf", "text/plain"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MARKS: dict[int, CacheMark | None] = {
    router_pb2.CACHE_CONTROL_UNSPECIFIED: None,
    router_pb2.CACHE_CONTROL_5M: "5m",
    router_pb2.CACHE_CONTROL_1H: "1h",
}


def request_of(workload: str, prompt: router_pb2.Prompt, limits: Limits) -> Request:
    """A Request, or InvalidField with the path of the first wrong field."""
    _bounded(prompt, limits.max_text_chars)
    if not prompt.messages:
        raise InvalidField("prompt.messages", "at least one message is required")
    messages = tuple(_message(message, f"prompt.messages[{i}]") for i, message in enumerate(prompt.messages))
    if messages[-1].role != "user":
        raise InvalidField(f"prompt.messages[{len(messages) - 1}].role", "the last message must be the user's")
    if not 1 <= prompt.max_tokens <= _MAX_TOKENS:
        raise InvalidField("prompt.max_tokens", f"must be 1 to {_MAX_TOKENS}")
    ceiling = prompt.max_tokens_ceiling or prompt.max_tokens
    if not prompt.max_tokens <= ceiling <= _MAX_TOKENS:
        raise InvalidField("prompt.max_tokens_ceiling", f"must be max_tokens to {_MAX_TOKENS}, or 0")
    if len(prompt.stop_sequences) > _MAX_STOP_SEQUENCES:
        raise InvalidField("prompt.stop_sequences", f"at most {_MAX_STOP_SEQUENCES}")
    if not all(0 < len(sequence) <= _MAX_STOP_SEQUENCE_CHARS for sequence in prompt.stop_sequences):
        raise InvalidField("prompt.stop_sequences", f"each must be 1 to {_MAX_STOP_SEQUENCE_CHARS} characters")
    if prompt.effort and prompt.effort not in get_args(Effort):
        raise InvalidField("prompt.effort", f"must be one of {', '.join(get_args(Effort))}")
    if len(prompt.tools) > _MAX_TOOLS or len({tool.name for tool in prompt.tools}) < len(prompt.tools):
        raise InvalidField("prompt.tools", f"at most {_MAX_TOOLS}, with different names")
    tools = tuple(_tool(tool, f"prompt.tools[{i}]") for i, tool in enumerate(prompt.tools))
    return Request(
        workload=workload,
        messages=messages,
        max_tokens=prompt.max_tokens,
        max_tokens_ceiling=ceiling,
        system=tuple(_system(block, f"prompt.system[{i}]") for i, block in enumerate(prompt.system)),
        tools=tools,
        tool_choice=_tool_choice(prompt.tool_choice, tools),
        stop_sequences=tuple(prompt.stop_sequences),
        output_schema=_schema(prompt.output_schema_json, "prompt.output_schema_json"),
        effort=cast("Effort", prompt.effort) if prompt.effort else None,
    )


def _bounded(prompt: router_pb2.Prompt, max_chars: int) -> None:
    """The whole text, before any of it is looked at."""
    chars = sum(len(block.text) for block in prompt.system)
    chars += sum(len(tool.description) + len(tool.input_schema_json) for tool in prompt.tools)
    for message in prompt.messages:
        for block in message.content:
            chars += len(block.text.text) + len(block.tool_use.input_json)
            chars += sum(len(part.text.text) for part in block.tool_result.content)
            if block.document.media_type == "text/plain":
                chars += len(block.document.data)
    if chars > max_chars:
        raise InvalidField("prompt", f"more than {max_chars} characters of text")


def _message(message: router_pb2.Message, path: str) -> Message:
    if message.role not in ("user", "assistant"):
        raise InvalidField(f"{path}.role", "must be user or assistant")
    if not message.content:
        raise InvalidField(f"{path}.content", "must not be empty")
    role = cast("Role", message.role)
    blocks = tuple(_block(block, f"{path}.content[{i}]", role) for i, block in enumerate(message.content))
    return Message(role, blocks)


def _block(block: router_pb2.ContentBlock, path: str, role: Role) -> ContentBlock:
    kind = block.WhichOneof("block")
    if kind in ("image", "document", "tool_result") and role == "assistant":
        raise InvalidField(f"{path}.{kind}", "only in the user's messages")
    if kind == "tool_use" and role == "user":
        raise InvalidField(f"{path}.tool_use", "only in the assistant's messages")
    mark = _mark(block.cache_control, f"{path}.cache_control")
    match kind:
        case "text":
            if not block.text.text:
                raise InvalidField(f"{path}.text.text", "must not be empty")
            return TextBlock(block.text.text, mark)
        case "image":
            _source(block.image, f"{path}.image", _IMAGE_TYPES)
            return ImageBlock(block.image.media_type, block.image.data, block.image.url, mark)
        case "document":
            _source(block.document, f"{path}.document", _DOCUMENT_TYPES)
            document = block.document
            if len(document.title) > 256 or not PRINTABLE.fullmatch(document.title):
                raise InvalidField(f"{path}.document.title", "must be at most 256 printable characters")
            return DocumentBlock(document.media_type, document.data, document.url, document.title, mark)
        case "tool_use":
            return _tool_use(block.tool_use, f"{path}.tool_use", mark)
        case "tool_result":
            return _tool_result(block.tool_result, f"{path}.tool_result", mark)
        case _:
            raise InvalidField(path, "must be a text, image, document, tool_use or tool_result block")


def _source(block: router_pb2.ImageBlock | router_pb2.DocumentBlock, path: str, types: frozenset[str]) -> None:
    if block.url:
        if not block.url.startswith("https://") or len(block.url) > 2_048 or not PRINTABLE.fullmatch(block.url):
            raise InvalidField(f"{path}.url", "must be an https URL of at most 2048 characters")
    elif not block.data:
        raise InvalidField(f"{path}.data", "either data or url is required")
    elif block.media_type not in types:
        raise InvalidField(f"{path}.media_type", f"must be one of {', '.join(sorted(types))}")


def _tool_use(use: router_pb2.ToolUseBlock, path: str, mark: CacheMark | None) -> ToolUseBlock:
    if not _TOOL_NAME.fullmatch(use.name):
        raise InvalidField(f"{path}.name", "must be 1 to 64 of letters, digits, _ and -")
    if not use.id or not PRINTABLE.fullmatch(use.id) or len(use.id) > 128:
        raise InvalidField(f"{path}.id", "must be 1 to 128 printable characters")
    return ToolUseBlock(use.id, use.name, _object(use.input_json, f"{path}.input_json"), mark)


def _tool_result(result: router_pb2.ToolResultBlock, path: str, mark: CacheMark | None) -> ToolResultBlock:
    if not result.tool_use_id or not PRINTABLE.fullmatch(result.tool_use_id) or len(result.tool_use_id) > 128:
        raise InvalidField(f"{path}.tool_use_id", "must be 1 to 128 printable characters")
    parts = []
    for i, part in enumerate(result.content):
        block = _block(part, f"{path}.content[{i}]", "user")
        if not isinstance(block, TextBlock | ImageBlock):
            raise InvalidField(f"{path}.content[{i}]", "must be a text or image block")
        parts.append(block)
    return ToolResultBlock(result.tool_use_id, tuple(parts), result.is_error, mark)


def _system(block: router_pb2.TextBlock, path: str) -> TextBlock:
    if not block.text:
        raise InvalidField(f"{path}.text", "must not be empty")
    return TextBlock(block.text, _mark(block.cache_control, f"{path}.cache_control"))


def _tool(tool: router_pb2.Tool, path: str) -> Tool:
    if not _TOOL_NAME.fullmatch(tool.name):
        raise InvalidField(f"{path}.name", "must be 1 to 64 of letters, digits, _ and -")
    schema = _schema(tool.input_schema_json, f"{path}.input_schema_json")
    if schema is None:
        raise InvalidField(f"{path}.input_schema_json", "is required")
    return Tool(tool.name, tool.description, schema, _mark(tool.cache_control, f"{path}.cache_control"))


def _tool_choice(choice: router_pb2.ToolChoice, tools: tuple[Tool, ...]) -> ToolChoice:
    match choice.kind:
        case "" | "auto" | "none" | "any" as kind:
            if choice.name:
                raise InvalidField("prompt.tool_choice.name", "only with kind tool")
            if kind == "any" and not tools:
                raise InvalidField("prompt.tool_choice.kind", "any needs tools")
            return ToolChoice(kind or "auto")
        case "tool":
            if choice.name not in {tool.name for tool in tools}:
                raise InvalidField("prompt.tool_choice.name", "no such tool in prompt.tools")
            return ToolChoice("tool", choice.name)
        case _:
            raise InvalidField("prompt.tool_choice.kind", "must be auto, any, tool or none")


def _schema(text: str, path: str) -> JsonObject | None:
    if not text:
        return None
    if len(text) > _MAX_SCHEMA_CHARS:
        raise InvalidField(path, f"more than {_MAX_SCHEMA_CHARS} characters")
    schema = _object(text, path)
    if schema.get("type") != "object":
        raise InvalidField(path, "must be a JSON schema of type object")
    try:
        compile_schema(schema)
    except SchemaError as error:
        raise InvalidField(path, str(error)) from None
    return schema


def _object(text: str, path: str) -> JsonObject:
    try:
        value = json.loads(text)
        # Upstream gets it as UTF-8 JSON: no NaN, no number beyond a double, no half character.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise InvalidField(path, "is not JSON") from None
    if not isinstance(value, dict):
        raise InvalidField(path, "must be a JSON object")
    if _deeper(value, _MAX_JSON_DEPTH):
        raise InvalidField(path, f"is nested more than {_MAX_JSON_DEPTH} deep")
    return value


def _deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    children = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(child, depth - 1) for child in children)


def _mark(mark: int, path: str) -> CacheMark | None:
    try:
        return _MARKS[mark]
    except KeyError:
        raise InvalidField(path, "unknown value") from None
