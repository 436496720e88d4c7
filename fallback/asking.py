"""Calls that a check makes to a tier: guarded like attempts, inside the request's time and money, never retried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.errors import Cancelled, Failure, NotAttempted, UpstreamError
from fallback.guards import Call, Guards
from fallback.providers import Endpoint
from fallback.types import Reply, Request, Tier

_SLACK_S = 0.1  # a timeout fires a little late


@dataclass(frozen=True, slots=True)
class Upstream:
    """What a call needs, shared by all requests."""

    tiers: Mapping[str, Tier]
    endpoints: Mapping[str, Endpoint]
    prices: PriceBook
    guards: Guards
    clock: Clock
    bound_usd: Callable[[str, Request, int], float]


class Asking:
    """Meets `fallback.checks.AskTier` for one check of one reply, and keeps the account of it.

    `calls` counts every call sent, `cost_usd` what the replies were billed. Calls may run at once: each one
    sets aside the most that it may cost, so that together they stay inside `allowance_usd`. `reserve_s` of the time
    until `deadline_s` is kept back for what comes after the check.
    """

    def __init__(self, upstream: Upstream, *, deadline_s: float, allowance_usd: float, reserve_s: float = 0.0) -> None:
        self._upstream = upstream
        self._deadline_s = deadline_s
        self._allowance_usd = allowance_usd
        self._reserve_s = reserve_s
        self._set_aside_usd = 0.0
        self.calls = 0
        self.cost_usd = 0.0

    async def __call__(self, tier: str, request: Request, *, timeout_s: float) -> Reply:
        """The tier's reply, from the first of its endpoints that may be called; raises a Failure."""
        up = self._upstream
        asked = up.tiers[tier]
        left_s = self._deadline_s - up.clock.monotonic_s() - self._reserve_s - _SLACK_S
        if left_s < asked.min_time_s:
            raise NotAttempted("deadline")
        max_tokens = min(request.max_tokens, asked.max_output_tokens)
        bound_usd = up.bound_usd(tier, request, max_tokens)
        if self.cost_usd + self._set_aside_usd + bound_usd > self._allowance_usd:
            raise NotAttempted("cost_cap")
        for endpoint in map(up.endpoints.__getitem__, asked.endpoints):
            call = up.guards.permit(endpoint, tier)
            if call is not None:
                break
        else:
            raise NotAttempted("breaker_open")
        self._set_aside_usd += bound_usd
        try:
            return await self._send(asked, endpoint, call, request, max_tokens, min(timeout_s, asked.timeout_s, left_s))
        finally:
            self._set_aside_usd -= bound_usd

    async def _send(
        self, tier: Tier, endpoint: Endpoint, call: Call, request: Request, max_tokens: int, timeout_s: float
    ) -> Reply:
        ended: Failure = UpstreamError("client_error")  # stays so when our own side breaks
        reply: Reply | None = None
        self.calls += 1
        try:
            model = endpoint.model(tier)
            reply = await endpoint.provider.send(request, tier, model, max_tokens=max_tokens, timeout_s=timeout_s)
        except Failure as failure:
            ended = failure.bare()
            raise ended from None
        except asyncio.CancelledError:
            ended = Cancelled()
            raise
        finally:
            if reply is None:
                call.failed(ended)
            else:
                call.replied(reply)
                self.cost_usd += self._upstream.prices.cost_usd(
                    tier.model, reply.usage, multiplier=endpoint.price_multiplier
                )
        return reply
