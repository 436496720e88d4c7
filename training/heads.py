"""Training sets as matrices, and the heads fitted on them (see `router.scoring`).

Heads are logistic regressions on hashed words and standardised dense features. The reply heads are fitted
together, on every source's replies at once, with weights that all share and weights of their own (Daumé
2007, "Frustratingly Easy Domain Adaptation"): what a wrong answer looks like is much the same for every
tier, and each tier alone has few wrong answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from router.features import BUCKETS, DENSE_NAMES, Features
from router.reply_features import REPLY_NAMES
from router.scoring import Heads, Pair, dense_inputs

Array = NDArray[np.float64]
Rows = NDArray[np.intp]

MIN_EXAMPLES = 40  # labelled rows before a head or stack is fitted
MIN_OF_EACH = 5  # good ones and bad ones among them
_REQUEST_C, _REPLY_C = 1.5, 1.0  # inverse regularisation
_OWN_SHARE = 0.6  # scale of a source's own weights beside the shared ones
_WORDS_LENGTH = 1.5
_MIN_DOCUMENTS = 2  # in which a word must stand


class TooLittleData(ValueError):
    """Some tier has too few labelled examples of either kind; the message says which and how many."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """n feature vectors as matrices: `words` (n, BUCKETS) CSR float32, `dense` (n, d)."""

    words: sparse.csr_array
    dense: Array

    @classmethod
    def of(cls, features: Sequence[Features | None], width: int) -> Vectors:
        """Stack feature vectors; None gives a row of zeros."""
        empty = Features(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros(width, np.float32))
        rows = [each or empty for each in features]
        starts = np.concatenate(([0], np.cumsum([len(row.indices) for row in rows])))
        indices = np.concatenate([row.indices for row in rows]) if rows else np.zeros(0, np.int32)
        values = np.concatenate([row.values for row in rows]) if rows else np.zeros(0, np.float32)
        words = sparse.csr_array((values, indices, starts), shape=(len(rows), BUCKETS), dtype=np.float32)
        dense = np.array([row.dense for row in rows], dtype=float).reshape(len(rows), width)
        return cls(words, dense)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(n,) whether there is a vector: a real one always has some dense feature."""
        return np.asarray(self.dense.any(axis=1))

    def take(self, rows: Rows) -> Vectors:
        """The given rows."""
        return Vectors(self.words[rows], self.dense[rows])


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """n requests with what is known of each.

    `labels` by source (n,): 1 good, 0 bad, NaN unknown. `weights` by source (n,), default 1. `replies` by
    source, zero rows where there is no reply (then the label is NaN too). `agree` by pair of sources
    (n, 2). `groups` (n,): rows of one group never stand on both sides of a fold.
    """

    tiers: tuple[str, ...]
    sources: tuple[str, ...]
    workloads: NDArray[np.str_]
    groups: NDArray[np.str_]
    requests: Vectors
    replies: Mapping[str, Vectors]
    labels: Mapping[str, Array]
    agree: Mapping[Pair, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.workloads)

    def weight(self, source: str) -> Array:
        """(n,)."""
        return self.weights.get(source, np.ones(len(self)))

    def take(self, rows: Rows) -> TrainingSet:
        """The given rows."""
        return TrainingSet(
            self.tiers,
            self.sources,
            self.workloads[rows],
            self.groups[rows],
            self.requests.take(rows),
            {source: vectors.take(rows) for source, vectors in self.replies.items()},
            {source: labels[rows] for source, labels in self.labels.items()},
            {pair: agree[rows] for pair, agree in self.agree.items()},
            {source: weights[rows] for source, weights in self.weights.items()},
        )


@dataclass(frozen=True, slots=True)
class HeadFit:
    """Heads with the estimators that they were read from."""

    mean: Array
    scale: Array
    request: Heads
    replies: Heads
    estimators: Mapping[str, Any]


def head_logits(
    mean: Array, scale: Array, request: Heads, replies: Heads, data: TrainingSet
) -> tuple[Array, dict[str, Array]]:
    """Request logits (n, tiers) and each source's own (n,), for many rows at once."""
    width = data.requests.dense.shape[1]
    dense = dense_inputs(data.requests.dense, mean[:width], scale[:width])
    logits = data.requests.words @ request.words.T + dense @ request.dense.T + request.bias
    own = {}
    for row, source in enumerate(data.sources):
        vectors = data.replies[source]
        both = dense_inputs(np.hstack([data.requests.dense, vectors.dense]), mean, scale)
        words = replies.words[row]
        logit = (
            data.requests.words @ words[:BUCKETS]
            + vectors.words @ words[BUCKETS:]
            + both @ replies.dense[row]
            + replies.bias[row]
        )
        own[source] = np.where(vectors.present, logit, np.nan)
    return np.asarray(logits), own


def check_enough(data: TrainingSet) -> None:
    """TooLittleData unless every tier has enough examples of either kind."""
    for tier in data.tiers:
        labels = data.labels[tier]
        good, bad = int((labels == 1).sum()), int((labels == 0).sum())
        if good + bad < MIN_EXAMPLES or min(good, bad) < MIN_OF_EACH:
            raise TooLittleData(
                f"{tier}: {good} good and {bad} bad examples; needed are {MIN_EXAMPLES}, and {MIN_OF_EACH} of each kind"
            )


def fit_heads(data: TrainingSet) -> HeadFit:
    """Fit all heads on all rows that have a label."""
    known = {source: np.flatnonzero(~np.isnan(data.labels[source])) for source in data.sources}
    stacked = np.vstack(
        [np.hstack([data.requests.dense[rows], data.replies[source].dense[rows]]) for source, rows in known.items()]
    )
    mean, scale = stacked.mean(axis=0), np.maximum(stacked.std(axis=0), 1e-3)
    request, estimators = _fit_request_heads(data, mean, scale)
    replies, together = _fit_reply_heads(data, known, mean, scale)
    return HeadFit(mean, scale, request, replies, estimators | {"replies": together})


def _fit_request_heads(data: TrainingSet, mean: Array, scale: Array) -> tuple[Heads, dict[str, Any]]:
    width = len(DENSE_NAMES)
    dense = dense_inputs(data.requests.dense, mean[:width], scale[:width]).astype(np.float32)
    scales = np.concatenate([np.ones(width), _rarity(data.requests.words)])
    inputs = sparse.hstack([sparse.csr_array(dense), data.requests.words], format="csr")
    weights = np.zeros((len(data.tiers), inputs.shape[1]))
    bias = np.zeros(len(data.tiers))
    estimators: dict[str, Any] = {}
    for row, tier in enumerate(data.tiers):
        known = np.flatnonzero(~np.isnan(data.labels[tier]))
        fitted = _fit_sparse(
            inputs[known], data.labels[tier][known], data.weight(tier)[known], scales=scales, c=_REQUEST_C
        )
        weights[row], bias[row] = fitted.coefficients, fitted.intercept
        estimators[f"request {tier}"] = fitted.kept()
    return Heads(weights[:, width:].astype(np.float32), weights[:, :width], bias), estimators


def _fit_reply_heads(
    data: TrainingSet, known: Mapping[str, Rows], mean: Array, scale: Array
) -> tuple[Heads, dict[str, Any]]:
    """One regression for all sources: blocks [shared | own of source 1 | own of source 2 | … | which source]."""
    width, count = len(DENSE_NAMES) + len(REPLY_NAMES), len(data.sources)
    size = width + 2 * BUCKETS
    asked = sparse.vstack([data.requests.words[rows] for rows in known.values()], format="csr")
    said = sparse.vstack([data.replies[source].words[rows] for source, rows in known.items()], format="csr")
    shared_scales = np.concatenate([np.ones(width), _rarity(asked), _rarity(said)])
    scales = np.concatenate([shared_scales, *[_OWN_SHARE * shared_scales] * count, np.ones(count)])
    blocks, labels, weights = [], [], []
    for number, source in enumerate(data.sources):
        rows, vectors = known[source], data.replies[source]
        both = np.hstack([data.requests.dense[rows], vectors.dense[rows]])
        dense = sparse.csr_array(dense_inputs(both, mean, scale).astype(np.float32))
        shared = sparse.hstack([dense, data.requests.words[rows], vectors.words[rows]], format="csr")
        nothing = sparse.csr_array(shared.shape, dtype=np.float32)
        own = [shared if i == number else nothing for i in range(count)]
        which = np.zeros((len(rows), count), dtype=np.float32)
        which[:, number] = 1.0
        blocks.append(sparse.hstack([shared, *own, sparse.csr_array(which)], format="csr"))
        labels.append(data.labels[source][rows])
        weights.append(data.weight(source)[rows])
    fitted = _fit_sparse(
        sparse.vstack(blocks, format="csr"),
        np.concatenate(labels),
        np.concatenate(weights),
        scales=scales,
        c=_REPLY_C,
    )
    own_weights = fitted.coefficients[size : size * (count + 1)].reshape(count, size)
    combined = fitted.coefficients[:size] + own_weights
    bias = fitted.intercept + fitted.coefficients[size * (count + 1) :]
    return Heads(combined[:, width:].astype(np.float32), combined[:, :width], bias), fitted.kept()


@dataclass(frozen=True, slots=True)
class _SparseFit:
    """An estimator of scaled, selected columns, and what it comes to for the columns as they are."""

    columns: Rows
    scales: Array  # of the columns
    estimator: LogisticRegression
    width: int

    @property
    def coefficients(self) -> Array:
        """(width,)."""
        found = np.zeros(self.width)
        found[self.columns] = self.estimator.coef_[0] * self.scales
        return found

    @property
    def intercept(self) -> float:
        """The bias."""
        return float(self.estimator.intercept_[0])

    def kept(self) -> dict[str, Any]:
        """What is written beside the weights."""
        return {"columns": self.columns, "scales": self.scales, "estimator": self.estimator}


def _rarity(words: sparse.csr_array) -> Array:
    """(buckets,) scales that give rare words weight and a prompt template's none (Spärck Jones 1972).

    Scaled as a whole so that a row's words have _WORDS_LENGTH on average, beside the dense features.
    """
    found = np.bincount(words.indices, minlength=words.shape[1])
    rarity = np.where(found > 0, np.log((words.shape[0] + 1.0) / (found + 0.5)), 0.0).clip(0.0)
    squares = words.multiply(words) @ (rarity * rarity)
    return np.asarray(rarity * (_WORDS_LENGTH / np.sqrt(np.mean(squares) + 1e-12)))


def _fit_sparse(inputs: Any, labels: Array, weights: Array, *, scales: Array, c: float) -> _SparseFit:
    """Columns that fewer than two rows use carry no lesson and are left out."""
    used = np.bincount(inputs.indices, minlength=inputs.shape[1])
    columns = np.flatnonzero(used >= _MIN_DOCUMENTS)
    scaled = sparse.csr_array(inputs[:, columns] @ sparse.diags_array(scales[columns].astype(np.float32)))
    estimator = LogisticRegression(C=c, max_iter=200, tol=1e-3)
    estimator.fit(scaled, labels, sample_weight=weights)
    return _SparseFit(columns, scales[columns], estimator, inputs.shape[1])
