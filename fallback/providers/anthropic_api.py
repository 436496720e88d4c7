"""Claude by the anthropic SDK: first-party, Bedrock, Vertex and Foundry. One send is one HTTP request."""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any, Literal

import anthropic

from fallback.clock import Clock
from fallback.errors import CredentialsRefused, MalformedReply, TimedOut
from fallback.providers.anthropic_errors import failure_in_body, failure_of, headroom
from fallback.providers.anthropic_post import Client, Post, PreparedPost, SdkPost
from fallback.providers.render import render
from fallback.types import Headroom, Reply, ReplyBlock, Request, StopReason, TextBlock, Tier, ToolUseBlock, Usage

Platform = Literal["anthropic", "bedrock", "vertex", "foundry"]
_MAX_REPLY_BYTES = 32 << 20
_MAX_TOKENS = 1_000_000_000  # far above any window; keeps nonsense out of the sums


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


def make_provider(platform: Platform, clock: Clock, *, api_key: str = "", **settings: str) -> AnthropicProvider:
    """The provider for a platform; `settings` as in `make_client`."""
    client = make_client(platform, api_key=api_key, **settings)
    post: Post
    match platform:
        case "anthropic":
            post = PreparedPost(client, credentials={})
        case "foundry":
            post = PreparedPost(client, credentials={"x-api-key": api_key, "api-key": api_key})
        case "bedrock" | "vertex":
            post = SdkPost(client)
    return AnthropicProvider(post, clock)


class AnthropicProvider:
    """Sends requests through one SDK client."""

    def __init__(self, post: Post, clock: Clock) -> None:
        self._post = post
        self._clock = clock

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        """One HTTP request, bounded here as a whole: transports have timeouts for single waits only."""
        body = render(request, tier, model, max_tokens)
        if request.output_schema is not None:
            body["output_config"]["format"]["schema"] = _supported(json.dumps(request.output_schema))
        try:
            async with asyncio.timeout(timeout_s):
                headers, content = await self._post.send(body, timeout_s)
        except TimeoutError:
            raise TimedOut("client_timeout_error") from None
        except anthropic.APIError as error:
            raise failure_of(error, self._clock.wall_s()) from None
        except anthropic.AnthropicError:  # its credentials could not even be read
            raise CredentialsRefused("credentials_error") from None
        return parse_reply(content, headroom(headers, self._clock.wall_s()))

    async def close(self) -> None:
        """Close the client's connections."""
        await self._post.close()


@lru_cache(maxsize=512)
def _supported(schema_json: str) -> dict[str, Any]:
    """The schema with what the API does not enforce moved into descriptions.

    The output_schema check holds the reply to the caller's own schema, so nothing is lost. A form that the
    SDK cannot transform goes as it is: the API then says so.
    """
    schema: dict[str, Any] = json.loads(schema_json)
    try:
        return anthropic.transform_schema(schema)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return schema


def parse_reply(content: bytes, left: Headroom | None = None) -> Reply:
    """The Reply in a response body; raises MalformedReply, or the Failure that the body tells."""
    if len(content) > _MAX_REPLY_BYTES:
        raise MalformedReply("too_large", http_status=200)
    try:
        body = json.loads(content)
        if body.get("type") == "error":
            raise failure_in_body(body["error"]["type"])
        return Reply(
            content=_blocks(body["content"]),
            stop_reason=_stop_reason(body["stop_reason"]),
            usage=_usage(body["usage"]),
            model=_string(body["model"])[:128],
            upstream_id=_string(body["id"])[:128],
            headroom=left,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MalformedReply("malformed_body", http_status=200) from None


def _blocks(content: list[dict[str, Any]]) -> tuple[ReplyBlock, ...]:
    """Text and tool calls, picked by type: a thinking block may come first."""
    blocks: list[ReplyBlock] = []
    for block in content:
        if block["type"] == "text":
            blocks.append(TextBlock(_string(block["text"])))
        elif block["type"] == "tool_use":
            if not isinstance(block["input"], dict):
                raise TypeError("tool input")
            # It is handed on as JSON text, so it has to be some: no NaN, no half character.
            json.dumps(block["input"], ensure_ascii=False, allow_nan=False).encode()
            blocks.append(ToolUseBlock(_string(block["id"]), _string(block["name"]), block["input"]))
    return tuple(blocks)


def _string(value: Any) -> str:
    """A string that UTF-8 can carry; JSON's escapes can spell halves of characters that it cannot."""
    if not isinstance(value, str):
        raise TypeError("string")
    value.encode()
    return value


def _stop_reason(value: str) -> StopReason:
    try:
        return StopReason(value)
    except ValueError:
        return StopReason.UNKNOWN


def _usage(usage: dict[str, Any]) -> Usage:
    """Billed tokens. Cache writes come in total and, on newer responses, by time to live."""
    writes = usage.get("cache_creation") or {}
    write_1h = _count(writes.get("ephemeral_1h_input_tokens") or 0)
    write_total = _count(usage.get("cache_creation_input_tokens") or 0)
    write_5m = _count(writes.get("ephemeral_5m_input_tokens") or 0) or max(0, write_total - write_1h)
    return Usage(
        input_tokens=_count(usage["input_tokens"]),
        output_tokens=_count(usage["output_tokens"]),
        cache_write_5m_tokens=write_5m,
        cache_write_1h_tokens=write_1h,
        cache_read_tokens=_count(usage.get("cache_read_input_tokens") or 0),
    )


def _count(value: Any) -> int:
    """A token count; a missing, negative, fractional or impossible one is a malformed reply."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_TOKENS:
        raise TypeError("token count")
    return value
