"""The turns of a request: roles, block types, tool calls and their results."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from fallback.emulator.api_errors import ApiError, invalid

Role = Literal["user", "assistant", "system"]

_ALLOWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "system": ("text",),
        "user": ("text", "image", "document", "tool_result"),
        "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
    }
)
_NEEDS: Mapping[str, tuple[tuple[str, type], ...]] = MappingProxyType(
    {
        "text": (("text", str),),
        "image": (("source", dict),),
        "document": (("source", dict),),
        "tool_use": (("id", str), ("name", str), ("input", dict)),
        "tool_result": (("tool_use_id", str),),
        "thinking": (("thinking", str), ("signature", str)),
        "redacted_thinking": (("data", str),),
    }
)


def check_messages(messages: object) -> int:
    """Check the turns; gives the number of cache marks. Raises ApiError."""
    if not isinstance(messages, list):
        raise invalid("messages: Field required" if messages is None else "messages: Input should be a valid list")
    if not messages:
        raise invalid("messages: at least one message is required")
    marks = 0
    open_calls: frozenset[str] = frozenset()
    for n, message in enumerate(messages):
        where = f"messages.{n}"
        role, content = _turn(message, where)
        if n == 0 and role != "user":
            raise invalid('messages: first message must use the "user" role')
        if isinstance(content, str):
            if not content.strip():
                raise invalid(f"{where}: text content must contain non-whitespace text")
            blocks: list[dict[str, Any]] = []
        else:
            marks += check_blocks(content, f"{where}.content", role=role)
            blocks = content
        open_calls = _match_calls(blocks, role, open_calls, where)
    if messages[-1]["role"] == "assistant":
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    return marks


def _turn(message: object, where: str) -> tuple[Role, Any]:
    if not isinstance(message, dict):
        raise invalid(f"{where}: Input should be an object")
    role = message.get("role")
    if role not in ("user", "assistant"):
        raise invalid(f"{where}.role: Input should be 'user' or 'assistant'")
    if "content" not in message:
        raise invalid(f"{where}.content: Field required")
    return role, message["content"]


def check_blocks(blocks: object, where: str, *, role: Role) -> int:
    """Check a list of content blocks; gives the number of cache marks. Raises ApiError."""
    if not isinstance(blocks, list):
        raise invalid(f"{where}: Input should be a valid list")
    if not blocks:
        raise invalid(f"{where}: content must not be empty")
    marks = 0
    for n, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind not in _ALLOWED[role]:
            raise invalid(f"{where}.{n}.type: {kind!r} is not permitted here")
        for name, expected in _NEEDS[kind]:
            if not isinstance(block.get(name), expected):
                raise invalid(f"{where}.{n}.{kind}.{name}: Field required")
        if kind == "text":
            _check_text(block, f"{where}.{n}", role)
        elif kind == "tool_result" and isinstance(block.get("content"), list) and block["content"]:
            marks += check_blocks(block["content"], f"{where}.{n}.content", role="user")
        marks += check_mark(block.get("cache_control"), f"{where}.{n}")
    return marks


def _check_text(block: dict[str, Any], where: str, role: Role) -> None:
    if not block["text"]:
        raise invalid(f"{where}: text content blocks must be non-empty")
    if not block["text"].strip():
        raise invalid(f"{where}: text content blocks must contain non-whitespace text")
    if role == "user" and block.get("citations"):
        raise invalid(f"{where}.citations: not permitted on text blocks of user messages")


def check_mark(mark: object, where: str) -> int:
    """Check one `cache_control`; 1 where there is a mark, else 0. Raises ApiError."""
    if mark is None:
        return 0
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or mark.get("ttl", "5m") not in ("5m", "1h"):
        raise invalid(f"{where}.cache_control: Input should be ephemeral with a ttl of '5m' or '1h'")
    return 1


def _match_calls(blocks: list[dict[str, Any]], role: Role, expected: frozenset[str], where: str) -> frozenset[str]:
    """Every call of an assistant turn is answered in the next user turn, and nothing else is. Gives the open calls."""
    if role == "assistant":
        if expected:
            raise _unanswered(expected, where)
        return frozenset(block["id"] for block in blocks if block["type"] == "tool_use")
    answered = frozenset(block["tool_use_id"] for block in blocks if block["type"] == "tool_result")
    if answered - expected:
        raise invalid(f"{where}: unexpected `tool_use_id` found in `tool_result` blocks; no such `tool_use` before it")
    if expected - answered:
        raise _unanswered(expected - answered, where)
    return frozenset()


def _unanswered(calls: frozenset[str], where: str) -> ApiError:
    return invalid(f"{where}: `tool_use` ids were found without `tool_result` blocks immediately after: {len(calls)}")
