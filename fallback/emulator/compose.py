"""From an Answer to the API's message: limits, stop sequences, usage, stop reasons, stream events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fallback.emulator.answers import Answer, Ask, count_tokens
from fallback.emulator.prompt_cache import InputTokens
from fallback.emulator.validate import Checked

_CHUNK_CHARS = 40  # of a text delta in a stream


def ask_of(body: Mapping[str, Any], checked: Checked) -> Ask:
    """What the source is asked; `sample` is still 1."""
    content = body["messages"][-1]["content"]
    after_tools = not isinstance(content, str) and any(block["type"] == "tool_result" for block in content)
    system = body.get("system") or ""
    may_call = () if after_tools and not checked.must_call else checked.tools
    if checked.must_call not in ("", "any"):
        may_call = tuple(tool for tool in checked.tools if tool["name"] == checked.must_call)
    return Ask(
        tier=checked.spec.tier,
        model=checked.spec.id,
        prompt=text_of(content),
        system=text_of(system),
        thinking=checked.thinking,
        effort=checked.effort,
        schema=checked.schema,
        may_call=may_call,
        must_call=bool(checked.must_call),
    )


def text_of(content: Any) -> str:
    """The text blocks of a turn, joined with a blank line."""
    if isinstance(content, str):
        return content
    return "\n\n".join(block["text"] for block in content if block["type"] == "text")


def message_of(
    answer: Answer, checked: Checked, stops: tuple[str, ...], tokens: InputTokens, message_id: str
) -> dict[str, Any]:
    """The message, cut where `max_tokens` or a stop sequence ends it. Thinking counts in `max_tokens`."""
    text, stop_sequence = _cut_at_stop(answer.text, stops)
    calls = answer.calls if stop_sequence is None else ()
    reply_tokens = answer.output_tokens if answer.output_tokens is not None and text == answer.text else None
    if reply_tokens is None:
        reply_tokens = count_tokens(text + "".join(f"{call.name}{json.dumps(dict(call.input))}" for call in calls))
    reason = "stop_sequence" if stop_sequence is not None else "tool_use" if calls else "end_turn"
    thinking_tokens = min(answer.thinking_tokens, checked.max_tokens)
    room = checked.max_tokens - thinking_tokens
    if reply_tokens > room:
        text = text[: len(text) * room // reply_tokens]
        reply_tokens, calls, reason, stop_sequence = room, (), "max_tokens", None
    content: list[dict[str, Any]] = []
    if thinking_tokens:
        content.append({"type": "thinking", "thinking": "", "signature": f"emulated-{message_id}"})
    if text:
        content.append({"type": "text", "text": text, "citations": None})
    for n, call in enumerate(calls):
        ident = f"toolu_{message_id.removeprefix('msg_')}{n}"
        content.append({"type": "tool_use", "id": ident, "name": call.name, "input": dict(call.input)})
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": checked.spec.id,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": stop_sequence,
        "stop_details": None,
        "usage": _usage(tokens, thinking_tokens + reply_tokens, thinking_tokens),
    }


def _cut_at_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    found = [(at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return text, None
    at, stop = min(found)
    return text[:at], stop


def _usage(tokens: InputTokens, output: int, thinking: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens.uncached,
        "output_tokens": output,
        "cache_creation_input_tokens": tokens.write_5m + tokens.write_1h,
        "cache_read_input_tokens": tokens.read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.write_5m,
            "ephemeral_1h_input_tokens": tokens.write_1h,
        },
        "output_tokens_details": {"thinking_tokens": thinking},
        "server_tool_use": None,
        "service_tier": "standard",
        "speed": "standard",
        "inference_geo": "emulated",
    }


def refuse(message: dict[str, Any], category: str | None) -> dict[str, Any]:
    """The same message as a refusal: HTTP 200, nothing said, a few tokens billed."""
    usage = {**message["usage"], "output_tokens": 1, "output_tokens_details": {"thinking_tokens": 0}}
    details = {"type": "refusal", "category": category, "explanation": "Emulated refusal."}
    return {**message, "content": [], "stop_reason": "refusal", "stop_details": details, "usage": usage}


def truncate(message: dict[str, Any], tokens: int) -> dict[str, Any]:
    """The same message cut after so many output tokens, as if the limit had been reached."""
    usage = {**message["usage"], "output_tokens": tokens, "output_tokens_details": {"thinking_tokens": 0}}
    text = "".join(block["text"] for block in message["content"] if block["type"] == "text")[: 4 * tokens]
    content = [{"type": "text", "text": text, "citations": None}] if text else []
    return {**message, "content": content, "stop_reason": "max_tokens", "stop_sequence": None, "usage": usage}


def events_of(message: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The message as stream events, in the order in which the API sends them."""
    opening = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    opening["usage"] = {**message["usage"], "output_tokens": 1, "output_tokens_details": None}
    yield "message_start", {"type": "message_start", "message": opening}
    yield "ping", {"type": "ping"}
    for index, block in enumerate(message["content"]):
        yield from _block_events(index, block)
    ending = {name: message[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
    yield "message_delta", {"type": "message_delta", "delta": ending, "usage": _delta_usage(message["usage"])}
    yield "message_stop", {"type": "message_stop"}


def _delta_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    names = "input_tokens output_tokens cache_creation_input_tokens cache_read_input_tokens output_tokens_details"
    return {name: usage[name] for name in names.split()}


def _block_events(index: int, block: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    deltas: list[dict[str, Any]]
    match block["type"]:
        case "text":
            empty = {**block, "text": ""}
            text = block["text"]
            chunks = (text[at : at + _CHUNK_CHARS] for at in range(0, len(text), _CHUNK_CHARS))
            deltas = [{"type": "text_delta", "text": chunk} for chunk in chunks]
        case "tool_use":
            empty = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        case _:
            empty = {**block, "signature": ""}
            deltas = [{"type": "signature_delta", "signature": block["signature"]}]
    yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}
    for delta in deltas:
        yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": index}


def sse(event: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event on the wire."""
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()
