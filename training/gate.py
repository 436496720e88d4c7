"""May the challenger serve? Pure: an evaluation in, `Passed` or `Refused` with reasons in words out.

It is refused
- with fewer than 500 labelled held-in requests, or labels of one class only, or nothing held out;
- when its quality misses the target, the given share of the best constant tier's, by more than one
  standard error of their difference;
- when a constant tier is shown to do as well: it reaches the target too, and the challenger is not cheaper
  by more than one standard error. A tier known from fewer than 30 effective requests shows nothing either
  way, and the gate says so;
- when it is not better than the incumbent (the champion, or before the first model the plan that was
  served): worse in quality by more than one standard error; or neither better nor cheaper by more than
  1.64 of them (5 % each by chance, so that an equal one hardly ever replaces it);
- when a tier's share of good labels has moved by more than 15 points and three standard errors since
  the champion was trained: somebody should look at the feedback first.

A difference in quality below a quarter of a point counts as none, however exactly it is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from training.results import Data, Difference, Evaluation, Kind, PolicyResult

MIN_LABELLED = 500
MIN_EFFECTIVE = 30.0  # requests worth of evidence on a constant tier
MAX_LABEL_DRIFT = 0.15
NEGLIGIBLE = 0.0025
_SHOWN = 1.64  # standard errors


@dataclass(frozen=True, slots=True)
class Passed:
    """It may; `reasons` say what it was found better than."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not; every reason that was found."""

    reasons: tuple[str, ...]


Verdict = Passed | Refused


def enough_data(data: Data) -> Verdict:
    """Whether fitting makes sense at all; asked before it."""
    reasons = []
    if data.held_in_labelled < MIN_LABELLED:
        reasons.append(
            f"too little data: {data.held_in_labelled:,} labelled requests to learn from, {MIN_LABELLED} are needed"
        )
    classes = {name.split()[-1] for counts in data.labels.values() for name, n in counts.items() if n}
    if len(classes) == 1:
        reasons.append(f"one class: every label is {classes.pop()}, so there is nothing to tell apart")
    if data.held_out == 0:
        reasons.append("no requests are held out to judge the model on")
    return Refused(tuple(reasons)) if reasons else Passed(())


def judge(
    evaluation: Evaluation, data: Data, *, target: float, champion_good_share: Mapping[str, float] | None = None
) -> Verdict:
    """The whole gate. `target` is a share of the best constant tier's quality; `champion_good_share` by tier."""
    early = enough_data(data)
    if isinstance(early, Refused):
        return early
    reasons: list[str] = []
    praise: list[str] = []
    versus = {difference.versus: difference for difference in evaluation.differences}
    challenger = evaluation.of("challenger")[0]
    if not _known(challenger.quality.value) or not _known(challenger.cost_usd.value):
        return Refused(("the challenger's quality or cost could not be measured on the held-out requests",))
    _against_constants(challenger, evaluation, versus, target, reasons, praise)
    kind: Kind = "champion" if evaluation.of("champion") else "logged"
    for incumbent in evaluation.of(kind):
        _against_incumbent(incumbent, versus[incumbent.name], reasons, praise)
    reasons += _label_drift(data, champion_good_share or {})
    return Refused(tuple(reasons)) if reasons else Passed(tuple(praise))


def _against_constants(
    challenger: PolicyResult,
    evaluation: Evaluation,
    versus: Mapping[str, Difference],
    target: float,
    reasons: list[str],
    praise: list[str],
) -> None:
    constants = [each for each in evaluation.of("constant") if _known(each.quality.value)]
    if not constants:
        reasons.append("no constant tier could be measured to compare with")
        return
    best = max(constants, key=lambda each: each.quality.value)
    floor = target * best.quality.value
    slack = max(_sigma(versus[best.name].quality.sigma), NEGLIGIBLE)
    if challenger.quality.value < floor - slack:
        reasons.append(
            f"quality {challenger.quality.value:.1%} misses the target of {floor:.1%} "
            f"({target:.0%} of {best.name}'s {best.quality.value:.1%}) by more than one standard error ({slack:.1%})"
        )
    for constant in constants:
        difference = versus[constant.name].cost_usd
        saved = -difference.value
        if constant.effective < MIN_EFFECTIVE:
            praise.append(
                f"{constant.name} is known too little to compare with: {constant.effective:.0f} effective requests, "
                f"{MIN_EFFECTIVE:.0f} are needed"
            )
        elif constant.quality.value < floor:
            praise.append(f"{constant.name} misses the target quality ({constant.quality.value:.1%} < {floor:.1%})")
        elif saved <= _sigma(difference.sigma):
            reasons.append(
                f"not better than {constant.name}, which reaches the target quality "
                f"({constant.quality.value:.1%}) and costs {_money(constant)} against {_money(challenger)}"
            )
        else:
            praise.append(f"saves {saved / constant.cost_usd.value:.0%} against {constant.name} at the target quality")


def _against_incumbent(incumbent: PolicyResult, difference: Difference, reasons: list[str], praise: list[str]) -> None:
    name = "the champion" if incumbent.kind == "champion" else "what was served"
    quality, cost = difference.quality, difference.cost_usd
    slack = max(_sigma(quality.sigma), NEGLIGIBLE)
    better = quality.value > max(_SHOWN * _sigma(quality.sigma), NEGLIGIBLE)
    cheaper = -cost.value > _SHOWN * _sigma(cost.sigma)
    if quality.value < -slack:
        reasons.append(
            f"worse than {name}: quality {100 * quality.value:+.1f} points, "
            f"more than one standard error ({100 * slack:.1f})"
        )
    elif better:
        praise.append(f"better than {name}: quality {100 * quality.value:+.1f} points")
    elif cheaper:
        praise.append(f"costs {-cost.value / incumbent.cost_usd.value:.0%} less than {name} at no lower quality")
    else:
        share = 100 / max(incumbent.cost_usd.value, 1e-12)
        reasons.append(
            f"not better than {name}: quality {100 * quality.value:+.1f} points (standard error "
            f"{100 * _sigma(quality.sigma):.1f}), cost {share * cost.value:+.1f} % "
            f"({share * _sigma(cost.sigma):.1f}), so it is not shown to be better or cheaper"
        )


def _label_drift(data: Data, before: Mapping[str, float]) -> list[str]:
    reasons = []
    for tier, share in data.good_share.items():
        n = sum(data.labels.get(tier, {}).values())
        if tier not in before or n == 0:
            continue
        moved = share - before[tier]
        noise = 3 * math.sqrt(max(before[tier] * (1 - before[tier]), 1e-4) / n)
        if abs(moved) > max(MAX_LABEL_DRIFT, noise):
            reasons.append(
                f"the share of {tier}'s replies labelled good moved from {before[tier]:.0%} to {share:.0%} since the "
                "champion was trained; look at the feedback before a model learns from it"
            )
    return reasons


def _money(result: PolicyResult) -> str:
    return f"${result.cost_usd.value * 1000:.3f} per 1,000 requests"


def _sigma(value: float) -> float:
    return value if _known(value) else 0.0


def _known(value: float) -> bool:
    return math.isfinite(value)
