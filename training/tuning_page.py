"""A frontier as one HTML file that needs nothing else, drawn like the nightly report's plots."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from training import plots
from training.results import Evaluation, Kind, PolicyResult
from training.tuning import Frontier, Point, PointKind

_KIND: dict[PointKind, Kind] = {
    "knob": "oracle",
    "current": "champion",
    "certified": "challenger",
    "constant": "constant",
    "served": "logged",
}


def render(frontier: Frontier, diff: str) -> str:
    """The page's HTML; `diff` is the proposed change, empty for none."""
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(range=_range, money=_money)
    results = tuple(_result(each) for each in frontier.points)
    drawn = plots.frontier(Evaluation(frontier.n, frontier.n, results, (), (), ()), frontier.target)
    # Safe: drawn by matplotlib, which escapes the text in it.
    return environment.get_template("tune.html").render(frontier=frontier, diff=diff, plot=Markup(drawn))  # noqa: S704


def write_page(frontier: Frontier, diff: str, path: Path) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(render(frontier, diff), encoding="utf-8")
    fresh.replace(path)


def _result(point: Point) -> PolicyResult:
    name = "" if point.kind == "knob" else point.name
    return PolicyResult(
        name, _KIND[point.kind], point.quality, point.cost_usd, point.quality, point.cost_usd, 0, 0.0, 0.0
    )


def _range(point: Point) -> str:
    return f"{point.quality.value:.1%} [{point.quality.low:.1%}, {point.quality.high:.1%}]"


def _money(point: Point) -> str:
    cost = point.cost_usd
    return f"${cost.value * 1000:,.3f} [${cost.low * 1000:,.3f}, ${cost.high * 1000:,.3f}]"
