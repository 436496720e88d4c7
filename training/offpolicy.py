"""What a policy would have achieved, from requests that another one served.

Each logged request has the probability μ with which its start tier was taken. A policy that would
have started it there with probability π is credited with what happened, weighted w = π/μ. Two
estimates of a mean reward r (quality or cost) over n requests, with q̂ a guess of r that has not seen
them:

- self-normalised inverse propensity: Σ w·r / Σ w (Swaminathan & Joachims, 2015);
- doubly robust: Σ q̂(π)/n + Σ ŵ·(r − q̂) / Σ w (Dudík, Langford & Li, "Doubly Robust Policy Evaluation and
  Learning", ICML 2011), with the correction self-normalised and its weights ŵ = π·min(1/μ, 10) shrunk (Su,
  Dimakopoulou, Krishnamurthy & Dudík, "Doubly Robust Off-policy Evaluation with Shrinkage", ICML 2020):
  what rests on a handful of explored requests is mostly q̂, not their luck. Without shrinkage it is
  right when either μ or q̂ is; with it, q̂'s own mean error stays in for the rarest starts, and no
  interval shows it.

Requests without a label leave out their quality term; labels weigh what they stand for
(`training.dataset`). Intervals are percentiles of a paired Poisson bootstrap over requests: every policy
sees the same resamples, so differences have intervals too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.results import Figure

Array = NDArray[np.float64]

RESAMPLES = 1000
MAX_WEIGHT = 100.0  # 1/μ beyond this is noise
MAX_CORRECTION = 10.0  # and beyond this, q̂ is trusted rather than what happened
_CHUNK = 2_000_000  # resampled counts held at once


@dataclass(frozen=True, slots=True)
class Terms:
    """A policy's terms for each of n requests, every array (n,).

    `guess_*` = q̂ under the policy; `weight` = w; `labelled` = w times the label's weight, 0 where there is
    none; `*_seen` = those times what happened; `*_off` = how far q̂ was off, times the shrunk weights.
    """

    guess_quality: Array
    guess_cost: Array
    weight: Array
    labelled: Array
    quality_seen: Array
    quality_off: Array
    cost_seen: Array
    cost_off: Array
    imputed: Array

    def matrix(self) -> Array:
        """(n, 10): a column of ones, then the fields in order."""
        ones = np.ones_like(self.weight)
        return np.column_stack([ones, *(getattr(self, name) for name in Terms.__slots__)])

    def blended(self, other: Terms, share: float) -> Terms:
        """The policy that follows this one with probability 1 − share and `other` with `share`."""
        return Terms(*((1 - share) * getattr(self, f) + share * getattr(other, f) for f in Terms.__slots__))


@dataclass(frozen=True, slots=True)
class Estimates:
    """A policy's four estimates on each resample, (B,), the first being the data themselves."""

    quality: Array
    cost: Array
    quality_ips: Array
    cost_ips: Array


def estimates(totals: Array) -> Estimates:
    """From column totals (B, 10) of `Terms.matrix()`."""
    n, guess_q, guess_c, weight, labelled, seen_q, off_q, seen_c, off_c, _ = totals.T
    return Estimates(
        quality=guess_q / n + _ratio(off_q, labelled),
        cost=guess_c / n + _ratio(off_c, weight),
        quality_ips=_ratio(seen_q, labelled, otherwise=np.nan),
        cost_ips=_ratio(seen_c, weight, otherwise=np.nan),
    )


def point(terms: Terms) -> Estimates:
    """The estimates on the data themselves, each (1,)."""
    return estimates(terms.matrix().sum(axis=0)[np.newaxis])


def resample(policies: Mapping[str, Terms], *, seed: int, resamples: int = RESAMPLES) -> dict[str, Estimates]:
    """Estimates of every policy on the data and on the same `resamples` bootstrap samples of it."""
    if not policies:
        return {}
    stacked = np.hstack([terms.matrix() for terms in policies.values()])
    n, width = stacked.shape
    rng = np.random.default_rng(seed)
    totals = [stacked.sum(axis=0)[np.newaxis]]
    at_once = max(1, _CHUNK // max(n, 1))
    for start in range(0, resamples, at_once):
        counts = rng.poisson(1.0, size=(min(at_once, resamples - start), n)).astype(float)
        totals.append(counts @ stacked)
    together = np.vstack(totals)
    together = together[together[:, 0] > 0]  # an empty resample says nothing
    each = width // len(policies)
    return {name: estimates(together[:, i * each : (i + 1) * each]) for i, name in enumerate(policies)}


def figure(values: Array, *, within: tuple[float, float] = (-np.inf, np.inf)) -> Figure:
    """The first of `values` with the 2.5 % and 97.5 % percentiles and the deviation of the others."""
    others = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(others) == 0:
        return Figure(float("nan"), float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(others, [2.5, 97.5])
    value, low, high = np.clip([values[0], low, high], *within)
    return Figure(float(value), float(low), float(high), float(np.std(others)))


def effective_size(weight: Array) -> float:
    """How many equally weighted requests these are worth: (Σw)²/Σw² (Kish)."""
    squares = float(np.square(weight).sum())
    return float(weight.sum()) ** 2 / squares if squares > 0 else 0.0


def _ratio(numerator: Array, denominator: Array, *, otherwise: float = 0.0) -> Array:
    result = np.full_like(numerator, otherwise)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
