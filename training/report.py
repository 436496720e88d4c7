"""A night as one HTML file that needs nothing else: no script, no font, no request to anywhere.

Everything shown comes from a `Night`; every string in it is escaped by the template.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from router.certificate import finding, rows_of
from training import plots
from training.results import Evaluation, Figure, Night, PolicyResult


def render(night: Night) -> str:
    """The report's HTML."""
    environment = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=_percent, money=_money, points=_points, when=_when, count=lambda n: f"{n:,}", finding=finding
    )
    evaluation = night.evaluation
    return environment.get_template("report.html").render(
        night=night,
        data=night.data,
        evaluation=evaluation,
        headline=headline(night),
        summary=_summary(night),
        tiles=_tiles(night),
        thresholds=_thresholds(night),
        certificates=rows_of(night.certificates),
        # Safe: drawn by matplotlib, which escapes the text in it.
        frontier=Markup(plots.frontier(evaluation, night.target) if evaluation else ""),  # noqa: S704
        calibration=Markup(plots.calibration(evaluation.calibration) if evaluation else ""),  # noqa: S704
        escalation=Markup(plots.escalation(evaluation.escalation) if evaluation else ""),  # noqa: S704
    )


def write_report(night: Night, path: Path) -> None:
    """Write the report, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(render(night), encoding="utf-8")
    fresh.replace(path)


def headline(night: Night) -> str:
    """What happened, in one sentence."""
    match night.result:
        case "nothing_to_do":
            return f"Nothing to do: {night.reasons[0] if night.reasons else 'no new outcomes'}."
        case "refused":
            stays = f"{night.champion} stays" if night.champion else "the static plans stay"
            return f"Refused, {stays}: {night.reasons[0] if night.reasons else 'the gate did not pass'}."
        case "published":
            instead = f" in place of {night.champion}" if night.champion else ", the first model"
            return f"Published {night.version}{instead}{_gain(night.evaluation)}."


def _gain(evaluation: Evaluation | None) -> str:
    best = _best_constant(evaluation)
    if evaluation is None or best is None:
        return ""
    versus = next((each for each in evaluation.differences if each.versus == best.name), None)
    if versus is None or best.cost_usd.value <= 0:
        return ""
    cost, quality = versus.cost_usd, versus.quality
    low, high = -cost.high / best.cost_usd.value, -cost.low / best.cost_usd.value
    return (
        f": {-cost.value / best.cost_usd.value:.0%} [{low:.0%}, {high:.0%}] cheaper than {best.name}, the best "
        f"constant tier, with {100 * quality.value:+.1f} [{100 * quality.low:+.1f}, {100 * quality.high:+.1f}] "
        "points of quality"
    )


def _summary(night: Night) -> str:
    data = night.data
    return (
        f"{data.requests:,} requests of {_when(data.first_request_s)} to {_when(data.last_request_s)} UTC, "
        f"{data.labelled:,} of them labelled; learnt from the older {data.held_in:,}, judged on the newest "
        f"{data.held_out:,}."
        if data.requests
        else "There were no outcomes to learn from."
    )


def _tiles(night: Night) -> list[tuple[str, str, str]]:
    """(name, value, note) of the figures that matter most."""
    evaluation = night.evaluation
    if evaluation is None or not evaluation.of("challenger"):
        return []
    challenger = evaluation.of("challenger")[0]
    tiles = [
        ("Quality", _percent(challenger.quality.value), f"{_percent_range(challenger.quality)} of replies good"),
        ("Cost per 1,000", _money(challenger.cost_usd.value), _money_range(challenger.cost_usd)),
    ]
    best = _best_constant(evaluation)
    for each in evaluation.differences:
        if (best and each.versus == best.name) or each.kind in ("champion", "logged"):
            base = next(result for result in evaluation.results if result.name == each.versus)
            share = each.cost_usd.value / base.cost_usd.value if base.cost_usd.value else math.nan
            points = f"{100 * each.quality.value:+.1f} points of quality"
            tiles.append((f"Cost against {each.versus}", _percent(share, signed=True), points))
    return tiles


def _best_constant(evaluation: Evaluation | None) -> PolicyResult | None:
    constants = [each for each in evaluation.of("constant") if math.isfinite(each.quality.value)] if evaluation else []
    return max(constants, key=lambda each: each.quality.value, default=None)


def _thresholds(night: Night) -> list[tuple[str, float | None, float | None]]:
    names = sorted({*night.thresholds, *night.champion_thresholds})
    return [(name, night.champion_thresholds.get(name), night.thresholds.get(name)) for name in names]


# --- words for numbers -----------------------------------------------------------------------


def _percent(value: float | None, *, signed: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return "not measured"
    return f"{value:+.1%}" if signed else f"{value:.1%}"


def _percent_range(figure: Figure) -> str:
    return f"[{_percent(figure.low)}, {_percent(figure.high)}]"


def _money(value: float) -> str:
    """Dollars per request as dollars per 1,000."""
    return f"{'-' if value < 0 else ''}${abs(value) * 1000:,.3f}" if math.isfinite(value) else "not measured"


def _money_range(figure: Figure) -> str:
    return f"[{_money(figure.low)}, {_money(figure.high)}]"


def _points(value: float) -> str:
    """A difference of shares in percentage points."""
    return f"{100 * value:+.1f}" if math.isfinite(value) else "not measured"


def _when(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%d %H:%M")
