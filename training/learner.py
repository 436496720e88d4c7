"""From outcomes to a model file: training matrices, the fit, the knob, and reading a model back.

The knob is the cost of a mistake: the higher, the better and dearer the policy. For each quality target
the least one is chosen that reaches it on held-in requests, with beliefs that the fit held out and the
estimators of `training.offpolicy`; quality and cost are made to rise with the knob (isotonic regression),
because each estimate by itself is noisy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as installed
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from router.features import DENSE_NAMES, FEATURES_VERSION, Features
from router.model import ModelError, load_model
from router.reply_features import REPLY_FEATURES_VERSION, REPLY_NAMES
from training.artifacts import save_model
from training.dataset import Dataset
from training.evaluate import terms
from training.fit import Fitted, TooLittleData, fit_router
from training.follow import Constant, Means, Plan, Policy
from training.heads import TrainingSet, Vectors
from training.nightly import CannotFit
from training.offpolicy import point
from training.rows import Row
from training.served import HeldOut, Served, Terms

Array = NDArray[np.float64]

TARGETS = (0.95, 0.97, 0.99, 1.0)
_KNOBS = np.geomspace(0.3, 80.0, 16)  # times the best tier's cost per reply
_TUNING_ROWS = 2_000
_PRIOR_ROWS = 10
_MIN_GROUPS = 50


class OutcomeLearner:
    """Meets `training.nightly.Learner`. `workload_terms` gives what the service's configuration says of a workload."""

    def __init__(self, workload_terms: Callable[[str], Terms]) -> None:
        self._terms = workload_terms

    @property
    def recipe(self) -> str:
        """Versions of what shapes a model, besides data and seed."""
        return f"{FEATURES_VERSION}|{REPLY_FEATURES_VERSION}|{installed('tierwise')}|{installed('scikit-learn')}"

    def fit(
        self,
        data: Dataset,
        directory: Path,
        *,
        version: str,
        seed: int,
        target: float,
        now_s: float,
        progress: Callable[[str], None],
    ) -> Policy:
        """Fit, choose the knob, write and read back. CannotFit, with the reason, when a tier has too few examples."""
        # States of two replies would learn from how they agree, which outcomes do not hold.
        states = [(), *((tier,) for tier in data.ladder)]
        try:
            fitted = fit_router(
                training_set(data),
                version=version,
                states=states,
                seed=seed,
                progress=lambda it: progress(f"fit: {it}"),
            )
        except TooLittleData as error:
            raise CannotFit(f"too little data for {error}") from None
        progress("fit: choose the mistake cost")
        costs = choose_mistake_costs(fitted, data, self._terms, targets=sorted({*TARGETS, target}))
        tuned = replace(fitted, model=replace(fitted.model, quality_costs_usd=costs))
        save_model(tuned, directory, created_at_s=now_s)
        return Served(load_model(directory), self._terms, Means(data.rows))

    def load(self, directory: Path, data: Dataset) -> Policy | None:
        """The model of a directory; None when this version of the service would refuse it too."""
        try:
            return Served(load_model(directory), self._terms, Means(data.rows))
        except ModelError:
            return None

    def thresholds(self, policy: Policy) -> Mapping[str, float]:
        """The mistake cost in US dollars by quality target."""
        if not isinstance(policy, Served):
            return {}
        costs = sorted(policy.model.quality_costs_usd.items(), key=lambda item: float(item[0]))
        return {f"cost of a mistake for {percent} % of the best quality, $": usd for percent, usd in costs}


def training_set(data: Dataset) -> TrainingSet:
    """The rows as matrices, then the prior's. A tier's label counts where its reply is there to be read.

    The prior (Laplace's rule of succession): no tier is always good or always bad, so where one has hardly
    an example of a class, a few of its rows stand there again with that label, together worth one example.
    """
    labels, weights = {}, {}
    for tier in data.ladder:
        labels[tier], weights[tier] = np.full(len(data.rows), np.nan), np.ones(len(data.rows))
        examples = data.examples(tier)
        readable = np.array([_reply(data.rows[i], tier) is not None for i in examples.row], dtype=bool)
        labels[tier][examples.row[readable]] = examples.good[readable]
        weights[tier][examples.row] = examples.weight
    prior = [(i, tier, label) for tier in data.ladder for i, label in _prior(labels[tier])]
    rows = [*data.rows, *(data.rows[i] for i, _, _ in prior)]
    for tier in data.ladder:
        extra = [label if tier == of else np.nan for _, of, label in prior]
        labels[tier] = np.concatenate([labels[tier], extra])
        weights[tier] = np.concatenate([weights[tier], np.full(len(prior), 1.0 / _PRIOR_ROWS)])
    return TrainingSet(
        tiers=data.ladder,
        sources=data.ladder,
        workloads=np.array([row.workload for row in rows]),
        groups=_groups(rows),
        requests=Vectors.of([row.features for row in rows], len(DENSE_NAMES)),
        replies={tier: Vectors.of([_reply(row, tier) for row in rows], len(REPLY_NAMES)) for tier in data.ladder},
        labels=labels,
        weights=weights,
    )


def _groups(rows: Sequence[Row]) -> NDArray[np.str_]:
    """(n,) the same request sent twice must not be on both sides of a fold, unless there are only a few requests."""
    same = np.array([f"{crc32(row.features.to_bytes()):08x}" for row in rows])
    return same if len(np.unique(same)) >= _MIN_GROUPS else np.array([row.request_id for row in rows])


def _prior(labels: Array) -> list[tuple[int, float]]:
    """(row, label) of the prior's examples, spread over the tier's own rows; none without any."""
    known = np.flatnonzero(~np.isnan(labels))
    lacking = [label for label in (0.0, 1.0) if (labels[known] == label).sum() < _PRIOR_ROWS]
    spread = known[np.linspace(0, len(known) - 1, min(_PRIOR_ROWS, len(known))).astype(int)]
    return [(int(i), label) for label in lacking for i in spread]


def _reply(row: Row, tier: str) -> Features | None:
    return next((step.reply_features for step in row.steps if step.tier == tier), None)


def choose_mistake_costs(
    fitted: Fitted, data: Dataset, workload_terms: Callable[[str], Terms], *, targets: Sequence[float]
) -> dict[str, float]:
    """The least mistake cost in US dollars that reaches each target, by target in per cent; else the greatest."""
    rows, means = data.rows[-_TUNING_ROWS:], Means(data.rows)
    model = HeldOut.of(fitted.model, fitted.beliefs, [row.features for row in data.rows])
    constants = {tier: _quality_and_cost(Constant(tier), rows, means) for tier in data.ladder}
    best = max(constants, key=lambda tier: constants[tier][0])
    knobs = _KNOBS * constants[best][1]

    def reached(knob: float) -> float:
        """The quality at this mistake cost."""
        policy = Served(model, lambda workload: replace(workload_terms(workload), mistake_cost_usd=knob), means)
        return _quality_and_cost(policy, rows, means)[0]

    quality = IsotonicRegression().fit_transform(np.arange(len(knobs)), [reached(knob) for knob in knobs.tolist()])
    chosen = {}
    for target in targets:
        enough = np.flatnonzero(quality >= target * constants[best][0])
        chosen[f"{100 * target:g}"] = float(knobs[enough[0]] if len(enough) else knobs[-1])
    return chosen


def _quality_and_cost(policy: Policy, rows: Sequence[Row], means: Means) -> tuple[float, float]:
    mixes: list[Mapping[Plan, float]] = [{policy.plan(row): 1.0} for row in rows]
    found = point(terms(policy, mixes, rows, means))
    return float(found.quality[0]), float(found.cost[0])
