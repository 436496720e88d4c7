"""The check report on the terminal and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from training.checkreport import CheckWorth, Estimate

_COLOURS = {"yes": "green", "no": "red", "not shown": "yellow"}


def show_checks(console: Console, found: Sequence[CheckWorth]) -> None:
    """One line a check, by workload."""
    if not found:
        console.print("no outcomes: nothing has been judged yet")
        return
    if any(each.simulated for each in found):
        console.print("simulated data: the figures say nothing of real models", style="yellow")
    table = Table(
        *(Column(name, no_wrap=True) for name in ("workload", "check")),
        *(Column(name, justify="right") for name in ("n", "labelled", "AUROC", "false accept", "false reject")),
        *(Column(name, justify="right") for name in ("cost per 1,000", "ms", "gain per 1,000")),
        Column("pays", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for each in found:
        table.add_row(
            escape(each.workload),
            escape(each.check),
            f"{each.n:,}",
            f"{each.labelled:,}",
            _share(each.auroc, "{:.3f}"),
            _share(each.false_accept, "{:.1%}"),
            _share(each.false_reject, "{:.1%}"),
            f"${each.mean_cost_usd * 1000:,.3f}" if each.mean_cost_usd else "–",
            f"{each.mean_duration_s * 1000:,.1f}",
            _gain(each.gain_usd),
            f"[{_COLOURS[each.pays]}]{each.pays}[/]",
        )
    console.print(table)


def as_json(found: Sequence[CheckWorth]) -> list[dict[str, Any]]:
    """The same in full; null where nothing is known."""
    return [_plain(asdict(each) | {"pays": each.pays}) for each in found]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _share(figure: Estimate, form: str) -> str:
    if math.isnan(figure.value):
        return "–"
    value, low, high = (form.format(number) for number in (figure.value, figure.low, figure.high))
    return escape(f"{value} [{low}, {high}]")


def _gain(figure: Estimate) -> str:
    if math.isnan(figure.value):
        return "–"
    value, low, high = (f"{'-' if n < 0 else ''}${abs(n) * 1000:,.2f}" for n in (figure.value, figure.low, figure.high))
    return escape(f"{value} [{low}, {high}]")
