"""The chain: tiers tried in order until a reply is good enough. All control flow of a request is here.

Two jobs, kept apart. `_obtain` is resilience: it gets a reply from a tier in spite of Failures, by
retry and failover, inside the retry budget. `run` is cost tiering: it judges the reply and escalates
because of a Verdict. Neither ever does the other's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fallback.checks import Case
from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.errors import Cancelled, Failure, NotAttempted, UpstreamError
from fallback.guards import Call, Guards
from fallback.job import Job, Resolution
from fallback.ledger import Ledger
from fallback.providers import Endpoint
from fallback.recovery import FailOverEndpoint, FailOverTier, GiveUp, RecoverySettings, Retry, Situation, decide
from fallback.types import (
    Accept,
    Attempt,
    CheckReport,
    Purpose,
    Reject,
    Remedy,
    Reply,
    Request,
    Tier,
    Unjudged,
    Usage,
)

# Kept back beside the next tier's own minimum: a timeout fires a little late.
_SLACK_S = 0.1


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A rejected reply, kept in case nothing better comes. Rank: checks passed, then score, then tier."""

    reply: Reply
    tier: str
    rank: tuple[int, float, int]

    def resolution(self, reasons: list[str]) -> Resolution:
        """Handed back, marked."""
        return Resolution(self.reply, self.tier, accepted=False, reasons=tuple(reasons))


@dataclass(frozen=True, slots=True)
class _Step:
    """One rung to try: which tier, why, and with what output limit."""

    tier: Tier
    purpose: Purpose
    max_tokens: int


class Chain:
    """Runs jobs. Holds no state of a request: that is in the Ledger."""

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
        self._surcharge = {
            tier.name: max(endpoints[name].price_multiplier for name in tier.endpoints) for tier in ladder
        }

    async def run(self, job: Job, ledger: Ledger) -> Resolution:
        """The first reply that passes, or the best one seen, marked. Raises a Failure when none came."""
        best: _Candidate | None = None
        reasons: list[str] = []
        step = _Step(self._tiers[job.tiers[0]], Purpose.FIRST, job.request.max_tokens)
        while True:
            try:
                tier, reply = await self._obtain(job, step, ledger)
            except Failure as failure:
                if best is None:
                    raise
                nothing_sent = isinstance(failure, NotAttempted)
                reasons.append(failure.error_type if nothing_sent else f"{step.purpose}:{failure.kind}")
                return best.resolution(reasons)
            reports, rejection = await self._judge(job, tier, reply, ledger)
            if rejection is None:
                return Resolution(reply, tier.name, accepted=True)
            reasons.append(f"{tier.name}:{reports[-1].check}:{rejection.reason}")
            candidate = _Candidate(reply, tier.name, _rank(reports, self._rung[tier.name]))
            if best is None or candidate.rank >= best.rank:  # equal: the same tier's longer reply
                best = candidate
            following = self._next(job, step, tier, rejection, ledger)
            if following is None:
                return best.resolution(reasons)
            step = following

    # --- cost tiering ------------------------------------------------------------------------

    def _next(self, job: Job, step: _Step, tier: Tier, rejection: Reject, ledger: Ledger) -> _Step | None:
        """Where a rejection leads: a longer limit on the same tier, a higher tier, or back to the caller."""
        remedy = rejection.remedy
        ceiling = min(job.request.max_tokens_ceiling, tier.max_output_tokens)
        if remedy is Remedy.RAISE_LIMIT:
            if step.max_tokens < ceiling:
                return _Step(tier, Purpose.LONGER, ceiling)
            remedy = rejection.otherwise
        if remedy is Remedy.HAND_BACK:
            return None
        tried = {attempt.tier for attempt in ledger.attempts}
        above = [name for name in self._above(job, tier) if name not in tried]
        if not above:
            return None
        name = rejection.to if rejection.to in above else above[0]
        return _Step(self._tiers[name], Purpose.ESCALATION, step.max_tokens)

    def _above(self, job: Job, tier: Tier) -> tuple[str, ...]:
        """The plan's tiers above `tier`, which a failover may have left out of the plan."""
        return tuple(name for name in job.tiers if self._rung[name] > self._rung[tier.name])

    def bound_usd(self, tier: str, request: Request, max_tokens: int) -> float:
        """The most that one attempt on a tier may cost, on its dearest endpoint."""
        limit = min(max_tokens, self._tiers[tier].max_output_tokens)
        return self._prices.bound_usd(self._tiers[tier].model, request, limit, multiplier=self._surcharge[tier])

    def _obstacle(self, job: Job, step: _Step, ledger: Ledger) -> str:
        """Why this step must not start: no time or no money left for it; empty when it may."""
        if self._time_left_s(job) < step.tier.min_time_s:
            return "deadline"
        if job.cost_cap_usd < float("inf"):
            bound_usd = self.bound_usd(step.tier.name, job.request, step.max_tokens)
            if ledger.cost_usd + bound_usd > job.cost_cap_usd:
                return "cost_cap"
        return ""

    async def _judge(
        self, job: Job, tier: Tier, reply: Reply, ledger: Ledger
    ) -> tuple[list[CheckReport], Reject | None]:
        """The checks in order, up to the first that stops them."""
        reports: list[CheckReport] = []
        try:
            for check in job.checks:
                started_s = self._clock.monotonic_s()
                case = Case(job.request, reply, tier.name, tuple(reports), self._time_left_s(job))
                judgement = await check.judge(case)
                now_s = self._clock.monotonic_s()
                reports.append(
                    CheckReport(
                        check.name,
                        check.version,
                        judgement.verdict,
                        judgement.score,
                        judgement.cost_usd,
                        started_s - ledger.started_s,
                        now_s - started_s,
                    )
                )
                match judgement.verdict:
                    case Reject():
                        return reports, judgement.verdict
                    case Unjudged(cause) if job.rules.unjudged is not None:
                        # Acted on like a rejection, recorded as what it is.
                        return reports, Reject(f"unjudged:{cause}", job.rules.unjudged)
                    case Accept() | Unjudged():
                        pass
            return reports, None
        finally:
            ledger.judged(tuple(reports))

    # --- resilience --------------------------------------------------------------------------

    async def _obtain(self, job: Job, step: _Step, ledger: Ledger) -> tuple[Tier, Reply]:
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
                time_left_s=self._time_left_s(job),
                tier_min_time_s=tier.min_time_s,
                budget_allows=calls == 0 or self._guards.budget(endpoint).allows,
                other_endpoint=self._other_endpoint(tier, tried_endpoints),
                other_tier=self._other_tier(job, ledger, tier, visited, step.max_tokens),
            )
            match decide(ended, situation, self._recovery, self._uniform()):
                case Retry(delay_s):
                    purpose = Purpose.RETRY
                    await self._clock.sleep(delay_s)
                    if self._time_left_s(job) < tier.min_time_s:  # the sleep ended late
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
        left_s = self._time_left_s(job)
        reserve_s = max((self._tiers[name].min_time_s + _SLACK_S for name in self._above(job, tier)), default=0.0)
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
            if self._obstacle(job, _Step(other, Purpose.FAILOVER, max_tokens), ledger):
                continue
            if self._guards.retry_after_s((self._endpoints[name] for name in other.endpoints), other.name) == 0:
                return other.name
        return ""

    def _time_left_s(self, job: Job) -> float:
        return job.deadline_s - self._clock.monotonic_s()


def _rank(reports: list[CheckReport], rung: int) -> tuple[int, float, int]:
    passed = sum(isinstance(report.verdict, Accept) for report in reports)
    scores = [report.score for report in reports if report.score is not None]
    return passed, scores[-1] if scores else 0.0, rung
