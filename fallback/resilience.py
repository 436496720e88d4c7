"""Resilience: a reply from a tier in spite of Failures, by retry and failover, inside the retry budget.

It knows no verdict: whether a reply is good is the chain's business (`fallback.chain`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from fallback import race
from fallback.asking import Asking, Upstream
from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.errors import HEDGE_LOST, Cancelled, Failure, NotAttempted, UpstreamError
from fallback.guards import Call, Guards
from fallback.job import Job, Step
from fallback.ledger import Ledger
from fallback.providers import Endpoint
from fallback.recovery import FailOverEndpoint, FailOverTier, GiveUp, RecoverySettings, Retry, Situation, decide
from fallback.types import Attempt, Purpose, Reply, Request, Tier, Usage
from fallback.walk import Walk

# Kept back beside what the next attempt needs: a timeout fires a little late.
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
        walk = self._start(job, step, ledger)
        failure: Failure | None = None
        while True:
            call = self._guards.permit(walk.endpoint, walk.tier.name, extra=walk.calls > 0)
            if call is None:
                walk.tried.add(walk.endpoint.name)
                roads = (self._endpoints[name] for name in walk.tier.endpoints)
                walk.endpoint, hold = self._guards.first_open(roads, walk.tier.name)
                ended: Failure = NotAttempted(hold.cause, retry_after_s=hold.wait_s)
                failure = failure or ended
            else:
                result = await self._call(job, step, ledger, walk, call)
                if isinstance(result, Reply):
                    return walk.tier, result
                failure = ended = result
            match decide(ended, self._situation(job, ledger, walk), self._recovery, self._uniform()):
                case Retry(delay_s):
                    walk.again()
                    await self._clock.sleep(delay_s)
                    late = self.time_left_s(job) < walk.tier.min_time_s
                    if late or not self._guards.budget(walk.endpoint).allows:  # others have drawn on it meanwhile
                        raise failure.bare()
                case FailOverEndpoint(name):
                    walk.to_endpoint(self._endpoints[name])
                case FailOverTier(name):
                    tier = self._tiers[name]
                    walk.to_tier(tier, self._road(tier, (), free=walk.calls == 0) or self._endpoints[tier.endpoints[0]])
                case GiveUp():
                    raise failure.bare()

    def bound_usd(self, tier: str, request: Request, max_tokens: int) -> float:
        """The most that one attempt on a tier may cost, on its dearest endpoint."""
        limit = min(max_tokens, self._tiers[tier].max_output_tokens)
        return self._prices.bound_usd(self._tiers[tier].model, request, limit, multiplier=self._surcharge[tier])

    def time_left_s(self, job: Job) -> float:
        """Seconds until the job's deadline; negative after it."""
        return job.deadline_s - self._clock.monotonic_s()

    def asking(self, job: Job, tier: str, ledger: Ledger) -> Asking:
        """What a check of a reply of `tier` may ask with: the money left, and the time less what a next tier needs."""
        above = (self._tiers[name].min_time_s for name in job.above(tier, self._rung))
        return Asking(
            self._upstream,
            deadline_s=job.deadline_s,
            allowance_usd=job.cost_cap_usd - ledger.cost_usd,
            reserve_s=max(above, default=0.0),
        )

    # --- which way -------------------------------------------------------------------------------

    def _obstacle(self, job: Job, step: Step, ledger: Ledger, calls: int = 1) -> str:
        """Why this step must not start: no time or no money left for it; empty when it may."""
        if self.time_left_s(job) < step.tier.min_time_s:
            return "deadline"
        if job.cost_cap_usd < float("inf"):
            bound_usd = self.bound_usd(step.tier.name, job.request, step.max_tokens)
            if ledger.cost_usd + calls * bound_usd > job.cost_cap_usd:
                return "cost_cap"
        return ""

    def _start(self, job: Job, step: Step, ledger: Ledger) -> Walk:
        """Where a step begins: on a road that is open, and one that is better avoided only where there is no other."""
        walk = Walk(step, self._endpoints[step.tier.endpoints[0]])
        for avoided_too in (False, True):
            for tier in (step.tier, *self._neighbours(job, ledger, walk)):
                road = self._road(tier, (), free=True)
                if road is not None and (avoided_too or not self._guards.avoided(road, tier.name)):
                    if tier is not step.tier:
                        walk.to_tier(tier, road)
                    walk.endpoint = road
                    return walk
        return walk

    def _situation(self, job: Job, ledger: Ledger, walk: Walk) -> Situation:
        free = walk.calls == 0
        endpoint = self._road(walk.tier, walk.tried, free=free)
        tiers = (tier.name for tier in self._neighbours(job, ledger, walk) if self._road(tier, (), free=free))
        return Situation(
            attempts_on_tier=walk.calls_on_tier,
            time_left_s=self.time_left_s(job),
            tier_min_time_s=walk.tier.min_time_s,
            budget_allows=free or self._guards.budget(walk.endpoint).allows,
            other_endpoint=endpoint.name if endpoint else "",
            other_tier=next(tiers, ""),
        )

    def _road(self, tier: Tier, tried: Iterable[str], *, free: bool) -> Endpoint | None:
        """An open endpoint of a tier whose budget allows another call, preferably one that need not be avoided."""
        avoided: Endpoint | None = None
        for name in tier.endpoints:
            endpoint = self._endpoints[name]
            if name in tried or self._guards.hold(endpoint, tier.name) is not None:
                continue
            if not free and not self._guards.budget(endpoint).allows:
                continue
            if not self._guards.avoided(endpoint, tier.name):
                return endpoint
            avoided = avoided or endpoint
        return avoided

    def _neighbours(self, job: Job, ledger: Ledger, walk: Walk) -> Iterator[Tier]:
        """The tiers that a Failure may lead to, nearest first and upwards first, that fit the time and money left.

        Never as low as a tier that replied: its reply was rejected, a lower one's would be no better.
        """
        here = self._rung[walk.tier.name]
        above = self._ladder[here + 1 :] if job.rules.failover_up else ()
        below = self._ladder[:here][::-1] if job.rules.failover_down else ()
        replied = (self._rung[attempt.tier] for attempt in ledger.attempts if isinstance(attempt.result, Reply))
        floor = max(replied, default=-1)
        for other in (*above, *below):
            if other.name not in job.allowed - walk.visited or self._rung[other.name] <= floor:
                continue
            if not self._obstacle(job, Step(other, Purpose.FAILOVER, walk.max_tokens), ledger):
                yield other

    # --- attempts --------------------------------------------------------------------------------

    async def _call(self, job: Job, step: Step, ledger: Ledger, walk: Walk, call: Call) -> Reply | Failure:
        """One attempt where the walk stands, with a hedge beside it where the job wants one."""
        one = race.Race()
        walk.called()
        timeout_s = self._slice_s(job, ledger, walk)
        first = self._attempt(job, ledger, walk, call, one, timeout_s)
        after_s = job.hedge_after_s.get(walk.tier.name)
        if after_s is None or after_s >= timeout_s:
            return await first
        return await race.run(one, first, after_s, lambda: self._hedge(job, step, ledger, walk, one), self._clock)

    def _hedge(self, job: Job, step: Step, ledger: Ledger, walk: Walk, one: race.Race) -> race.Running | None:
        """A second attempt on another endpoint, or on the only one; None where time, money or budget forbid it."""
        tier = walk.tier
        endpoint = self._road(tier, {walk.endpoint.name}, free=False) or walk.endpoint
        budget = self._guards.budget(endpoint)
        if not budget.allows_hedge or any(attempt.purpose is Purpose.HEDGE for attempt in ledger.attempts):
            return None
        if self._obstacle(job, Step(tier, Purpose.HEDGE, step.max_tokens), ledger, calls=2):
            return None
        call = self._guards.permit(endpoint, tier.name)
        if call is None:
            return None
        budget.on_hedge()
        beside = walk.hedge(endpoint)
        return self._attempt(job, ledger, beside, call, one, self._slice_s(job, ledger, beside))

    async def _attempt(
        self, job: Job, ledger: Ledger, walk: Walk, call: Call, one: race.Race, timeout_s: float
    ) -> Reply | Failure:
        """One upstream call, recorded however it ends."""
        tier, endpoint, purpose = walk.tier, walk.endpoint, walk.purpose
        started_s = self._clock.monotonic_s()
        result: Reply | Failure = UpstreamError("client_error")  # stays so when our own side breaks
        try:
            model = endpoint.model(tier)
            limit = min(walk.max_tokens, tier.max_output_tokens)
            result = await endpoint.provider.send(job.request, tier, model, max_tokens=limit, timeout_s=timeout_s)
        except Failure as failure:
            result = failure.bare()
        except asyncio.CancelledError:
            result = Cancelled(HEDGE_LOST if one.reply else "")
            raise
        finally:
            if isinstance(result, Reply):
                call.replied(result)
            else:
                call.failed(result)
            usage = result.usage if isinstance(result, Reply) else Usage()
            lost = isinstance(result, Reply) and not one.won_by(result)
            ledger.attempted(
                Attempt(
                    tier=tier.name,
                    model=tier.model,
                    endpoint=endpoint.name,
                    purpose=purpose,
                    result=Cancelled(HEDGE_LOST) if lost else result,
                    started_s=started_s - ledger.started_s,
                    duration_s=self._clock.monotonic_s() - started_s,
                    cost_usd=self._prices.cost_usd(tier.model, usage, multiplier=endpoint.price_multiplier),
                )
            )
        return result

    def _slice_s(self, job: Job, ledger: Ledger, walk: Walk) -> float:
        """The attempt's time: never so much that a hung one leaves none for what would follow it.

        What would follow is an escalation in the plan, the tier's next endpoint, or a neighbour. It gets what
        a slow attempt of it takes, where that is known and at most half of the time; at least its minimum.
        """
        left_s = self.time_left_s(job)
        following = [self._tiers[name] for name in job.above(walk.tier.name, self._rung)]
        following += self._neighbours(job, ledger, walk)
        if walk.calls_on_tier < self._recovery.attempts_per_tier and set(walk.tier.endpoints) - walk.tried:
            following.append(walk.tier)
        if not following:
            return min(walk.tier.timeout_s, left_s)
        least_s = max(tier.min_time_s for tier in following) + _SLACK_S
        slow_s = max(job.slow_s.get(tier.name, 0.0) for tier in following) + _SLACK_S
        sliced_s = left_s - max(least_s, min(slow_s, left_s / 2))
        return min(walk.tier.timeout_s, sliced_s if sliced_s >= walk.tier.min_time_s else left_s)
