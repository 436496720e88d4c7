"""The learned scorer: calibrated P(good | request, reply, the other checks' signals)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fallback.checks import Case, Judgement
from fallback.types import Accept, Reject, Unjudged


@dataclass(frozen=True, slots=True)
class ScorerCheck:
    """Accepts a reply whose P(good) reaches its tier's threshold.

    Made anew for each request, because the threshold follows from what the tiers above would
    probably do and cost for this very request. A tier without a threshold has nothing above it that
    would pay: its reply passes, scored.
    """

    name: ClassVar[str] = "scorer"
    paid: ClassVar[bool] = False

    version: str
    probability: Callable[[Case], float | None]
    thresholds: Mapping[str, float]

    async def judge(self, case: Case) -> Judgement:
        """By the model's probability; Unjudged where the model knows nothing of the tier."""
        score = self.probability(case)
        if score is None:
            return Judgement(Unjudged("tier_not_in_model"))
        accepted = score >= self.thresholds.get(case.tier, 0.0)
        return Judgement(Accept() if accepted else Reject("low_score"), score=score)
