"""The learned scorer: P(good | request, reply), and whether going on is worth its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fallback.cascade import Ask, Keep, Step
from fallback.checks import Case, Judgement
from fallback.types import Accept, Reject, Remedy, Unjudged

NOT_CERTIFIED = "not_certified"


@dataclass(frozen=True, slots=True)
class Assessment:
    """`score` is the calibrated P(this reply is good); `step` what to do next with the request.

    `barred`: the score is below what is certified for the tier, so that the reply may not be kept.
    """

    score: float
    step: Step
    barred: bool = False


@dataclass(frozen=True, slots=True)
class ScorerCheck:
    """Accepts a reply where asking a dearer tier would not be worth its cost, by a learned model.

    Where an earlier tier's reply has turned out to be the better one, the Reject hands that one back (`to`).
    Made anew for each request: the step follows from what the tiers above would probably do and cost
    for this very request. `assess` gives None for a tier that the model knows nothing of.
    """

    name: ClassVar[str] = "scorer"
    paid: ClassVar[bool] = False

    version: str
    assess: Callable[[Case], Assessment | None]

    async def judge(self, case: Case) -> Judgement:
        """Accept, or Reject naming the tier worth asking."""
        found = self.assess(case)
        if found is None:
            return Judgement(Unjudged("tier_not_in_model"))
        match found.step:
            case Keep(tier=tier, accepted=accepted) if tier == case.tier:
                verdict = Accept() if accepted else Reject("not_certified", Remedy.HAND_BACK)
                return Judgement(verdict, score=found.score)
            case Keep(tier=tier, accepted=accepted):
                to = tier if accepted else ""
                return Judgement(Reject("earlier_reply_better", Remedy.HAND_BACK, to=to), score=found.score)
            case Ask(source=source):
                return Judgement(Reject(NOT_CERTIFIED if found.barred else "low_score", to=source), score=found.score)
