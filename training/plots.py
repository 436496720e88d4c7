"""The report's plots: numbers in, inline SVG out.

Colours are the page's CSS variables, so that a plot follows the page into dark mode: matplotlib draws
with stand-in colours (`_INK` …) that are replaced in its SVG. Text stays text, is never read as
mathematics, and comes out escaped. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, NullFormatter

from training.results import Calibration, Escalation, Evaluation, Kind, PolicyResult

_INK, _MUTED, _RULE, _CHALLENGER, _CHAMPION, _PAGE = (f"#01010{i}" for i in range(1, 7))
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _RULE: "--rule",
    _CHALLENGER: "--challenger",
    _CHAMPION: "--champion",
    _PAGE: "--page",
}
_STYLE: dict[Kind, tuple[str, str]] = {  # colour, marker
    "challenger": (_CHALLENGER, "o"),
    "champion": (_CHAMPION, "D"),
    "logged": (_INK, "s"),
    "constant": (_MUTED, "o"),
    "shuffle": (_MUTED, "X"),
    "oracle": (_MUTED, "*"),
}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
}


def frontier(evaluation: Evaluation, target: float) -> str:
    """Cost against quality of every policy with 95 % intervals; empty when there is nothing to draw."""
    shown = [each for each in evaluation.results if each.cost_usd.value > 0 and math.isfinite(each.quality.value)]
    if not shown:
        return ""
    with mpl.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(10.6, 5.4), layout="constrained")
        axes = canvas.subplots()
        axes.set_xscale("log")
        for each in shown:
            _point(axes, each)
        constants = [each.quality.value for each in shown if each.kind == "constant"]
        if constants:
            floor = target * max(constants)
            axes.axhline(floor, color=_MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
            axes.text(
                0.995, floor, f"target {floor:.1%}", transform=axes.get_yaxis_transform(),
                ha="right", va="bottom", color=_MUTED, fontsize=11,
            )  # fmt: skip
        costs = [each.cost_usd.value * 1000 for each in shown]
        axes.set_xlim(min(costs) * 0.6, max(costs) * 2.1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlabel("cost per 1,000 requests, US dollars (log scale)")
        axes.set_ylabel("share of good replies")
        _labels(canvas, axes, shown)
        return _svg(canvas, "frontier")


def calibration(tiers: Sequence[Calibration]) -> str:
    """A reliability curve per tier, side by side; empty without any."""
    if not tiers:
        return ""
    with mpl.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(3.6 * len(tiers) + 0.4, 3.9), layout="constrained")
        for i, each in enumerate(tiers):
            axes = canvas.add_subplot(1, len(tiers), i + 1)
            axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (5, 4)))
            predicted, good = [b.predicted for b in each.bins], [b.good for b in each.bins]
            spread = [
                [max(0.0, b.good - b.low) for b in each.bins],
                [max(0.0, b.high - b.good) for b in each.bins],
            ]
            axes.errorbar(predicted, good, yerr=spread, color=_CHALLENGER, linewidth=2, marker="o", markersize=6,
                          elinewidth=1.2, capsize=0)  # fmt: skip
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="predicted P(good)")
            axes.set_title(f"{each.tier}  (n = {each.n:,})", fontsize=12, loc="left")
            if i == 0:
                axes.set_ylabel("share that was good")
        return _svg(canvas, "calibration")


def escalation(workloads: Sequence[Escalation], most: int = 30) -> str:
    """Share of rejected first replies by workload and start tier, with the break-even line; the `most` busiest."""
    shown = sorted(workloads, key=lambda each: -each.n)[:most]
    shown.sort(key=lambda each: each.rate)
    if not shown:
        return ""
    with mpl.rc_context(_SETTINGS):
        canvas = Canvas(figsize=(10.6, 1.1 + 0.36 * len(shown)), layout="constrained")
        axes = canvas.subplots()
        for y, each in enumerate(shown):
            axes.plot([each.low, each.high], [y, y], color=_CHALLENGER, linewidth=2, solid_capstyle="round")
            axes.plot([each.rate], [y], color=_CHALLENGER, marker="o", markersize=8)
            if each.break_even is not None:
                axes.plot([each.break_even], [y], color=_INK, marker="|", markersize=16, markeredgewidth=2)
        axes.set_yticks(range(len(shown)), [f"{each.workload} from {each.start}" for each in shown])
        axes.tick_params(axis="y", labelcolor=_INK, length=0)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.7, len(shown) - 0.3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.set_xlabel("first reply rejected (dot, 95 % interval); bar: break-even, above which starting higher pays")
        axes.grid(axis="y", visible=False)
        return _svg(canvas, "escalation")


def _point(axes: Axes, each: PolicyResult) -> None:
    colour, marker = _STYLE[each.kind]
    x, y = each.cost_usd.value * 1000, each.quality.value
    loud = each.kind in ("challenger", "champion")
    axes.errorbar(
        [x],
        [y],
        xerr=[[max(0.0, x - each.cost_usd.low * 1000)], [max(0.0, each.cost_usd.high * 1000 - x)]],
        yerr=[[max(0.0, y - each.quality.low)], [max(0.0, each.quality.high - y)]],
        color=colour,
        marker=marker,
        markersize=13 if marker == "*" else 10 if loud else 8,
        markeredgecolor=_PAGE,
        markeredgewidth=1.5,
        elinewidth=1.6 if loud else 1.0,
        zorder=4 if loud else 3,
    )


def _labels(canvas: Canvas, axes: Axes, shown: Sequence[PolicyResult]) -> None:
    """Names right of their points, pushed down where one would cover another."""
    canvas.draw_without_rendering()
    taken: list[tuple[float, float, float, float]] = []  # left, right, bottom, top in points
    scale = 72 / canvas.dpi
    for each in sorted(shown, key=lambda one: -one.quality.value):
        x, y = axes.transData.transform((each.cost_usd.value * 1000, each.quality.value)) * scale
        width, height = 6.6 * len(each.name), 15.0
        left, bottom = x + 11, y + 5
        while any(left < r and left + width > l and bottom < t and bottom + height > b for l, r, b, t in taken):
            bottom -= 4
        taken.append((left, left + width, bottom, bottom + height))
        loud = each.kind in ("challenger", "champion")
        axes.annotate(
            each.name, (each.cost_usd.value * 1000, each.quality.value), xytext=(11, bottom - y),
            textcoords="offset points", color=_STYLE[each.kind][0] if loud else _INK,
            fontweight="bold" if loud else "normal", zorder=5,
        )  # fmt: skip


def _svg(canvas: Canvas, name: str) -> str:
    """The drawing as an <svg> element: no prologue, no metadata, ids of its own, the page's colours."""
    buffer = io.StringIO()
    empty = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with mpl.rc_context({"svg.hashsalt": name}):
        canvas.savefig(buffer, format="svg", metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    return re.sub(
        r"<svg[^>]*viewBox=\"([^\"]*)\"[^>]*>", rf'<svg viewBox="\1" role="img" class="plot {name}">', text, count=1
    )
