"""A model as a policy: it decides logged requests by the very code that serves (`router.policy`), unexplored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fallback import cascade
from router.certificate import NO_PROMISE, Certificate, Promise, standing
from router.experience import Experience
from router.features import Features
from router.model import RouterModel, Seen
from router.outcome import Mode
from router.policy import Policy as ServingPolicy
from router.policy import Question, deliberate
from router.scoring import State
from training.follow import Means, Plan
from training.rows import Row, Step

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a workload's policy adds to a question; the fields are `Question`'s, but for the promise."""

    allowed: tuple[str, ...]
    direct_threshold: float = 0.9
    quality_target: float = 0.99
    mistake_cost_usd: float | None = None
    insists: bool = False
    promise: Promise = NO_PROMISE
    latency_p95_s: float | None = None
    second_cost_usd: float = 0.0
    call_margin: float = 0.0


class Served:
    """Meets `training.follow.Policy`. `terms` gives each workload's; costs are those that the service expected."""

    def __init__(self, model: RouterModel, terms: Callable[[str], Terms], means: Means) -> None:
        self.model = model
        self._terms = terms
        self._means = means
        # Nothing is drawn below an exploration share of 0, and experience only moves static plans.
        self._policy = ServingPolicy(Experience(model.tiers), uniform=lambda: 1.0)

    def plan(self, row: Row) -> Plan:
        """The decision before the first reply."""
        decision, _ = self._policy.decide(self._question(row), self.model)
        return Plan("direct" if decision.mode is Mode.DIRECT else "chain", decision.tiers)

    def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
        """The deliberation taken up again; a reply whose features are lost is kept, unless a check rejected it.

        How replies agree is what the outcome says of it; the time that was left it does not say.
        """
        return self.think(row, plan, replies)[0]

    def think(self, row: Row, plan: Plan, replies: Sequence[Step]) -> tuple[cascade.Step, float | None]:
        """That, and the scorer's P(good) of the last reply; None where a check rejected it or its features are lost."""
        deliberation = deliberate(self._question(row), self.model)
        deliberation.keep_to(plan.tiers)
        ladder = self.model.tiers
        step: cascade.Step = cascade.Keep(replies[-1].tier)
        score: float | None = None
        for each in replies:
            score = None
            higher = ladder[ladder.index(each.tier) + 1 :] if each.tier in ladder else ()
            above = tuple(tier for tier in plan.tiers if tier in higher)
            if each.rejected and each.reply_features is not None:
                step = deliberation.rejected(each.tier, each.reply_features, "", above=above, agree=row.agree)
            elif each.rejected:
                step = cascade.Ask(above[0]) if above else cascade.Keep(each.tier, accepted=False)
            elif each.reply_features is not None:
                assessment = deliberation.replied(each.tier, each.reply_features, "", agree=row.agree)
                if assessment is not None:
                    step, score = assessment.step, assessment.score
        return step, score

    def uncertified(self) -> Served:
        """The same model as if nothing had been certified."""
        return Served(replace(self.model, certificates={}), self._terms, self._means)

    def certified(self, certificates: Mapping[str, Certificate], version: str) -> Served:
        """The same model with these certificates, as this version."""
        return Served(replace(self.model, certificates=certificates, version=version), self._terms, self._means)

    def terms(self, workload: str) -> Terms:
        """What the configuration says of the workload."""
        return self._terms(workload)

    def allowed(self, workload: str) -> tuple[str, ...]:
        """The tiers that may answer, cheapest first."""
        return self._terms(workload).allowed

    def expected_cost_usd(self, rows: Sequence[Row], tier: str) -> float:
        """What the service expected an attempt on the tier to cost, mean over the requests."""
        costs = [row.expected_cost_usd.get(tier) or self._mean_usd(tier, row.workload) for row in rows]
        return sum(costs) / max(1, len(costs))

    def _mean_usd(self, tier: str, workload: str) -> float:
        return self._means.get("cost", "only", tier, workload)

    def probabilities(self, row: Row) -> Mapping[str, float]:
        """P(good) by tier before any reply."""
        return self.model.probabilities(row.features, row.workload)

    def _question(self, row: Row) -> Question:
        terms = self._terms(row.workload)
        return Question(
            workload=row.workload,
            allowed=terms.allowed,
            features=row.features,
            cost_usd={
                tier: row.expected_cost_usd.get(tier) or self._mean_usd(tier, row.workload) for tier in terms.allowed
            },
            direct_threshold=terms.direct_threshold,
            quality_target=terms.quality_target,
            mistake_cost_usd=terms.mistake_cost_usd,
            insists=terms.insists,
            standing=standing(terms.promise, self.model.certificates.get(row.workload), {}, terms.allowed),
            delay=row.delay,
            latency_p95_s=terms.latency_p95_s if row.delay else None,
            second_cost_usd=terms.second_cost_usd,
            call_margin=terms.call_margin,
        )


@dataclass(frozen=True, slots=True)
class HeldOut(RouterModel):
    """A model that answers for its own training rows as it was when it had not seen them.

    `beliefs` (n, tiers) by state are out of fold, NaN where unknown; `numbers` gives a row by the identity
    of its features. A state that was not fitted is put together from those of one reply.
    """

    beliefs: Mapping[State, Array] = None  # type: ignore[assignment]  # required, after defaults
    numbers: Mapping[int, int] = None  # type: ignore[assignment]

    @classmethod
    def of(cls, model: RouterModel, beliefs: Mapping[State, Array], features: Sequence[Features]) -> Self:
        """The model with the beliefs of the rows that have these features."""
        own = {each.name: getattr(model, each.name) for each in fields(RouterModel)}
        return cls(**own, beliefs=beliefs, numbers={id(each): number for number, each in enumerate(features)})

    def believe(self, features: Features, workload: str, seen: Sequence[Seen]) -> dict[str, float]:
        """P(good) by tier, out of fold."""
        number = self.numbers[id(features)]
        believed = dict(zip(self.tiers, self.beliefs[()][number].tolist(), strict=True))
        if any(math.isnan(p) for p in believed.values()):  # too rare to be held out
            believed = RouterModel.believe(self, features, workload, ())
        state = tuple(source for source in self.sources if any(each.source == source for each in seen))
        for part in (*((source,) for source in state), state):  # the state itself overrules its parts, where fitted
            if (found := self.beliefs.get(part)) is None:
                continue
            for tier, p in zip(self.tiers, found[number].tolist(), strict=True):
                if not math.isnan(p) and (part == state or tier in part):
                    believed[tier] = p
        return believed
