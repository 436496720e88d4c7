"""Heavy work, one piece every other turn of the event loop (ADR 0026, 0029).

A loop runs in one turn whatever became ready in the last. Where many requests have their features, checks or responses
made in one turn, a refusal or a health check, which need some turns and next to no work, wait for all of them. Here
heavy pieces stand in a line of their own, and light ones pass by it.
"""

from __future__ import annotations

import asyncio
from collections import deque

from fallback.clock import Clock
from fallback.providers import Provider
from fallback.types import Reply, Request, Tier


class Pacing:
    """The line. A piece of work begins when `turn` returns, and ends where it waits for something."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._line: deque[tuple[asyncio.Future[None], float]] = deque()
        self._taken = False

    @property
    def standing_s(self) -> float:
        """How long the first in the line has stood there; 0 without a line."""
        return self._clock.monotonic_s() - self._line[0][1] if self._line else 0.0

    async def turn(self) -> None:
        """Return when a turn of the loop is one's own: at once where nobody had this one or the last."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._rest)
            return
        mine = loop.create_future()
        self._line.append((mine, self._clock.monotonic_s()))
        await mine

    def _next(self) -> None:
        while self._line:
            following, _ = self._line.popleft()
            if not following.done():
                following.set_result(None)
                asyncio.get_running_loop().call_soon(self._rest)
                return
        self._taken = False

    def _rest(self) -> None:
        """A turn for what does not stand in the line."""
        asyncio.get_running_loop().call_soon(self._next)


class Paced:
    """A provider whose replies are handed on one a turn: what is done with a reply is heavy."""

    def __init__(self, provider: Provider, pacing: Pacing) -> None:
        self._provider = provider
        self._pacing = pacing

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        """As the provider's own."""
        reply = await self._provider.send(request, tier, model, max_tokens=max_tokens, timeout_s=timeout_s)
        await self._pacing.turn()
        return reply

    async def close(self) -> None:
        """Close the provider's connections."""
        await self._provider.close()
