"""What the commands show on the terminal: progress as it goes, tables, and the result of a night."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from router.certificate import Certificate, State, finding, rows_of
from training.registry import Entry
from training.report import headline
from training.results import Figure, Night

_EVERY = 1_000  # things between two updates of a count


class Steps:
    """Meets `nightly.Progress`: a bar per step on a terminal, a line per step in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish()
        self._bars.stop()

    def step(self, name: str) -> None:
        """The step before is done and this one begins."""
        self._finish()
        if self._console.is_terminal:
            self._task = self._bars.add_task(escape(name), total=None, count="")
        else:
            self._console.print(f"… {name}", markup=False, highlight=False)

    def count(self, done: int) -> None:
        """So many of the current step's things are done."""
        if self._task is not None and done % _EVERY == 0:
            self._bars.update(self._task, count=f"{done:,}")

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, total=1, completed=1)
            self._task = None


class Shares:
    """One bar from 0 to 1 on a terminal, with what is being done; a line per thing in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bars.add_task("", total=1.0)
        self._last = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def at(self, name: str, share: float) -> None:
        """This begins now, with so much done."""
        if self._console.is_terminal:
            self._bars.update(self._task, description=escape(name), completed=share)
        elif name != self._last:
            self._console.print(f"… {name}", markup=False, highlight=False)
        self._last = name


def show_night(console: Console, night: Night) -> None:
    """The headline, the reasons and the policies."""
    colour = {"published": "green", "refused": "red", "nothing_to_do": "cyan"}[night.result]
    simulated = " (simulated data)" if night.data.simulated else ""
    console.print(f"[bold {colour}]{escape(headline(night))}[/]{simulated}", highlight=False)
    for reason in night.reasons[1:] if night.result != "published" else night.reasons:
        console.print(f"  · {reason}", markup=False, highlight=False)
    for what, count in night.data.skipped.items():
        console.print(f"  · left out: {count:,} {what}", markup=False, highlight=False)
    if night.evaluation is not None and night.evaluation.results:
        table = Table("policy", "good replies", "cost per 1,000", "n", box=None, pad_edge=False)
        for each in night.evaluation.results:
            table.add_row(
                escape(each.name), _range(each.quality), _range(each.cost_usd, money=True), f"{each.support:,}"
            )
        console.print(table)
    show_certificates(console, night.certificates)
    if night.recertified:
        console.print(f"certified anew: {escape(night.recertified)} serves", highlight=False)


def show_certificates(console: Console, certificates: Mapping[str, Certificate]) -> None:
    """A line for every workload, tier and threshold, in words where there is none."""
    if not certificates:
        return
    right = ("allowed", "confidence", "judged", "bad", "bound")
    table = Table("workload", "tier", "for", "P(good) from", *right, "finding", box=None, pad_edge=False)
    for column in table.columns[4:9]:
        column.justify = "right"
    for workload, tier, use, own, threshold in rows_of(certificates):
        table.add_row(
            escape(workload),
            escape(tier),
            use,
            f"{threshold.value:.2f}" if threshold.state is State.CERTIFIED else "–",
            f"{own.false_accept_max:.2%}",
            f"{certificates[workload].confidence:.1%}",
            f"{threshold.n:,}",
            f"{threshold.bad:,}",
            f"{threshold.bound:.2%}",
            finding(threshold),
        )
    console.print(table)


def show_models(console: Console, entries: Sequence[Entry], lineage: Sequence[str]) -> None:
    """Every version, newest first; the current one marked."""
    if not entries:
        console.print("no versions: the service runs on its static plans")
        return
    table = Table(
        "",
        Column("version", no_wrap=True, min_width=20),
        Column("trained (UTC)", no_wrap=True),
        "instead of",
        Column("gate", no_wrap=True),
        "quality",
        "cost per 1,000",
        box=None,
        pad_edge=False,
    )
    for entry in reversed(entries):
        place = lineage.index(entry.version) if entry.version in lineage else -1
        mark = "→" if place == 0 else ""
        state = "passed, serves" if place == 0 else f"passed, {place} back" if place > 0 else "passed, withdrawn"
        quality, cost = (entry.metrics.get(name, math.nan) for name in ("quality", "cost_usd"))
        table.add_row(
            mark,
            escape(entry.version),
            datetime.fromtimestamp(entry.created_at_s, UTC).strftime("%Y-%m-%d %H:%M"),
            escape(entry.champion) or "static plans",
            state,
            f"{quality:.1%}",
            f"${cost * 1000:,.3f}",
            style="bold" if place == 0 else None,
        )
    console.print(table)


def _range(figure: Figure, *, money: bool = False) -> str:
    if not math.isfinite(figure.value):
        return "not measured"
    value, low, high = (f"${x * 1000:,.3f}" if money else f"{x:.1%}" for x in (figure.value, figure.low, figure.high))
    return escape(f"{value} [{low}, {high}]")
