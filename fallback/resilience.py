"""Resilience: a reply from a tier in spite of Failures, by retry and failover, inside the retry budget.

It knows no verdict: whether a reply is good is the chain's business (`fallback.chain`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fallback.asking import Asking, Upstream
from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.errors import Cancelled, Failure, NotAttempted, UpstreamError
from fallback.guards import Call, Guards
from fallback.job import Job, Step
from fallback.ledger import Ledger
from fallback.providers import Endpoint
from fallback.recovery import FailOverEndpoint, FailOverTier, GiveUp, RecoverySettings, Retry, Situation, decide
from fallback.types import Attempt, Purpose, Reply, Request, Tier, Usage

# Kept back beside the next tier's own minimum: a timeout fires a little late.
_SLACK_S = 0.1


class Resilience:
    """Makes attempts. Holds no state of a request: that is in the Ledger."""

    def __init__(
        self,
        *,
        ladder: tuple[Tier, ...],
        endpoints: Mapping[str, Endpoint],
        prices: PriceBook,
        guards: Guards,
        recovery: RecoverySettings,
        clock: Clock,
        uniform: Callable[[], float],
    ) -> None:
        self._ladder = ladder
        self._tiers = {tier.name: tier for tier in ladder}
        self._rung = {tier.name: rung for rung, tier in enumerate(ladder)}
        self._endpoints = endpoints
        self._prices = prices
        self._guards = guards
        self._recovery = recovery
        self._clock = clock
        self._uniform = uniform
        self._upstream = Upstream(self._tiers, endpoints, prices, guards, clock, self.bound_usd)
        self._surcharge = {
            tier.name: max(endpoints[name].price_multiplier for name in tier.endpoints) for tier in ladder
        }

    async def obtain(self, job: Job, step: Step, ledger: Ledger) -> tuple[Tier, Reply]:
        """A reply from the step's tier, or from a neighbour after a Failure; raises the last Failure."""
        if obstacle := self._obstacle(job, step, ledger):
            raise NotAttempted(obstacle)
        tier, purpose = step.tier, step.purpose
        endpoint = self._endpoints[tier.endpoints[0]]
        failure: Failure | None = None
        tried_endpoints, visited, calls_on_tier, calls = {endpoint.name}, {tier.name}, 0, 0
        while True:
            call = self._guards.permit(endpoint, tier.name)
            if call is None:
                wait_s = self._guards.retry_after_s((self._endpoints[name] for name in tier.endpoints), tier.name)
                failure = failure or NotAttempted("breaker_open", retry_after_s=wait_s)
                ended: Failure = NotAttempted("breaker_open")
            else:
                max_tokens = min(step.max_tokens, tier.max_output_tokens)
                result = await self._attempt(job, ledger, tier, endpoint, call, purpose, max_tokens)
                if isinstance(result, Reply):
                    return tier, result
                failure = ended = result
                calls_on_tier, calls = calls_on_tier + 1, calls + 1
            situation = Situation(
                attempts_on_tier=calls_on_tier,
                time_left_s=self.time_left_s(job),
                tier_min_time_s=tier.min_time_s,
                budget_allows=calls == 0 or self._guards.budget(endpoint).allows,
                other_endpoint=self._other_endpoint(tier, tried_endpoints),
                other_tier=self._other_tier(job, ledger, tier, visited, step.max_tokens),
            )
            match decide(ended, situation, self._recovery, self._uniform()):
                case Retry(delay_s):
                    purpose = Purpose.RETRY
                    await self._clock.sleep(delay_s)
                    if self.time_left_s(job) < tier.min_time_s:  # the sleep ended late
                        raise failure.bare()
                case FailOverEndpoint(name):
                    purpose = Purpose.FAILOVER if calls else purpose
                    endpoint = self._endpoints[name]
                    tried_endpoints.add(name)
                case FailOverTier(name):
                    purpose = Purpose.FAILOVER if calls else purpose
                    tier = self._tiers[name]
                    endpoint = self._endpoints[tier.endpoints[0]]
                    tried_endpoints, calls_on_tier = {endpoint.name}, 0
                    visited.add(name)
                case GiveUp():
                    raise failure.bare()

    def bound_usd(self, tier: str, request: Request, max_tokens: int) -> float:
        """The most that one attempt on a tier may cost, on its dearest endpoint."""
        limit = min(max_tokens, self._tiers[tier].max_output_tokens)
        return self._prices.bound_usd(self._tiers[tier].model, request, limit, multiplier=self._surcharge[tier])

    def _obstacle(self, job: Job, step: Step, ledger: Ledger) -> str:
        """Why this step must not start: no time or no money left for it; empty when it may."""
        if self.time_left_s(job) < step.tier.min_time_s:
            return "deadline"
        if job.cost_cap_usd < float("inf"):
            bound_usd = self.bound_usd(step.tier.name, job.request, step.max_tokens)
            if ledger.cost_usd + bound_usd > job.cost_cap_usd:
                return "cost_cap"
        return ""

    async def _attempt(
        self, job: Job, ledger: Ledger, tier: Tier, endpoint: Endpoint, call: Call, purpose: Purpose, max_tokens: int
    ) -> Reply | Failure:
        """One upstream call, recorded however it ends."""
        started_s = self._clock.monotonic_s()
        result: Reply | Failure = UpstreamError("client_error")  # stays so when our own side breaks
        try:
            model = endpoint.model(tier)
            timeout_s = self._slice_s(job, tier)
            result = await endpoint.provider.send(job.request, tier, model, max_tokens=max_tokens, timeout_s=timeout_s)
        except Failure as failure:
            result = failure.bare()
        except asyncio.CancelledError:
            result = Cancelled()
            raise
        finally:
            if isinstance(result, Reply):
                call.replied()
            else:
                call.failed(result)
            usage = result.usage if isinstance(result, Reply) else Usage()
            ledger.attempted(
                Attempt(
                    tier=tier.name,
                    model=tier.model,
                    endpoint=endpoint.name,
                    purpose=purpose,
                    result=result,
                    started_s=started_s - ledger.started_s,
                    duration_s=self._clock.monotonic_s() - started_s,
                    cost_usd=self._prices.cost_usd(tier.model, usage, multiplier=endpoint.price_multiplier),
                )
            )
        return result

    def _slice_s(self, job: Job, tier: Tier) -> float:
        """The attempt's time: never so much that a hung tier leaves none for the next one."""
        left_s = self.time_left_s(job)
        reserve_s = max(
            (self._tiers[name].min_time_s + _SLACK_S for name in job.above(tier.name, self._rung)), default=0.0
        )
        sliced_s = left_s - reserve_s
        return min(tier.timeout_s, sliced_s if sliced_s >= tier.min_time_s else left_s)

    def _other_endpoint(self, tier: Tier, tried: set[str]) -> str:
        for name in tier.endpoints:
            if name not in tried and self._guards.retry_after_s((self._endpoints[name],), tier.name) == 0:
                return name
        return ""

    def _other_tier(self, job: Job, ledger: Ledger, tier: Tier, visited: set[str], max_tokens: int) -> str:
        """The nearest usable neighbour, upwards first, that fits the time and money left.

        Never as low as a tier that replied: its reply was rejected, a lower one's would be no better.
        """
        here = self._rung[tier.name]
        above = self._ladder[here + 1 :] if job.rules.failover_up else ()
        below = self._ladder[:here][::-1] if job.rules.failover_down else ()
        replied = (self._rung[attempt.tier] for attempt in ledger.attempts if isinstance(attempt.result, Reply))
        floor = max(replied, default=-1)
        for other in (*above, *below):
            if other.name not in job.allowed - visited or self._rung[other.name] <= floor:
                continue
            if self._obstacle(job, Step(other, Purpose.FAILOVER, max_tokens), ledger):
                continue
            if self._guards.retry_after_s((self._endpoints[name] for name in other.endpoints), other.name) == 0:
                return other.name
        return ""

    def asking(self, job: Job, tier: str, ledger: Ledger) -> Asking:
        """What a check of a reply of `tier` may ask with: the money left, and the time less what a next tier needs."""
        above = (self._tiers[name].min_time_s for name in job.above(tier, self._rung))
        return Asking(
            self._upstream,
            deadline_s=job.deadline_s,
            allowance_usd=job.cost_cap_usd - ledger.cost_usd,
            reserve_s=max(above, default=0.0),
        )

    def time_left_s(self, job: Job) -> float:
        """Seconds until the job's deadline; negative after it."""
        return job.deadline_s - self._clock.monotonic_s()
