"""What `tierwise stats` prints: the numbers by which a fallback chain is watched, with intervals. Pure.

Measured costs of a dearer tier come from the requests that reached it, which are the harder ones: a
break-even line is what these requests paid, not a list price.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fallback.economics import break_even_rate
from router.alarms import Alarm
from router.experience import wilson
from router.rates import Rate, clopper_pearson, false_accept, false_escalate
from router.static_plans import StaticPlan
from router.store import WorkloadStats

if TYPE_CHECKING:
    from rich.table import Table


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
        if self.break_even is None:
            return "no line yet" if self.next_tier else "highest tier"
        if self.rejected.high < self.break_even:
            return "pays"
        return "start higher" if self.rejected.low > self.break_even else "undecided"


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
        if self.break_even is None:
            return "no line yet" if self.next_tier else "highest tier"
        if self.rejected.high < self.break_even:
            return "pays"
        return "skip it" if self.rejected.low > self.break_even else "undecided"


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


# --- printing --------------------------------------------------------------------------------


def as_json(found: Sequence[StatsRow], alarms: Sequence[Alarm] = ()) -> list[dict[str, Any]]:
    """The rows as JSON objects: shares with counts and intervals, money in US dollars, the alarms that stand."""
    objects = []
    for row in found:
        one = asdict(row)
        for start, given in zip(one["starts"], row.starts, strict=True):
            start["finding"] = given.finding
        for later, found_later in zip(one["later"], row.later, strict=True):
            later["finding"] = found_later.finding
        one["alarms"] = [
            {"tier": each.tier, "stream": each.stream.value, "at_s": each.at_s, "why": each.words}
            for each in alarms
            if each.workload == row.workload
        ]
        objects.append(one)
    return objects


def render(found: Sequence[StatsRow]) -> Table:
    """The rows as a table for a terminal; with no rows, a table that says so."""
    from rich.table import Table
    from rich.text import Text

    if not found:
        empty = Table("tierwise")
        empty.add_row("No requests are recorded in this period.")
        return empty
    table = Table(
        caption=Text(
            "[low–high]: 95 % intervals. A start tier pays while its replies are rejected less often than the line."
        )
    )
    table.add_column("workload", overflow="fold")
    for heading in (
        "requests",
        "resolved by",
        "escalated",
        "start tier: rejected < break-even?",
        "failures",
        "misroutes",
        "$/1,000",
        "saved",
        "bad by feedback",
        "audits",
    ):
        table.add_column(heading, justify="right", no_wrap=heading.startswith(("start tier", "audits")))
    for row in found:
        table.add_row(
            Text(row.workload),  # a caller's word: never markup
            f"{row.requests:,}",
            Text("\n".join(_resolved_lines(row))),
            Text(_percent(row.escalated)),
            Text("\n".join(_start_line(start) for start in row.starts) or "–"),
            f"{row.failures:,} of {row.attempts:,}",
            Text(_percent(row.misroutes)),
            f"{1000 * row.cost_per_request_usd:,.4g}",
            "–" if row.saved is None else f"{row.saved:.1%}",
            Text(_percent(row.feedback_bad)),
            Text("\n".join(_audit_lines(row)) or "–"),
        )
    return table


def render_chains(found: Sequence[StatsRow]) -> Table | None:
    """What chains without a model have shown, tier after tier, and where the static plan stands; None without any."""
    from rich.table import Column, Table
    from rich.text import Text

    told = [row for row in found if row.later or row.static_plan]
    if not told:
        return None
    table = Table(
        "workload",
        "static plan",
        "after a rejected",
        "tier",
        Column("rejected", justify="right"),
        Column("break-even", justify="right"),
        "finding",
        title="without a model",
        title_justify="left",
        caption=Text(
            "A tier pays after the one before was rejected while its own replies are rejected less than the line."
        ),
    )
    for row in told:
        names = (row.workload, row.static_plan.words if row.static_plan else "–")
        for later in row.later:
            line = "–" if later.break_even is None else f"{later.break_even:.1%}"
            cells = (later.after, later.tier, _percent(later.rejected), line, later.finding)
            table.add_row(*(Text(cell) for cell in (*names, *cells)))
            names = ("", "")
        if not row.later:
            table.add_row(*(Text(cell) for cell in names))
    return table


def _resolved_lines(row: StatsRow) -> list[str]:
    lines = [f"{tier} {share:.1%}" for tier, share in row.resolved.items()]
    lines += [f"not accepted {row.unaccepted:,}"] if row.unaccepted else []
    lines += [f"no reply {row.no_reply:,}"] if row.no_reply else []
    return lines


def _audit_lines(row: StatsRow) -> list[str]:
    rates = (("false accepts", row.false_accept), ("false escalations", row.false_escalate))
    lines = [f"{name} {_percent_rate(rate)}" for name, rate in rates if rate.n]
    return [*lines, f"{row.audits:,} for ${row.audit_cost_usd:,.4g}"] if row.audits or lines else []


def _percent_rate(rate: Rate) -> str:
    unclear = f", {rate.undetermined:,} undetermined" if rate.undetermined else ""
    return f"{rate.value:.1%} [{rate.low:.1%}–{rate.high:.1%}] of {rate.n:,}{unclear}"


def _start_line(start: StartTier) -> str:
    line = "–" if start.break_even is None else f"{start.break_even:.1%}"
    return f"{start.tier}: {_percent(start.rejected)} < {line}: {start.finding}"


def _percent(share: Share) -> str:
    return f"{share.value:.1%} [{share.low:.1%}–{share.high:.1%}]" if share.of else "–"
