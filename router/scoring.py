"""P(good) from plain arrays: linear heads over features, and small stacks that combine what is known.

Two layers, both logistic regression. *Heads* read the many features: one per tier for the request alone,
one per source for a request with that source's reply. A *source* is a tier or a further sample of one
(`haiku#2`). *Stacks* read the heads' few logits, whether the replies seen agree, and the workload; there is
one per set of sources seen (a *state*) and tier asked about, so that every reply seen updates the belief
about every tier. One function, `stack_inputs`, makes their inputs in training and in serving.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallback.cascade import CAUGHT, ODDS_RATIO
from router.certificate import Certificate
from router.features import Features

Array = NDArray[np.float64]
State = tuple[str, ...]  # sources seen, in the order of the model's `sources`
Pair = tuple[str, str]

DENSE_SCALE = 0.15  # of a standardised dense feature beside word weights of length 1
DENSE_CLIP = 4.0
_LOGIT_CLIP = 6.0
_CENTRE = 0.5


def tier_of(source: str) -> str:
    """The tier that a source is an answer of: `haiku#2` is haiku's."""
    return source.partition("#")[0]


def sigmoid(logit: float) -> float:
    """1/(1 + e^-x), without overflow."""
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, logit))))


def clipped(values: Array, low: float, high: float) -> Array:
    """`np.clip` in a third of its time on the few numbers of one request."""
    return np.minimum(np.maximum(values, low), high)


def dense_inputs(dense: NDArray[np.floating[Any]], mean: Array, scale: Array) -> Array:
    """(…, d) dense features standardised, clipped and scaled as the heads expect them."""
    return clipped((dense - mean) / scale, -DENSE_CLIP, DENSE_CLIP) * DENSE_SCALE


@dataclass(frozen=True, slots=True)
class Heads:
    """k linear heads. `words` (k, buckets) float32, `dense` (k, d), `bias` (k,)."""

    words: NDArray[np.float32]
    dense: Array
    bias: Array

    def logits(self, features: Features, dense: Array) -> Array:
        """(k,) for one vector; `dense` (d,) comes from `dense_inputs`."""
        words = self.words[:, features.indices] @ features.values
        return np.asarray(words + self.dense @ dense + self.bias, dtype=float)


def stack_inputs(
    state: Sequence[str],
    own: Mapping[str, Array],
    request: Array,
    agree: Mapping[Pair, Array],
    onehot: Array,
) -> Array:
    """(n, k) inputs of a state's stacks.

    `own` (n,) per source seen: its reply head's logit. `request` (n, t): request heads. `agree` (n, 2) per
    pair seen: same answer 0/1 and similarity. `onehot` (n, w) workloads, all zero for an unknown one.
    """
    columns = [own[source][:, None] for source in state]
    columns.append(request)
    votes = []
    for pair in combinations(state, 2):
        same = agree[pair][:, :1] - _CENTRE
        columns.append(2.0 * (1.0 - agree[pair][:, :1]) * agree[pair][:, 1:])
        columns.append(2.0 * same)
        columns.extend(same * own[source][:, None] for source in state)
        columns.append(same * onehot)
        votes.append(same)
    columns.extend(4.0 * one * other for one, other in combinations(votes, 2))
    columns.append(onehot)
    columns.extend(0.5 * own[source][:, None] * onehot for source in state)
    return clipped(np.concatenate(columns, axis=1), -_LOGIT_CLIP, _LOGIT_CLIP)


def worth_inputs(probabilities: Array, onehot: Array) -> Array:
    """(n, k) inputs of the regressions for what trying one more tier is worth; `probabilities` (n, t)."""
    p = clipped(probabilities, 0.01, 0.99)
    crossed = [p[:, i : i + 1] * p[:, i + 1 :] for i in range(p.shape[1] - 1)]
    return np.concatenate([np.ones((len(p), 1)), p, p * p, *crossed, p.max(1, keepdims=True), onehot], axis=1)


@dataclass(frozen=True, slots=True)
class Tied:
    """How a tier's bad reply is tied to the tiers above (`fallback.cascade.after_a_bad_reply`), as odds ratios.

    `unread`: against what was believed before that reply was there; `read`: after it was read.
    """

    unread: float = ODDS_RATIO
    read: float = ODDS_RATIO


@dataclass(frozen=True, slots=True)
class Stack:
    """A state's stacks: `weights` (t, k), `bias` (t,), in the order of the model's tiers; NaN bias = not learned."""

    weights: Array
    bias: Array

    def probabilities(self, inputs: Array) -> Array:
        """(n, t)."""
        return np.asarray(1.0 / (1.0 + np.exp(-(inputs @ self.weights.T + self.bias))))


@dataclass(frozen=True, slots=True)
class Seen:
    """A reply that is there: its features, and how it agrees with those before it, by their source."""

    source: str
    features: Features
    agree: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RouterModel:
    """A loaded version. Immutable; scores one request at a time, in microseconds, without scikit-learn.

    `worth` holds, by (state, source to try next), weights (mistake costs, k) over `worth_inputs`; the row is
    the one of the nearest of `mistake_costs_usd`. Where nothing is learned there, the chain rule holds
    (`fallback.cascade.chain_prospect`), with `caught`, by workload the share of bad replies that is noticed, and the
    tiers `tied`. `quality_costs_usd` gives the mistake cost
    that reached a target quality in training, by target in per cent; `certificates` by workload what was certified.
    `fitted_until` is the last request that it was fitted on, empty where that is not known. `expected` gives, by
    workload, tier and stream (`router.drift`), what came of requests it had not seen as a multiple of what it said.
    """

    version: str
    tiers: tuple[str, ...]
    sources: tuple[str, ...]
    workloads: tuple[str, ...]
    mean: Array
    scale: Array
    request: Heads
    replies: Heads  # over the request's and then the reply's buckets and dense features
    stacks: Mapping[State, Stack]
    mistake_costs_usd: Array = field(default_factory=lambda: np.zeros(0))
    worth: Mapping[tuple[State, str], Array] = field(default_factory=dict)
    quality_costs_usd: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    fitted_until: str = ""
    expected: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    caught: Mapping[str, float] = field(default_factory=dict)
    tied: Tied = Tied()

    def probabilities(self, features: Features, workload: str = "") -> dict[str, float]:
        """Calibrated P(this tier's reply is good) by tier, before any tier was asked."""
        return self.believe(features, workload, ())

    def reply_probability(
        self, tier: str, request_features: Features, reply_features: Features, workload: str = ""
    ) -> float | None:
        """Calibrated P(good | request, this tier's reply); None for a tier that the model knows nothing of."""
        if tier not in self.sources:
            return None
        return self.believe(request_features, workload, (Seen(tier, reply_features),)).get(tier)

    def believe(self, features: Features, workload: str, seen: Sequence[Seen]) -> dict[str, float]:
        """P(good) by tier given every reply seen so far; sources unknown to the model are passed over.

        A state that training has not seen often enough falls back to what each head says by itself.
        """
        known = sorted((each for each in seen if each.source in self.sources), key=self._rank)
        state = tuple(each.source for each in known)
        request = self._request_logits(features)
        own = {each.source: self._reply_logit(features, each) for each in known}
        alone = [own.get(tier, logit) for tier, logit in zip(self.tiers, request, strict=True)]
        believed = {tier: sigmoid(logit) for tier, logit in zip(self.tiers, alone, strict=True)}
        stack = self.stacks.get(state)
        if stack is None:
            return believed
        agree = {
            (a.source, b.source): np.array([b.agree.get(a.source) or a.agree.get(b.source) or (0.0, 0.0)])
            for a, b in combinations(known, 2)
        }
        columns = {source: np.array([logit]) for source, logit in own.items()}
        inputs = stack_inputs(state, columns, request[None, :], agree, self.onehot(workload))
        for tier, p in zip(self.tiers, stack.probabilities(inputs)[0], strict=True):
            if not math.isnan(p):
                believed[tier] = float(p)
        return believed

    def worth_of(
        self, state: State, source: str, believed: Mapping[str, float], workload: str, mistake_cost_usd: float
    ) -> float | None:
        """Expected worth in [0, 1] of having asked `source` next (see `fallback.cascade`); None if not learned."""
        weights = self.worth.get((state, source))
        if weights is None:
            return None
        nearest = int(np.abs(np.log(self.mistake_costs_usd) - math.log(mistake_cost_usd)).argmin())
        p = np.array([[believed[tier] for tier in self.tiers]])
        worth = float(worth_inputs(p, self.onehot(workload))[0] @ weights[nearest])
        return max(0.0, min(1.0, worth))

    def caught_in(self, workload: str) -> float:
        """The share of bad replies that is noticed in the workload."""
        return self.caught.get(workload, CAUGHT)

    def check(self) -> None:
        """Score once at every state: ValueError where stacks or worths do not fit the sources and workloads."""
        onehot = self.onehot("")
        request = np.zeros((1, len(self.tiers)))
        for state, stack in self.stacks.items():
            pairs = {pair: np.zeros((1, 2)) for pair in combinations(state, 2)}
            inputs = stack_inputs(state, {source: np.zeros(1) for source in state}, request, pairs, onehot)
            stack.probabilities(inputs)
        for weights in self.worth.values():
            worth_inputs(np.full((1, len(self.tiers)), _CENTRE), onehot) @ weights.T

    def onehot(self, workload: str) -> Array:
        """(1, workloads)."""
        return np.array([[float(name == workload) for name in self.workloads]])

    def _rank(self, seen: Seen) -> int:
        return self.sources.index(seen.source)

    def _request_logits(self, features: Features) -> Array:
        width = self.request.dense.shape[1]
        return self.request.logits(features, dense_inputs(features.dense, self.mean[:width], self.scale[:width]))

    def _reply_logit(self, features: Features, seen: Seen) -> float:
        row = self.sources.index(seen.source)
        half = self.replies.words.shape[1] // 2
        words = self.replies.words[row]
        both = np.concatenate((features.dense, seen.features.dense))
        return float(
            words[features.indices] @ features.values
            + words[half:][seen.features.indices] @ seen.features.values
            + self.replies.dense[row] @ dense_inputs(both, self.mean, self.scale)
            + self.replies.bias[row]
        )
