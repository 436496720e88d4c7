"""The cost–quality frontier of one workload, and the configuration change that a point on it comes to.

Two sources. *The log*: the serving model decides the requests that it was not fitted on, once for each cost of a
mistake on a grid, and is judged by the estimators of the nightly evaluation. *A recorded file*: the benchmark's policy,
cross-validated, once for each quality target. Every point has its 95 % interval; nothing here changes anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fallback.economics import PriceBook
from router.certificate import Certificate, Promise
from training.benchmark.policy import learn, replay
from training.benchmark.recorded import TIERS, Recorded, read_recorded
from training.certify import certify
from training.dataset import Dataset
from training.evaluate import logged_terms, terms
from training.evidence import certify_policy
from training.fit import fit_router, folds
from training.follow import Constant, Means, Policy
from training.offpolicy import Terms as Measured
from training.offpolicy import figure, resample
from training.results import Figure
from training.served import Served, Terms

Array = NDArray[np.float64]
PointKind = Literal["knob", "current", "certified", "constant", "served"]

_KNOBS = np.geomspace(0.5, 80.0, 12)  # times the best tier's cost per reply
_TARGETS = (0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 1.0)
_FOLDS = 5
_RESAMPLES = 1_000
MIN_REQUESTS = 100


class CannotTune(Exception):
    """There is too little to draw a frontier from; the message says what."""


@dataclass(frozen=True, slots=True)
class Point:
    """One policy: share of good replies and US dollars per request. `mistake_cost_usd` makes it, where one does."""

    name: str
    kind: PointKind
    quality: Figure
    cost_usd: Figure
    mistake_cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Frontier:
    """All points of a workload, from n requests; `chosen` is the knob to propose, None where none does."""

    workload: str
    source: str
    n: int
    target: float
    points: tuple[Point, ...]
    chosen: Point | None
    notes: tuple[str, ...] = ()


def choose(points: Sequence[Point], target: float) -> Point | None:
    """The cheapest knob whose quality is the given share of the best constant tier's."""
    best = max((each.quality.value for each in points if each.kind == "constant"), default=1.0)
    enough = [each for each in points if each.kind == "knob" and each.quality.value >= target * best - 1e-12]
    return min(enough, key=lambda each: each.cost_usd.value, default=None)


# --- from the log ----------------------------------------------------------------------------


def from_log(policy: Served, data: Dataset, workload: str, own: Terms, *, target: float, seed: int = 0) -> Frontier:
    """What the serving model would come to at each knob. `own` is the workload's configuration. CannotTune."""
    until = policy.model.fitted_until
    rows = [row for row in data.rows if row.workload == workload and row.request_id > until]
    if len(rows) < MIN_REQUESTS:
        raise CannotTune(
            f"{workload}: {len(rows)} requests since the model was fitted; {MIN_REQUESTS} are needed to draw from"
        )
    means, beliefs = Means(data.rows), [policy.probabilities(row) for row in rows]

    def measured(each: Policy) -> Measured:
        return terms(each, [{each.plan(row): 1.0} for row in rows], rows, means, beliefs)

    def at(knob: float | None, certificates: Mapping[str, Certificate]) -> Served:
        mistake_usd = own.mistake_cost_usd if knob is None else knob
        model = replace(policy.model, certificates=certificates)
        return Served(model, lambda _: replace(own, mistake_cost_usd=mistake_usd), means)

    found: dict[str, tuple[PointKind, Measured, float | None]] = {"as served": ("served", logged_terms(rows), None)}
    for tier in own.allowed:
        if any(step.tier == tier for row in rows for step in row.steps):
            found[f"always {tier}"] = ("constant", measured(Constant(tier)), None)
    unit_usd = max(policy.expected_cost_usd(rows, tier) for tier in own.allowed)
    for knob in (unit_usd * _KNOBS).tolist():
        found[f"${knob:.4g} a mistake"] = ("knob", measured(at(knob, {})), knob)
    current = {name: each for name, each in policy.model.certificates.items() if name == workload}
    found["current"] = ("current", measured(at(None, current)), own.mistake_cost_usd)
    notes = []
    if own.promise.made:
        plain = at(None, {})
        certificates = certify_policy(plain, rows, lambda _: own.promise, seed=seed)
        found["certified"] = ("certified", measured(at(None, certificates)), own.mistake_cost_usd)
    else:
        notes.append("no certified point: the workload has no false_accept_max")
    estimates = resample({name: each for name, (_, each, _) in found.items()}, seed=seed)
    points = tuple(
        Point(
            name,
            kind,
            figure(estimates[name].quality, within=(0.0, 1.0)),
            figure(estimates[name].cost, within=(0.0, np.inf)),
            knob,
        )
        for name, (kind, _, knob) in found.items()
    )
    return Frontier(workload, "log", len(rows), target, points, choose(points, target), tuple(notes))


# --- from a recorded file --------------------------------------------------------------------


def from_recorded(
    path: Path,
    generation: str,
    workload: str,
    prices: PriceBook,
    promise: Promise,
    *,
    target: float,
    seed: int = 0,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> Frontier:
    """The benchmark's policy on one workload's prompts, learned from all workloads' others. CannotTune."""
    recorded = read_recorded(path, generation, prices, second_samples=False)
    mine = np.flatnonzero(recorded.data.workloads == workload)
    if len(mine) < MIN_REQUESTS:
        names = ", ".join(sorted(set(recorded.data.workloads.tolist())))
        raise CannotTune(f"{workload}: {len(mine)} prompts, {MIN_REQUESTS} are needed; the file has {names}")
    good = {each: np.zeros(len(recorded)) for each in _TARGETS}
    cost = {each: np.zeros(len(recorded)) for each in _TARGETS}
    knobs: dict[float, list[float]] = {each: [] for each in _TARGETS}
    score = np.full(len(recorded), np.nan)
    for number, (inside, outside) in enumerate(folds(recorded.data, seed, _FOLDS)):
        progress(f"part {number + 1} of {_FOLDS}", number / _FOLDS)
        learned, test = learn(recorded.take(inside), _TARGETS, seed=seed + number), recorded.take(outside)
        for each in _TARGETS:
            played = replay(learned, test, each)
            good[each][outside], cost[each][outside] = played.good, played.cost_usd
            knobs[each] += [knob] if (knob := learned.knobs[each]) is not None else []
    points = [
        _point(f"{each:.0%} of the best", "knob", good[each][mine], cost[each][mine], seed, _middle(knobs[each]))
        for each in _TARGETS
    ]
    points += [
        _point(f"always {tier}", "constant", recorded.correct(tier)[mine], recorded.costs_usd[tier][mine], seed)
        for tier in TIERS
    ]
    notes = ["no current point: a recorded file was served by nobody"]
    if promise.made:
        progress("certify", 0.9)
        fitted = fit_router(recorded.data, version="tune", states=[(), (TIERS[0],)], seed=seed)
        score = fitted.beliefs[TIERS[0],][:, 0]
        points.append(_certified(score[mine], recorded.take(mine), promise, seed))
    else:
        notes.append("no certified point: the workload has no false_accept_max")
    return Frontier(
        workload, f"{path.name}, {generation}", len(mine), target, tuple(points), choose(points, target), tuple(notes)
    )


def _certified(score: Array, recorded: Recorded, promise: Promise, seed: int) -> Point:
    """The first tier's answer from its certified threshold on, else the next tier's; shown on the other half."""
    rng = np.random.default_rng(seed)
    half = rng.random(len(score)) < 0.5
    low, high = TIERS[0], TIERS[1]
    alpha = promise.alpha(float(recorded.costs_usd[high].mean()))
    bad = 1.0 - recorded.correct(low)
    known = np.isfinite(score)
    on, off = half & known, ~half
    found = certify(score[on], bad[on], np.ones(int(on.sum())), alpha=alpha, delta=1 - promise.confidence, seed=seed)
    kept = np.nan_to_num(score[off], nan=-1.0) >= found.at_least
    good = np.where(kept, recorded.correct(low)[off], recorded.correct(high)[off])
    cost = recorded.costs_usd[low][off] + np.where(kept, 0.0, recorded.costs_usd[high][off])
    if not kept.any():
        cost = recorded.costs_usd[high][off]
    return _point(f"certified: {low} {found.state.replace('_', ' ')}", "certified", good, cost, seed)


def _point(name: str, kind: PointKind, good: Array, cost: Array, seed: int, knob: float | None = None) -> Point:
    """With percentile bootstrap intervals over prompts."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(good), size=(_RESAMPLES, len(good)))
    return Point(
        name,
        kind,
        figure(np.concatenate([[good.mean()], good[rows].mean(axis=1)]), within=(0.0, 1.0)),
        figure(np.concatenate([[cost.mean()], cost[rows].mean(axis=1)]), within=(0.0, np.inf)),
        knob,
    )


def _middle(knobs: Sequence[float]) -> float | None:
    return float(np.median(knobs)) if knobs else None


# --- the change ------------------------------------------------------------------------------


def changed(text: str, workload: str, mistake_cost_usd: float) -> str:
    """A configuration file's text with the workload's `mistake_cost_usd` set, everything else as it is."""
    lines = text.splitlines()
    setting = f"mistake_cost_usd = {mistake_cost_usd:.6g}"
    header = re.compile(rf'\s*\[\s*workloads\s*\.\s*"?{re.escape(workload)}"?\s*\]')
    start = next((i for i, line in enumerate(lines) if header.match(line)), None)
    if start is None:
        gap = [""] if lines and lines[-1].strip() else []
        return "\n".join([*lines, *gap, f"[workloads.{workload}]", setting]) + "\n"
    for i in range(start + 1, len(lines)):
        if re.match(r"\s*mistake_cost_usd\s*=", lines[i]):
            lines[i] = setting
            break
        if re.match(r"\s*\[", lines[i]):
            lines.insert(start + 1, setting)
            break
    else:
        lines.insert(start + 1, setting)
    return "\n".join(lines) + "\n"


def patch(before: str, after: str, name: str) -> str:
    """A unified diff, as `patch -p1` and `git apply` take it; empty where nothing changes."""
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
        )
    )
