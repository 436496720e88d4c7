"""What `tierwise stats` says: the numbers by which a fallback chain is watched, with intervals. Pure.

Measured costs of a dearer tier come from the requests that reached it, which are the harder ones: a
break-even line is what these requests paid, not a list price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fallback.economics import break_even_rate
from router.experience import wilson
from router.rates import Rate, clopper_pearson, false_accept, false_escalate
from router.static_plans import StaticPlan
from router.store import WorkloadStats


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of`, with its 95 % interval; (0, 1) when `of` is 0."""

    count: int
    of: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself; 0 when `of` is 0."""
        return self.count / self.of if self.of else 0.0


@dataclass(frozen=True, slots=True)
class StartTier:
    """How often chains that start at `tier` had to go on, and the rate up to which starting there pays.

    `break_even` is None while one of the two tiers has no measured cost, or `tier` is the highest.
    """

    tier: str
    next_tier: str
    rejected: Share
    break_even: float | None

    @property
    def finding(self) -> str:
        """In words, what the interval says about the line."""
        return _finding(self.rejected, self.break_even, self.next_tier, too_often="start higher")


@dataclass(frozen=True, slots=True)
class LaterTier:
    """How often `tier`'s reply was rejected after `after`'s was, in chains without a model.

    Up to `break_even` asking it before the next tier pays; None as with `StartTier`.
    """

    after: str
    tier: str
    next_tier: str
    rejected: Share
    break_even: float | None

    @property
    def finding(self) -> str:
        """In words, what the interval says about the line."""
        return _finding(self.rejected, self.break_even, self.next_tier, too_often="skip it")


def _finding(rejected: Share, break_even: float | None, next_tier: str, *, too_often: str) -> str:
    if break_even is None:
        return "no line yet" if next_tier else "highest tier"
    if rejected.high < break_even:
        return "pays"
    return too_often if rejected.low > break_even else "undecided"


@dataclass(frozen=True, slots=True)
class StatsRow:
    """One workload. `saved` is the share of the always-top-tier cost that was not spent; None without one.

    `audits` are those for which a lot was drawn; their cost is in no other figure of the row. `static_plan` is where
    the plan without a model stands by these numbers, None where a tier has no measured cost yet.
    """

    workload: str
    requests: int
    resolved: dict[str, float]
    unaccepted: int
    no_reply: int
    escalated: Share
    starts: tuple[StartTier, ...]
    later: tuple[LaterTier, ...]
    static_plan: StaticPlan | None
    attempts: int
    failures: int
    misroutes: Share
    cost_per_request_usd: float
    saved: float | None
    feedback_bad: Share
    audits: int
    audit_cost_usd: float
    false_accept: Rate
    false_accept_by_tier: dict[str, Rate]
    false_escalate: Rate


def rows(
    stats: Sequence[WorkloadStats],
    ladder: Sequence[str],
    plan: Callable[[WorkloadStats], StaticPlan | None] = lambda _: None,
) -> list[StatsRow]:
    """One row a workload, in the given order. `ladder` names the tiers in cost order; `plan` gives the static plan."""
    return [_row(one, ladder, plan(one)) for one in stats]


def _row(stats: WorkloadStats, ladder: Sequence[str], plan: StaticPlan | None) -> StatsRow:
    reports = stats.feedback_good + stats.feedback_bad
    audited = _in_order({tally.tier: 0 for tally in stats.audits if tally.accepted}, ladder)
    return StatsRow(
        workload=stats.workload,
        requests=stats.requests,
        resolved={tier: stats.resolved[tier] / stats.requests for tier in _in_order(stats.resolved, ladder)},
        unaccepted=stats.unaccepted,
        no_reply=stats.no_reply,
        escalated=_share(stats.escalated, stats.requests),
        starts=tuple(_start(stats, tier, ladder) for tier in _in_order(stats.first_judged, ladder)),
        later=tuple(_later(stats, *pair, ladder) for pair in _pairs(stats, ladder)),
        static_plan=plan,
        attempts=stats.attempts,
        failures=stats.failures,
        misroutes=_share(stats.misroutes, stats.direct),
        cost_per_request_usd=stats.cost_usd / stats.requests if stats.requests else 0.0,
        saved=1.0 - stats.cost_usd / stats.top_tier_cost_usd if stats.top_tier_cost_usd > 0 else None,
        feedback_bad=Share(stats.feedback_bad, reports, *clopper_pearson(stats.feedback_bad, reports)),
        audits=sum(tally.count for tally in stats.audits if tally.accepted),
        audit_cost_usd=math.fsum(tally.cost_usd for tally in stats.audits),
        false_accept=false_accept(stats.audits),
        false_accept_by_tier={
            tier: false_accept(tally for tally in stats.audits if tally.tier == tier) for tier in audited
        },
        false_escalate=false_escalate(stats.audits),
    )


def _start(stats: WorkloadStats, tier: str, ladder: Sequence[str]) -> StartTier:
    next_tier, line = _line(stats, tier, ladder)
    return StartTier(tier, next_tier, _share(stats.first_rejected.get(tier, 0), stats.first_judged[tier]), line)


def _later(stats: WorkloadStats, after: str, tier: str, ladder: Sequence[str]) -> LaterTier:
    next_tier, line = _line(stats, tier, ladder)
    judged, rejected = stats.passages[after, tier]
    return LaterTier(after, tier, next_tier, _share(rejected, judged), line)


def _line(stats: WorkloadStats, tier: str, ladder: Sequence[str]) -> tuple[str, float | None]:
    """The next tier, empty without one, and the rate of rejection up to which trying this one before it pays."""
    above = list(ladder[ladder.index(tier) + 1 :]) if tier in ladder else []
    next_tier = above[0] if above else ""
    costs = stats.attempt_cost_usd
    line = break_even_rate(costs[tier], costs[next_tier]) if tier in costs and next_tier in costs else None
    return next_tier, line


def _pairs(stats: WorkloadStats, ladder: Sequence[str]) -> list[tuple[str, str]]:
    """(tier whose reply was rejected, tier asked next), in cost order."""
    place = {tier: rung for rung, tier in enumerate(ladder)}
    found = [(after, tier) for after, tier in stats.passages if after]
    return sorted(found, key=lambda pair: [(place.get(tier, len(place)), tier) for tier in pair])


def _share(count: int, of: int) -> Share:
    return Share(count, of, *wilson(count, of))


def _in_order(by_tier: dict[str, int], ladder: Sequence[str]) -> list[str]:
    """The tiers that occur, in cost order; those that the ladder no longer has come last, by name."""
    return sorted(by_tier, key=lambda tier: (ladder.index(tier) if tier in ladder else len(ladder), tier))
