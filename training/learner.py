"""From outcomes to a model file: training matrices, the fit, the knob, and reading a model back.

The knob is the cost of a mistake: the higher, the better and dearer the policy. For each quality target
the least one is chosen that reaches it on held-in requests, with beliefs that the fit held out and the
estimators of `training.offpolicy`; quality is made to rise with the knob (isotonic regression), because each
estimate by itself is noisy. Whatever the target, quality must not fall below that of what was served, as the
gate will ask; no margin is added, because night after night it would push quality and cost up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as installed
from itertools import combinations
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from router.certificate import Certificate
from router.features import DENSE_NAMES, FEATURES_VERSION, Features
from router.model import ModelError, load_model
from router.reply_features import REPLY_FEATURES_VERSION, REPLY_NAMES
from router.scoring import State
from training.artifacts import save_model, write_certificates
from training.dataset import Dataset
from training.evaluate import logged_terms, terms
from training.evidence import Cell, certify_policy, expected_ratios
from training.fit import Fitted, TooLittleData, fit_router
from training.follow import Constant, Means, Plan, Policy
from training.gate import NEGLIGIBLE
from training.heads import MIN_EXAMPLES, TrainingSet, Vectors
from training.nightly import CannotFit
from training.noticed import with_habits
from training.offpolicy import Terms as Measured
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
        made = training_set(data)
        try:
            fitted = fit_router(
                made,
                version=version,
                states=states_of(made),
                seed=seed,
                progress=lambda it: progress(f"fit: {it}"),
            )
        except TooLittleData as error:
            raise CannotFit(f"too little data for {error}") from None
        fitted = with_habits(fitted, data)
        progress("fit: choose the mistake cost")
        costs = choose_mistake_costs(fitted, data, self._terms, targets=sorted({*TARGETS, target}))
        model = replace(fitted.model, quality_costs_usd=costs, fitted_until=data.rows[-1].request_id)
        tuned = replace(fitted, model=model)
        save_model(tuned, directory, created_at_s=now_s)
        return Served(load_model(directory), self._terms, Means(data.rows))

    def load(self, directory: Path, data: Dataset) -> Policy | None:
        """The model of a directory; None when this version of the service would refuse it too."""
        try:
            return Served(load_model(directory), self._terms, Means(data.rows))
        except ModelError:
            return None

    def certify(
        self, policy: Policy, data: Dataset, directory: Path, *, version: str, seed: int, since_s: Mapping[Cell, float]
    ) -> tuple[Policy, Mapping[str, Certificate]]:
        """Certify on the requests after the last that the model was fitted on, and write that into `directory`.

        Gives the policy as it serves then, and the certificates by workload.
        """
        if not isinstance(policy, Served):
            return policy, {}
        fresh = [row for row in data.rows if row.request_id > policy.model.fitted_until]
        plain = policy.uncertified()
        certificates = certify_policy(plain, fresh, lambda name: self._terms(name).promise, seed=seed, since_s=since_s)
        expected = expected_ratios(plain, fresh) if not policy.model.expected else None
        write_certificates(directory, certificates, version=version, expected=expected)
        return plain.certified(certificates, version), certificates

    def thresholds(self, policy: Policy) -> Mapping[str, float]:
        """The mistake cost in US dollars by quality target, and what was learned of asking on."""
        if not isinstance(policy, Served):
            return {}
        model = policy.model
        costs = sorted(model.quality_costs_usd.items(), key=lambda item: float(item[0]))
        found = {f"cost of a mistake for {percent} % of the best quality, $": usd for percent, usd in costs}
        names = sorted({*model.workloads, *model.caught})
        found |= {f"share of bad replies that is noticed in {name}": model.caught_in(name) for name in names}
        found["odds ratio of the next tier, after a bad reply"] = model.tied.unread
        found["odds ratio of the next tier, after a bad reply that was read"] = model.tied.read
        return found


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
        agree={pair: _agree(rows, pair) for pair in combinations(data.ladder, 2)},
        weights=weights,
    )


def _agree(rows: Sequence[Row], pair: tuple[str, str]) -> Array:
    """(n, 2) as `TrainingSet.agree`; NaN where the two did not both reply, or nothing is recorded of it."""
    lower, higher = pair
    unknown = (math.nan, math.nan)
    return np.array([row.agree.get((lower, higher)) or row.agree.get((higher, lower)) or unknown for row in rows])


def states_of(made: TrainingSet) -> list[State]:
    """No reply, each tier's alone, and the pairs of which enough are known to agree or not to."""
    pairs = [pair for pair, agree in made.agree.items() if int(np.isfinite(agree).all(axis=1).sum()) >= MIN_EXAMPLES]
    return [(), *((tier,) for tier in made.tiers), *pairs]


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
    return next((step.reply_features for step in row.steps if step.tier == tier), row.audit_replies.get(tier))


def choose_mistake_costs(
    fitted: Fitted, data: Dataset, workload_terms: Callable[[str], Terms], *, targets: Sequence[float]
) -> dict[str, float]:
    """The least mistake cost in US dollars that reaches each target, by target in per cent; else the greatest.

    A target is a share of the best tier's quality, or of the dearest knob's where that is better. Between
    two knobs of the grid, where quality crosses what is needed.
    """
    rows, means = data.rows[-_TUNING_ROWS:], Means(data.rows)
    model = HeldOut.of(fitted.model, fitted.beliefs, [row.features for row in data.rows])
    beliefs = [model.probabilities(row.features, row.workload) for row in rows]

    def measured(policy: Policy) -> Measured:
        """The policy's terms on these rows."""
        mixes: list[Mapping[Plan, float]] = [{policy.plan(row): 1.0} for row in rows]
        return terms(policy, mixes, rows, means, beliefs)

    def served_with(knob: float) -> Measured:
        """As it would serve at this mistake cost."""
        return measured(Served(model, lambda name: replace(workload_terms(name), mistake_cost_usd=knob), means))

    constants = [point(measured(Constant(tier))) for tier in data.ladder]
    best = max(constants, key=lambda each: float(each.quality[0]))
    knobs = _KNOBS * float(best.cost[0])
    tried = [float(point(served_with(knob)).quality[0]) for knob in knobs.tolist()]
    quality = IsotonicRegression().fit_transform(np.arange(len(knobs)), tried)
    # The best tier is seldom asked alone, so that its quality is known badly: what the dearest knob reaches counts too.
    top = max(float(best.quality[0]), float(quality[-1]))
    served = float(point(logged_terms(rows)).quality[0]) - NEGLIGIBLE
    return {f"{100 * target:g}": _least(knobs, quality - max(target * top, served)) for target in targets}


def _least(knobs: Array, surplus: Array) -> float:
    """The knob at which a rising surplus is 0, on a logarithmic scale; the first or last where it never is."""
    enough = np.flatnonzero(surplus >= 0)
    if not len(enough) or enough[0] == 0:
        return float(knobs[0] if len(enough) else knobs[-1])
    above = int(enough[0])
    part = surplus[above - 1] / (surplus[above - 1] - surplus[above])
    return float(knobs[above - 1] ** (1 - part) * knobs[above] ** part)
