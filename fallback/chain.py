"""The chain: tiers tried in order until a reply is good enough.

Two jobs, kept apart. `fallback.resilience` gets a reply from a tier in spite of Failures. Here is cost
tiering: the reply is judged, and a Verdict leads on (the job's `steer` says where to). Neither ever does the
other's part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fallback.cascade import Ask, Keep
from fallback.clock import Clock
from fallback.errors import Failure, NotAttempted
from fallback.job import Job, Rejected, Resolution, Step
from fallback.judging import Judging
from fallback.ledger import Ledger
from fallback.resilience import Resilience
from fallback.types import Accept, CheckReport, Purpose, Reject, Remedy, Reply, Tier

_BEST = Keep("", accepted=False)  # the best reply seen, marked


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A rejected reply, kept in case nothing better comes. Rank: checks passed, then score, then tier."""

    reply: Reply
    tier: str
    rank: tuple[int, float, int]


class Chain:
    """Runs jobs. Holds no state of a request: that is in the Ledger."""

    def __init__(self, *, ladder: tuple[Tier, ...], resilience: Resilience, clock: Clock) -> None:
        self._tiers: Mapping[str, Tier] = {tier.name: tier for tier in ladder}
        self._rung = {tier.name: rung for rung, tier in enumerate(ladder)}
        self._resilience = resilience
        self._judging = Judging(resilience, self._rung, clock)

    async def run(self, job: Job, ledger: Ledger) -> Resolution:
        """The first reply that passes, or the best one seen, marked. Raises a Failure when none came."""
        seen: dict[str, _Candidate] = {}
        reasons: list[str] = []
        step = Step(self._tiers[job.tiers[0]], Purpose.FIRST, job.request.max_tokens)
        while True:
            try:
                tier, reply = await self._resilience.obtain(job, step, ledger)
            except Failure as failure:
                if not seen:
                    raise
                nothing_sent = isinstance(failure, NotAttempted)
                reasons.append(failure.error_type if nothing_sent else f"{step.purpose}:{failure.kind}")
                return _handed_back(_BEST, seen, reasons)
            judged = await self._judging.judge(job, tier.name, reply, ledger)
            if judged.rejection is None or judged.by is None:
                return Resolution(reply, tier.name, accepted=True)
            reasons.append(f"{tier.name}:{judged.by.check}:{judged.rejection.reason}")
            candidate = _Candidate(reply, tier.name, _rank(judged.reports, self._rung[tier.name]))
            if tier.name not in seen or candidate.rank >= seen[tier.name].rank:  # equal: the longer reply
                seen[tier.name] = candidate
            above = self._untried_above(job, tier, ledger)
            rejected = Rejected(tier.name, reply, judged.by, above, self._resilience.time_left_s(job))
            following = self._next(job, step, judged.rejection, rejected)
            if isinstance(following, Keep):
                return _handed_back(following, seen, reasons)
            step = following

    def _untried_above(self, job: Job, tier: Tier, ledger: Ledger) -> tuple[str, ...]:
        tried = {attempt.tier for attempt in ledger.attempts}
        return tuple(name for name in job.above(tier.name, self._rung) if name not in tried)

    def _next(self, job: Job, step: Step, rejection: Reject, rejected: Rejected) -> Step | Keep:
        """Where a rejection leads: a longer limit on the same tier, a higher tier, or back to the caller."""
        remedy, tier = rejection.remedy, self._tiers[rejected.tier]
        if remedy is Remedy.RAISE_LIMIT:
            ceiling = min(job.request.max_tokens_ceiling, tier.max_output_tokens)
            if step.max_tokens < ceiling:
                return Step(tier, Purpose.LONGER, ceiling)
            remedy = rejection.otherwise
        if remedy is Remedy.HAND_BACK:
            return Keep(rejection.to) if rejection.to else _BEST
        if rejection.to in rejected.above:
            return Step(self._tiers[rejection.to], Purpose.ESCALATION, step.max_tokens)
        match job.steer(rejected):
            case Ask(source=name) if name in rejected.above:
                return Step(self._tiers[name], Purpose.ESCALATION, step.max_tokens)
            case Keep() as keep:
                return keep
        return _BEST


def _handed_back(keep: Keep, seen: Mapping[str, _Candidate], reasons: list[str]) -> Resolution:
    """The reply that is good enough by now, else the best one, marked."""
    given = (*reasons, keep.why) if keep.why else tuple(reasons)
    if keep.accepted and keep.tier in seen:
        return Resolution(seen[keep.tier].reply, keep.tier, accepted=True, reasons=given)
    best = max(seen.values(), key=lambda each: each.rank)
    return Resolution(best.reply, best.tier, accepted=False, reasons=given)


def _rank(reports: Sequence[CheckReport], rung: int) -> tuple[int, float, int]:
    passed = sum(isinstance(report.verdict, Accept) for report in reports)
    scores = [report.score for report in reports if report.score is not None]
    return passed, scores[-1] if scores else 0.0, rung
