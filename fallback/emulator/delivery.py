"""Puts an answer on the wire, whole or in one of the ways in which answers arrive broken."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from fallback.emulator.faults import Malformed, Trickle

Sleep = Callable[[float], Awaitable[None]]
_JSON = "application/json"


class CutError(Exception):
    """The emulator closed the connection on purpose."""


def whole(status: int, body: bytes, headers: Mapping[str, str], content_type: str = _JSON) -> web.StreamResponse:
    """One response with its length known."""
    return web.Response(status=status, body=body, headers=headers, content_type=content_type)


def cut(request: web.BaseRequest) -> None:
    """Close the connection after what was written so far. Raises CutError."""
    if request.transport is not None:
        request.transport.close()
    raise CutError


async def cut_mid_body(request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> None:
    """Promise the whole body, send half of it, close."""
    response = web.StreamResponse(headers={**headers, "content-type": _JSON})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    cut(request)


async def trickle(
    request: web.BaseRequest, body: bytes, headers: Mapping[str, str], content_type: str, fault: Trickle, sleep: Sleep
) -> web.StreamResponse:
    """The headers at once, then a few bytes at a time."""
    response = web.StreamResponse(headers={**headers, "content-type": content_type})
    response.content_length = len(body)
    await response.prepare(request)
    for at in range(0, len(body), fault.chunk_bytes):
        await response.write(body[at : at + fault.chunk_bytes])
        await sleep(fault.interval_s)
    await response.write_eof()
    return response


async def stream(
    request: web.BaseRequest, events: Iterable[bytes], headers: Mapping[str, str], *, finish: bool = True
) -> web.StreamResponse:
    """Server-sent events, each written by itself; without `finish` the body stays open."""
    response = web.StreamResponse(
        headers={**headers, "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    for event in events:
        await response.write(event)
    if finish:
        await response.write_eof()
    return response


def malform(fault: Malformed, message: Mapping[str, Any]) -> bytes:
    """A body for a 200 that is no message."""
    match fault.body:
        case "not_json":
            return b"<html><body>It works!</body></html>"
        case "not_a_message":
            return json.dumps({"ok": True, "items": [1, 2, 3]}).encode()
        case "truncated":
            body = json.dumps(message).encode()
            return body[: len(body) // 2]
        case _:
            return b""
