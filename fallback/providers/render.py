"""A request as the Messages API body of one tier. Pure.

Rendered anew for every attempt, because the tiers take different parameters: a body that Haiku
accepts is answered 400 by Opus. Thinking blocks never stand in a Request, so none can travel.
"""

from __future__ import annotations

import base64
from typing import Any, assert_never

from fallback.types import (
    CacheMark,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    Message,
    Request,
    TextBlock,
    Tier,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
)


def render(request: Request, tier: Tier, model: str, max_tokens: int) -> dict[str, Any]:
    """The JSON body for one attempt."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [_message(message) for message in request.messages],
    }
    if request.system:
        body["system"] = [_block(block) for block in request.system]
    if request.stop_sequences:
        body["stop_sequences"] = list(request.stop_sequences)
    forced = _tools(body, request, tier)
    output: dict[str, Any] = {}
    if request.effort and not forced:
        output["effort"] = request.effort
    if request.output_schema is not None:
        output["format"] = {"type": "json_schema", "schema": dict(request.output_schema)}
    if output:
        body["output_config"] = output
    return body


def _tools(body: dict[str, Any], request: Request, tier: Tier) -> bool:
    """Adds tools and their choice; whether a call is forced.

    A tier that cannot be forced is asked with `auto`; the tool_arguments check rejects a reply
    without the call. Where it can be, thinking has to be off, and with it a raised effort.
    """
    if not request.tools:
        return False
    body["tools"] = [_tool(tool) for tool in request.tools]
    choice = request.tool_choice
    forced = choice.kind in ("any", "tool") and tier.can_force_tool
    if choice.kind == "none":
        body["tool_choice"] = {"type": "none"}
    elif forced:
        body["thinking"] = {"type": "disabled"}
        body["tool_choice"] = {"type": "any"} if choice.kind == "any" else {"type": "tool", "name": choice.name}
    return forced


def _message(message: Message) -> dict[str, Any]:
    # One plain text block is the common case and has a shorter form.
    if len(message.content) == 1 and isinstance(first := message.content[0], TextBlock) and first.cache is None:
        return {"role": message.role, "content": first.text}
    return {"role": message.role, "content": [_block(block) for block in message.content]}


def _block(block: ContentBlock) -> dict[str, Any]:
    rendered: dict[str, Any]
    match block:
        case TextBlock():
            rendered = {"type": "text", "text": block.text}
        case ImageBlock():
            rendered = {"type": "image", "source": _source(block)}
        case DocumentBlock():
            rendered = {"type": "document", "source": _source(block)}
            if block.title:
                rendered["title"] = block.title
        case ToolUseBlock():
            rendered = {"type": "tool_use", "id": block.id, "name": block.name, "input": dict(block.input)}
        case ToolResultBlock():
            rendered = {
                "type": "tool_result",
                "tool_use_id": block.tool_use_id,
                "content": [_block(part) for part in block.content],
                "is_error": block.is_error,
            }
        case _:
            assert_never(block)
    return _marked(rendered, block.cache)


def _source(block: ImageBlock | DocumentBlock) -> dict[str, Any]:
    if block.url:
        return {"type": "url", "url": block.url}
    if block.media_type == "text/plain":
        return {"type": "text", "media_type": "text/plain", "data": block.data.decode("utf-8", "replace")}
    return {"type": "base64", "media_type": block.media_type, "data": base64.b64encode(block.data).decode("ascii")}


def _tool(tool: Tool) -> dict[str, Any]:
    rendered: dict[str, Any] = {"name": tool.name, "input_schema": dict(tool.input_schema)}
    if tool.description:
        rendered["description"] = tool.description
    return _marked(rendered, tool.cache)


def _marked(rendered: dict[str, Any], cache: CacheMark | None) -> dict[str, Any]:
    if cache is not None:
        rendered["cache_control"] = {"type": "ephemeral", "ttl": cache}
    return rendered
