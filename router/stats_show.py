"""How `tierwise stats` prints its numbers: tables for a terminal, JSON for a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from router.alarms import Alarm
from router.rates import Rate
from router.stats import Share, StartTier, StatsRow

if TYPE_CHECKING:
    from rich.table import Table


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
