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
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

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
_TOP = 1.03  # where the stretched quality axis would reach infinity
_QUALITY_TICKS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0)
_SETTINGS: Any = {
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
        for each in shown:
            _point(axes, each)
        _scales(axes, shown)
        constants = [each.quality.value for each in shown if each.kind == "constant"]
        if constants:
            floor = target * max(constants)
            axes.axhline(floor, color=_MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
            at_left: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "left", "va": "bottom"}
            axes.text(0.005, floor, f"target {floor:.1%}", color=_MUTED, fontsize=11, **at_left)
        _labels(canvas, axes, shown, floor=target * max(constants) if constants else None)
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
            axes.errorbar(predicted, good, yerr=spread, color=_CHALLENGER, linestyle="none", marker="o",
                          markersize=7, elinewidth=1.4)  # fmt: skip
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
        markersize={"*": 17, "X": 11}.get(marker, 10 if loud else 8),
        markeredgecolor=_PAGE,
        markeredgewidth=1.5,
        elinewidth=1.6 if loud else 1.0,
        zorder=4 if loud else 3,
    )


def _scales(axes: Axes, shown: Sequence[PolicyResult]) -> None:
    """Cost on a log scale; quality stretched towards 100 %, where the policies that matter lie close together."""
    costs = [each.cost_usd.value * 1000 for each in shown]
    axes.set_xscale("log")
    axes.set_xlim(min(costs) * 0.6, max(costs) * 2.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"${value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("cost per 1,000 requests, US dollars (log scale)")
    axes.set_yscale("function", functions=(lambda y: -np.log(_TOP - np.minimum(y, 1.02)), lambda z: _TOP - np.exp(-z)))
    worst = min(each.quality.low for each in shown)
    ticks = [tick for tick in _QUALITY_TICKS if tick >= worst - 0.1]
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_ylim(max(0.0, worst - 0.05), 1.006)
    axes.set_ylabel("share of good replies (stretched towards 100%)")


def _labels(canvas: Canvas, axes: Axes, shown: Sequence[PolicyResult], *, floor: float | None) -> None:
    """Names beside their points, each at the first place where it covers nothing."""
    canvas.draw_without_rendering()
    scale = 72 / canvas.dpi

    def at(cost_usd: float, quality: float) -> tuple[float, float]:
        x, y = axes.transData.transform((max(cost_usd, 1e-9) * 1000, quality)) * scale
        return float(x), float(y)

    taken: list[tuple[float, float, float, float]] = []  # left, right, bottom, top in points
    for each in shown:
        x, y = at(each.cost_usd.value, each.quality.value)
        left, right = at(each.cost_usd.low, each.quality.value)[0], at(each.cost_usd.high, each.quality.value)[0]
        bottom, top = at(each.cost_usd.value, each.quality.low)[1], at(each.cost_usd.value, each.quality.high)[1]
        taken += [(left, right, y - 2, y + 2), (x - 2, x + 2, bottom, top), (x - 6, x + 6, y - 6, y + 6)]
    if floor is not None:
        line = at(shown[0].cost_usd.value, floor)[1]
        taken.append((-np.inf, np.inf, line - 1, line + 1))
    for each in sorted(shown, key=lambda one: _STYLE[one.kind][0] not in (_CHALLENGER, _CHAMPION)):
        x, y = at(each.cost_usd.value, each.quality.value)
        width, height = 6.8 * len(each.name), 14.0
        for dy in (5, -19, 14, -28, 23, -37, 32, -46):
            places = [
                (x + 11, x + 11 + width, y + dy, y + dy + height),
                (x - 11 - width, x - 11, y + dy, y + dy + height),
            ]
            free = [place for place in places if not any(_overlap(place, other) for other in taken)]
            if free:
                break
        place = (free or places)[0]
        taken.append(place)
        loud = each.kind in ("challenger", "champion")
        axes.annotate(
            each.name, (each.cost_usd.value * 1000, each.quality.value), xytext=(place[0] - x, place[2] - y),
            textcoords="offset points", color=_STYLE[each.kind][0] if loud else _INK,
            fontweight="bold" if loud else "normal", zorder=5, annotation_clip=False,
        )  # fmt: skip


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and a[1] > b[0] and a[2] < b[3] and a[3] > b[2]


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
