"""How the verdicts of several checks about one reply become one.

Checks run in this order: the free ones, the learned scorer, the paid ones.

1. A Reject of a free check ends it: the reply is rejected.
2. The scorer's verdict stands unless a paid check overrules it. A paid check is asked where the scorer's score
   lies in that check's `uncertain` band, and where there is no score (no model, or a tier that it does not know);
   but not about a reply of the plan's last tier, because nothing could follow from it, nor about one below
   what is certified for its tier: the certificate speaks of the scorer alone, and nobody may overrule it.
3. A paid check's Accept or Reject is decisive: it overrules the scorer's verdict. The first Reject ends it, and where
   it leads is decided anew with what is known by then; an Accept lets the next paid check speak, where there is one.
4. Unjudged decides nothing: what was thought before it stands, unless the workload says what Unjudged means.

Money and calls are accounted for however a check ends, also when the caller goes away in the middle of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fallback.asking import Asking
from fallback.checks import Case, Check, Judgement, PaidCheck, nobody
from fallback.checks.scorer import NOT_CERTIFIED, ScorerCheck
from fallback.clock import Clock
from fallback.job import Job
from fallback.ledger import Ledger
from fallback.resilience import Resilience
from fallback.types import Accept, CheckReport, Reject, Reply, Unjudged, rejection_of


@dataclass(frozen=True, slots=True)
class Judged:
    """The reports about one reply, and what they come to.

    `rejection` is None where it passes; it is that of the report `by`, or what its Unjudged means.
    """

    reports: tuple[CheckReport, ...]
    rejection: Reject | None = None
    by: CheckReport | None = None


class Judging:
    """Runs the checks of a job. Holds no state of a request."""

    def __init__(self, resilience: Resilience, rung: Mapping[str, int], clock: Clock) -> None:
        self._resilience = resilience
        self._rung = rung
        self._clock = clock

    async def judge(self, job: Job, tier: str, reply: Reply, ledger: Ledger) -> Judged:
        """What the checks say of a reply, the last attempt's."""
        reports: list[CheckReport] = []
        could_go_on = bool(job.above(tier, self._rung))
        try:
            for check in job.checks:
                if check.paid and not (could_go_on and is_wanted(check, reports)):
                    continue
                asking = None
                if check.paid:
                    ledger.judged(reply, tuple(reports))  # what is spent so far bounds what the check may spend
                    asking = self._resilience.asking(job, tier, ledger)
                await self._report(job, check, asking, tier, reply, reports, ledger)
                reports[:] = settled(reports)
                match reports[-1].verdict:
                    case Unjudged(cause) if job.rules.unjudged is not None:
                        # Acted on like a rejection, recorded as what it is.
                        return Judged(tuple(reports), Reject(f"unjudged:{cause}", job.rules.unjudged), reports[-1])
                    case Reject() if check.name != ScorerCheck.name:
                        break
            rejection = rejection_of(reports)
            by = next((report for report in reports if report.verdict is rejection), None)
            return Judged(tuple(reports), rejection, by)
        finally:
            ledger.judged(reply, tuple(reports))

    async def _report(
        self,
        job: Job,
        check: Check,
        asking: Asking | None,
        tier: str,
        reply: Reply,
        reports: list[CheckReport],
        ledger: Ledger,
    ) -> None:
        """Appends the check's report, however it ends."""
        started_s = self._clock.monotonic_s()
        left_s = self._resilience.time_left_s(job)
        case = Case(job.request, reply, tier, tuple(reports), left_s, asking or nobody)
        judgement: Judgement | None = None
        try:
            judgement = await check.judge(case)
        finally:
            if judgement is None:
                judgement = Judgement(Unjudged("cut_off"))
            reports.append(
                CheckReport(
                    check.name,
                    check.version,
                    judgement.verdict,
                    judgement.score,
                    judgement.cost_usd + (asking.cost_usd if asking else 0.0),
                    started_s - ledger.started_s,
                    self._clock.monotonic_s() - started_s,
                    asking.calls if asking else 0,
                )
            )


def is_wanted(check: Check, reports: Sequence[CheckReport]) -> bool:
    """Whether a paid check is to be asked: only where the scorer is not sure."""
    if not isinstance(check, PaidCheck):
        return True
    scorer = next((report for report in reports if report.check == ScorerCheck.name), None)
    if scorer is None or scorer.score is None:
        return True
    if isinstance(scorer.verdict, Reject) and scorer.verdict.reason == NOT_CERTIFIED:
        return False
    low, high = check.uncertain
    return low <= scorer.score <= high


def settled(reports: Sequence[CheckReport]) -> list[CheckReport]:
    """The reports after one more: where the last is a paid check's, with what it overrules marked as such."""
    scored = next((at for at, report in enumerate(reports) if report.check == ScorerCheck.name), None)
    if scored is None or scored == len(reports) - 1:
        return list(reports)
    found, scorer = list(reports), reports[scored]
    match scorer.verdict, found[-1].verdict:
        case (Reject(), Accept()) | (_, Reject()):
            found[scored] = replace(scorer, overruled=True)
        case _:
            pass
    return found
