"""A loopback HTTP server that answers with what a test hands it, and counts the requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from fallback.providers.anthropic_api import AnthropicProvider, make_client, make_provider
from fallback.providers.anthropic_post import SdkPost
from fallback.types import Reply, Request
from tests.support.fakes import FakeClock, request, tier

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5},
}

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Upstream:
    """`answer` may be changed between requests; `seen` has (path, headers, body) of every one."""

    url: str = ""
    answer: Answer | None = None
    seen: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def says(self, status: int, body: Any = None, **headers: str) -> None:
        """Answer every request like this from now on; underscores in header names stand for dashes."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: web.Request) -> web.StreamResponse:
            if isinstance(body, str | bytes):
                raw = body.encode() if isinstance(body, str) else body
                return web.Response(status=status, body=raw, headers=sent)
            return web.json_response(body, status=status, headers=sent)

        self.answer = answer

    async def handle(self, incoming: web.Request) -> web.StreamResponse:
        self.seen.append((incoming.path, dict(incoming.headers), await incoming.read()))
        assert self.answer is not None
        return await self.answer(incoming)


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    """Served on a free port of 127.0.0.1 until the block ends."""
    server = Upstream()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        server.released.set()
        await runner.cleanup()


Way = Literal["prepared", "sdk"]


@asynccontextmanager
async def provider(url: str, clock: FakeClock | None = None, way: Way = "prepared") -> AsyncIterator[AnthropicProvider]:
    """The real SDK, pointed at `url`, first-party; by its own call with `way` sdk, as platforms that sign go."""
    clock, key = clock or FakeClock(), "sk-canary-key"
    if way == "prepared":
        made = make_provider("anthropic", clock, api_key=key, base_url=url)
    else:
        client = make_client("anthropic", api_key=key, base_url=url)
        made = AnthropicProvider(SdkPost(client), clock)
    try:
        yield made
    finally:
        await made.close()


async def send(road: AnthropicProvider, asked: Request | None = None, *, timeout_s: float = 10.0) -> Reply:
    """One call for haiku."""
    return await road.send(asked or request(), tier(), "claude-haiku-5-5", max_tokens=100, timeout_s=timeout_s)
