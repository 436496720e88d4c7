"""The plans that a request has to choose from, and why one was taken rather than another. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from fallback.cascade import ODDS_RATIO
from fallback.plans import Delay, Plan, Rung, all_plans
from router.deliberation import Stakes
from router.experience import Experience
from router.outcome import Decision, Mode
from router.scoring import RouterModel

if TYPE_CHECKING:
    from router.policy import Question

_CENT = 1e-9


def plans_of(
    question: Question, probabilities: Mapping[str, float], experience: Experience, model: RouterModel | None
) -> list[Plan]:
    """Every plan over the allowed tiers. `probabilities` are the model's P(good); both are missing where none decides.

    Without a model a reply is as good as it is likely to pass the checks, by the workload's measured rates.
    """
    name, allowed = question.workload, question.allowed
    known = {tier: probabilities.get(tier) for tier in allowed}
    p_good = {tier: experience.pass_rate(name, "", tier) if p is None else p for tier, p in known.items()}
    rungs = [
        Rung(
            tier=tier,
            p_good=p_good[tier],
            cost_usd=max(0.0, question.cost_usd[tier] - question.check_usd.get(tier, 0.0)),
            delay=question.delay.get(tier, Delay()),
            check_usd=question.check_usd.get(tier, 0.0),
            caught=model.caught_in(name) if model is not None else 1.0,
        )
        for tier in allowed
    ]
    after = {} if probabilities else {pair: experience.pass_rate(name, *pair) for pair in combinations(allowed, 2)}
    return all_plans(rungs, after, odds_ratio=model.tied.unread if model is not None else ODDS_RATIO)


def fitting(plans: Sequence[Plan], latency_p95_s: float) -> list[Plan]:
    """The plans whose 95th percentile is within the bound; the quickest alone where none is."""
    fit = [plan for plan in plans if plan.fits(latency_p95_s)]
    return fit or [max(plans, key=lambda plan: (plan.within(latency_p95_s), -plan.time_s))]


@dataclass(frozen=True, slots=True)
class Timely:
    """What a bound on the 95th percentile of a request's time leaves; everything where there is no bound."""

    allowed: tuple[str, ...]
    bound_s: float = math.inf
    plans: tuple[Plan, ...] = ()

    @property
    def starts(self) -> tuple[str, ...]:
        """The tiers at which a request may start."""
        if not self.plans:
            return self.allowed
        return tuple(tier for tier in self.allowed if any(plan.tiers[0] == tier for plan in self.plans))

    def nearest(self, start: str) -> str:
        """The start itself, else the lowest one above it that is left, else the highest."""
        rung = self.allowed.index(start)
        return next((tier for tier in self.starts if self.allowed.index(tier) >= rung), self.starts[-1])

    def chain(self, start: str, stakes: Stakes) -> tuple[str, ...]:
        """The tiers that may be asked: all from `start` up, or those of the best plan from there that is left."""
        from_here = [plan for plan in self.plans if plan.tiers[0] == start]
        ladder = self.allowed[self.allowed.index(start) :]
        if not from_here or any(plan.tiers == ladder for plan in from_here):
            return ladder
        return max(from_here, key=lambda plan: value_usd(plan, stakes)).tiers

    def words(self, chain: tuple[str, ...]) -> str:
        """What the bound has changed, for the reason; empty where nothing."""
        if not self.plans or (self.starts == self.allowed and chain == self.allowed[-len(chain) :]):
            return ""
        if chain[0] not in self.starts:
            return f"; no start that may be taken keeps the p95 within {self.bound_s:g} s"
        if not any(plan.fits(self.bound_s) for plan in self.plans):
            return f"; no plan keeps its p95 within {self.bound_s:g} s, this is the quickest"
        return f"; {' → '.join(chain)} keeps the p95 within {self.bound_s:g} s"


def value_usd(plan: Plan, stakes: Stakes) -> float:
    """What the plan is worth with these stakes."""
    return plan.value_usd(mistake_cost_usd=stakes.mistake_cost_usd, second_cost_usd=stakes.second_cost_usd)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A plan as shown: what it is worth, whether it was taken, and why not in words."""

    plan: Plan
    value_usd: float
    taken: bool
    why_not: str


def weighed(plans: Sequence[Plan], decision: Decision, question: Question, stakes: Stakes) -> list[Weighed]:
    """Every plan beside the one that was taken."""
    shown = decision.tiers[:1] if decision.mode is Mode.DIRECT else decision.tiers
    taken = next((plan for plan in plans if plan.tiers == shown), None)
    return [
        Weighed(
            plan,
            value_usd(plan, stakes),
            plan is taken,
            "" if plan is taken or taken is None else _why_not(plan, taken, decision, question, stakes),
        )
        for plan in plans
    ]


def _why_not(plan: Plan, taken: Plan, decision: Decision, question: Question, stakes: Stakes) -> str:
    bound_s = question.latency_p95_s
    if bound_s is not None and not plan.fits(bound_s):
        return f"its p95 is over {bound_s:g} s"
    if question.forced_start and plan.tiers[0] != question.forced_start:
        return f"the start was set to {question.forced_start}"
    dearer_usd, better = plan.cost_usd - taken.cost_usd, plan.quality - taken.quality
    less_usd = value_usd(taken, stakes) - value_usd(plan, stakes)
    if less_usd > _CENT:
        if dearer_usd <= 0.0:
            return f"cheaper, but {-better:.1%} worse" if better < 0.0 else "slower, and a second has its price"
        if better <= 0.0:
            return "dearer and no better"
        return f"{better:.1%} better is not worth ${dearer_usd:.6f} more"
    if decision.explored:
        return "exploring, on purpose"
    more = plan.calls - taken.calls if decision.model_version and plan.tiers[0] != decision.start_tier else 0.0
    if more > 0.0 and -less_usd <= question.call_margin * question.cost_usd[decision.start_tier] * more:
        return f"saves too little for {more:.2f} calls more"
    if decision.mode is Mode.DIRECT:
        return f"P({decision.start_tier} is good) is enough to go there directly"
    if not decision.model_version and question.static_plan == "fixed":
        return "the static plan of this workload is fixed"
    if not decision.model_version:
        return "without a model only measured rejections move the plan"
    if plan.tiers[0] == decision.start_tier:
        return "part of the plan taken: tiers are skipped as replies come"
    return "looks better on average; the model has learned otherwise for requests like this"
