"""Claude by the anthropic SDK: first-party, Bedrock, Vertex and Foundry. One send is one HTTP request."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import anthropic
import httpx2

from fallback.clock import Clock
from fallback.errors import MalformedReply, TimedOut
from fallback.providers.anthropic_errors import failure_in_body, failure_of
from fallback.providers.render import render
from fallback.types import Reply, ReplyBlock, Request, StopReason, TextBlock, Tier, ToolUseBlock, Usage

Platform = Literal["anthropic", "bedrock", "vertex", "foundry"]
Client = (
    anthropic.AsyncAnthropic
    | anthropic.AsyncAnthropicBedrock
    | anthropic.AsyncAnthropicVertex
    | anthropic.AsyncAnthropicFoundry
)

_MAX_REPLY_BYTES = 32 << 20


def make_client(
    platform: Platform,
    *,
    api_key: str = "",
    base_url: str = "",
    region: str = "",
    project: str = "",
    resource: str = "",
) -> Client:
    """The SDK's client for a platform, with its own retries and its own tracing off.

    Retries belong to the chain, inside its budget; a hidden one would be an attempt that nobody
    counted. Spans are made from the recorded attempts.
    """
    common: dict[str, Any] = {"max_retries": 0, "http_client": anthropic.DefaultAioHttpClient()}
    if base_url:
        common["base_url"] = base_url
    match platform:
        case "anthropic":
            return anthropic.AsyncAnthropic(api_key=api_key, open_telemetry=False, **common)
        case "bedrock":
            return anthropic.AsyncAnthropicBedrock(aws_region=region, api_key=api_key or None, **common)
        case "vertex":
            return anthropic.AsyncAnthropicVertex(region=region, project_id=project, **common)
        case "foundry":
            if resource:
                common["resource"] = resource
            return anthropic.AsyncAnthropicFoundry(api_key=api_key, **common)


class AnthropicProvider:
    """Sends requests through one SDK client."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        """One HTTP request. The SDK's timeout is per read, so the whole call is bounded here."""
        body = render(request, tier, model, max_tokens)
        try:
            async with asyncio.timeout(timeout_s):
                # The SDK's documented low-level call: authentication, platforms and typed errors as
                # in messages.create, without building its response models.
                response = await self._client.post(
                    "/v1/messages", body=body, cast_to=httpx2.Response, options={"timeout": timeout_s}
                )
        except TimeoutError:
            raise TimedOut("client_timeout_error") from None
        except anthropic.APIError as error:
            raise failure_of(error, self._clock.wall_s()) from None
        return parse_reply(response.content)

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()


def parse_reply(content: bytes) -> Reply:
    """The Reply in a response body; raises MalformedReply, or the Failure that the body tells."""
    if len(content) > _MAX_REPLY_BYTES:
        raise MalformedReply("too_large", http_status=200)
    try:
        body = json.loads(content)
        if body.get("type") == "error":
            raise failure_in_body(str(body["error"]["type"]))
        return Reply(
            content=_blocks(body["content"]),
            stop_reason=_stop_reason(body["stop_reason"]),
            usage=_usage(body["usage"]),
            model=str(body["model"]),
            upstream_id=str(body["id"])[:128],
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MalformedReply("malformed_body", http_status=200) from None


def _blocks(content: list[dict[str, Any]]) -> tuple[ReplyBlock, ...]:
    """Text and tool calls, picked by type: a thinking block may come first."""
    blocks: list[ReplyBlock] = []
    for block in content:
        if block["type"] == "text":
            blocks.append(TextBlock(str(block["text"])))
        elif block["type"] == "tool_use":
            if not isinstance(block["input"], dict):
                raise TypeError("tool input")
            blocks.append(ToolUseBlock(str(block["id"]), str(block["name"]), block["input"]))
    return tuple(blocks)


def _stop_reason(value: str) -> StopReason:
    try:
        return StopReason(value)
    except ValueError:
        return StopReason.UNKNOWN


def _usage(usage: dict[str, Any]) -> Usage:
    """Billed tokens. Cache writes come in total and, on newer responses, by time to live."""
    writes = usage.get("cache_creation") or {}
    write_1h = _count(writes.get("ephemeral_1h_input_tokens"))
    write_total = _count(usage.get("cache_creation_input_tokens"))
    write_5m = _count(writes.get("ephemeral_5m_input_tokens")) or max(0, write_total - write_1h)
    return Usage(
        input_tokens=_count(usage["input_tokens"]),
        output_tokens=_count(usage["output_tokens"]),
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        cache_read_tokens=_count(usage.get("cache_read_input_tokens")),
    )


def _count(value: Any) -> int:
    """A token count; a negative or fractional one is a malformed reply."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError("token count")
    return value
