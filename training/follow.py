"""Policies, and what each would have come to on a logged request.

A policy is followed along what the log holds of a request (`follow`): its start tier must be the
logged one (the estimators in `training.offpolicy` weigh for that), each reply is judged by the policy's
own scorer, and the other checks' verdicts stand as they were. Where the policy would go on and the log
has stopped, the next tier's reply is imputed from the held-in requests that escalated to it in the same
workload, and marked as imputed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from training.rows import Row, Step

_PRIOR = 5.0  # requests' worth of trust in the coarser mean


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy does with a request. `only`: hands over the first tier's reply, whatever the checks say."""

    mode: Literal["only", "direct", "chain"]
    tiers: tuple[str, ...]

    @property
    def name(self) -> str:
        """As shown in reports."""
        return f"{self.mode} {self.tiers[0]}"


class Policy(Protocol):
    """A router to be judged, by the same rule that serves."""

    def plan(self, row: Row) -> Plan:
        """What it would do."""

    def accepts(self, row: Row, step: Step, plan: Plan) -> bool:
        """Whether its scorer would let this reply pass."""

    def probabilities(self, row: Row) -> Mapping[str, float]:
        """Calibrated P(good) by tier; empty when it makes none."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same tier, no checks."""

    tier: str

    def plan(self, row: Row) -> Plan:
        """The tier, whatever the request."""
        return Plan("only", (self.tier,))

    def accepts(self, row: Row, step: Step, plan: Plan) -> bool:
        """Everything."""
        return True

    def probabilities(self, row: Row) -> Mapping[str, float]:
        """None."""
        return {}


class Means:
    """Mean quality and cost by workload and how a tier came to reply, from held-in requests.

    Sparse cells lean on the tier's mean over all workloads, and that on the mean over everything.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in rows:
            for i, step in enumerate(row.steps):
                how = "only" if i == 0 else "escalated"
                self._add("cost", how, step.tier, row.workload, step.cost_usd)
                if step.tier in row.labels:
                    self._add("quality", how, step.tier, row.workload, float(row.labels[step.tier].good))
            if row.steps:
                self._add("cost", "chain", row.start, row.workload, row.cost_usd)
                if row.resolved in row.labels:
                    self._add("quality", "chain", row.start, row.workload, float(row.labels[row.resolved].good))

    def _add(self, what: str, how: str, tier: str, workload: str, value: float) -> None:
        for key in ((what,), (what, tier), (what, how, tier), (what, how, tier, workload)):
            cell = self._sums[key]
            cell[0] += value
            cell[1] += 1.0

    def get(self, what: str, how: str, tier: str, workload: str) -> float:
        """The mean of `quality` or `cost` of a tier's reply: `only` or `escalated`, or of a `chain` from it."""
        how = "chain" if how == "direct" else how
        mean = 0.5 if what == "quality" else 0.0
        for key in ((what,), (what, tier), (what, how, tier), (what, how, tier, workload)):
            total, n = self._sums.get(key, (0.0, 0.0))
            mean = (total + _PRIOR * mean) / (n + _PRIOR) if len(key) > 1 or n == 0 else total / n
        return mean


@dataclass(frozen=True, slots=True)
class Followed:
    """What a request would have come to: its reply's label, None where unknown, and its cost."""

    quality: float | None
    cost_usd: float
    imputed: bool = False


def follow(policy: Policy, plan: Plan, row: Row, means: Means) -> Followed:
    """What the request would have come to, its logged replies as they were."""
    spent = 0.0
    for i, step in enumerate(row.steps):
        first_direct = plan.mode == "direct" and i == 0
        spent += step.cost_usd
        if plan.mode == "only":
            return Followed(good(row, step.tier), spent)
        spent += 0.0 if first_direct else step.check_cost_usd
        if step.ends:
            return Followed(good(row, step.tier), spent)
        stands = step.rejected in ("", "learned") or (step.rejected == "paid" and first_direct)
        if stands and policy.accepts(row, step, plan):
            return Followed(good(row, step.tier), spent)
        after = _next(plan, step.tier)
        if after is None:
            break
        if i + 1 == len(row.steps) or row.steps[i + 1].tier != after:
            quality = means.get("quality", "escalated", after, row.workload)
            return Followed(quality, spent + means.get("cost", "escalated", after, row.workload), imputed=True)
    return Followed(good(row, row.resolved), spent if row.steps else row.cost_usd)


def _next(plan: Plan, tier: str) -> str | None:
    if tier not in plan.tiers:
        return None  # failed over to a tier outside the plan: its reply stands
    later = plan.tiers[plan.tiers.index(tier) + 1 :]
    return later[0] if later else None


def good(row: Row, tier: str) -> float | None:
    """The tier's label as 1 or 0; None where there is none."""
    label = row.labels.get(tier)
    return None if label is None else float(label.good)
