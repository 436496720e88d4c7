"""Policies, and what each would have come to on a logged request.

A policy is followed along what the log holds of a request (`follow`): its start tier must be the
logged one (the estimators in `training.offpolicy` weigh for that), the policy itself decides after each
reply, and the checks' verdicts stand as they were. Where the policy would go on and the log
has stopped, the next tier's reply is imputed from the held-in requests that escalated to it in the same
workload, and marked as imputed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from fallback import cascade
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
        """What it would do at first."""

    def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
        """What it would do after a reply, the last of `replies`, which a check may have rejected."""

    def probabilities(self, row: Row) -> Mapping[str, float]:
        """Calibrated P(good) by tier before any reply; empty when it makes none."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same tier, no checks."""

    tier: str

    def plan(self, row: Row) -> Plan:  # noqa: ARG002 - the protocol's
        """The tier, whatever the request."""
        return Plan("only", (self.tier,))

    def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:  # noqa: ARG002 - the protocol's
        """Keep it."""
        return cascade.Keep(replies[-1].tier)

    def probabilities(self, row: Row) -> Mapping[str, float]:  # noqa: ARG002 - the protocol's
        """None."""
        return {}


class Means:
    """Means by workload and tier, from held-in requests.

    What a reply costs, and is worth, by how it came to be asked for; and how often the chain went on after
    a good reply and after a bad one. Sparse cells lean on the tier's mean in the workload, that on the
    tier's over all workloads, and so on.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in rows:
            for i, step in enumerate(row.steps):
                how = "only" if i == 0 else "escalated"
                self._add("cost", how, step.tier, row.workload, step.cost_usd)
                if label := row.labels.get(step.tier):
                    self._add("quality", how, step.tier, row.workload, float(label.good), label.weight)
                    after = "went on after good" if label.good else "went on after bad"
                    self._add(after, how, step.tier, row.workload, float(bool(step.rejected)), label.weight)

    def _add(self, what: str, how: str, tier: str, workload: str, value: float, weight: float = 1.0) -> None:
        for key in _cells(what, how, tier, workload):
            cell = self._sums[key]
            cell[0] += weight * value
            cell[1] += weight

    def get(self, what: str, how: str, tier: str, workload: str) -> float:
        """The mean of `quality` or `cost` of a tier's reply, the first one (`only`) or an `escalated` one."""
        mean = 0.0 if what == "cost" else 0.5
        for key in _cells(what, how, tier, workload):
            total, n = self._sums.get(key, (0.0, 0.0))
            mean = (total + _PRIOR * mean) / (n + _PRIOR) if len(key) > 1 or n == 0 else total / n
        return mean

    def expected(self, plan: Plan, workload: str, p_good: Mapping[str, float]) -> tuple[float, float]:
        """(quality, cost) that the plan would come to, where a tier's reply is good with that probability.

        A tier without one is as good as it is on average. The chain goes on after good and bad replies as
        often as it did.
        """
        quality = cost_usd = 0.0
        for tier in reversed(plan.tiers[:1] if plan.mode == "only" else plan.tiers):
            p = p_good.get(tier, self.get("quality", "only", tier, workload))
            asked_usd = self.get("cost", "only", tier, workload)
            if tier == plan.tiers[-1] or plan.mode == "only":
                quality, cost_usd = p, asked_usd
                continue
            on_good = p * self.get("went on after good", "only", tier, workload)
            on_bad = (1.0 - p) * self.get("went on after bad", "only", tier, workload)
            quality = p - on_good + (on_good + on_bad) * quality
            cost_usd = asked_usd + (on_good + on_bad) * cost_usd
        return quality, cost_usd


def _cells(what: str, how: str, tier: str, workload: str) -> tuple[tuple[str, ...], ...]:
    """From coarse to fine."""
    return (what,), (what, tier), (what, tier, workload), (what, how, tier, workload)


@dataclass(frozen=True, slots=True)
class Followed:
    """What a request would have come to: its reply's label, None where unknown, and its cost.

    `weight` is the label's: how many replies it stands for.
    """

    quality: float | None
    cost_usd: float
    weight: float = 1.0
    imputed: bool = False


def follow(policy: Policy, plan: Plan, row: Row, means: Means) -> Followed:
    """What the request would have come to, its logged replies as they were."""
    spent = 0.0
    replies: list[Step] = []
    for i, step in enumerate(row.steps):
        first_direct = plan.mode == "direct" and i == 0
        spent += step.cost_usd
        if plan.mode == "only":
            return _handed_over(row, step.tier, spent)
        spent += 0.0 if first_direct else step.check_cost_usd
        if step.ends:
            return _handed_over(row, step.tier, spent)
        unchecked = step.rejected == "learned" or (step.rejected == "paid" and first_direct)
        replies.append(replace(step, rejected="") if unchecked else step)
        above = _above(plan, step.tier)
        match policy.after(row, plan, replies):
            case cascade.Keep(tier=tier):
                return _handed_over(row, tier or row.resolved, spent)
            case cascade.Ask(source=source):
                asked = source if source in above or not above else above[0]
        if not above:
            break
        if i + 1 == len(row.steps) or row.steps[i + 1].tier != asked:
            quality = means.get("quality", "escalated", asked, row.workload)
            return Followed(quality, spent + means.get("cost", "escalated", asked, row.workload), imputed=True)
    return _handed_over(row, row.resolved, spent if row.steps else row.cost_usd)


def _above(plan: Plan, tier: str) -> tuple[str, ...]:
    """The plan's tiers after this one; none after a tier that a failover brought in from outside the plan."""
    return plan.tiers[plan.tiers.index(tier) + 1 :] if tier in plan.tiers else ()


def _handed_over(row: Row, tier: str, spent_usd: float) -> Followed:
    label = row.labels.get(tier)
    return Followed(None, spent_usd) if label is None else Followed(float(label.good), spent_usd, label.weight)
