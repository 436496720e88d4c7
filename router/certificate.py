"""What was certified of a workload's tiers, and what follows for one request. Values, no I/O.

A certificate is made by `training.certify` and published with the model. It says, for a tier of a workload, from
which P(good) its replies may be accepted on the scorer's word, and from which P(good) of the request alone a
start may be DIRECT, so that the share of bad replies among the accepted is at most `false_accept_max` (α) with
probability `confidence` (1 − δ).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

MAX_WORKLOADS = 1_000
_MAX_COUNT = 1 << 40
NEVER = math.inf  # a threshold that no P(good) reaches


class State(StrEnum):
    """What testing the thresholds came to."""

    CERTIFIED = "certified"
    INFEASIBLE = "infeasible"  # enough evidence, and no threshold passes
    NOT_CERTIFIED = "not_certified"  # too little evidence to say


@dataclass(frozen=True, slots=True)
class Threshold:
    """A tested threshold on P(good). `bound` is the upper bound of P(bad | accepted) at it, from `bad` of `n`.

    Without a certificate `value` is 0, `n` the evidence there was, `bound` that for accepting everything. `needed` is
    the evidence with which a faultless record passes; where nothing is certified yet, one that goes on as it is.
    """

    state: State
    value: float
    n: int
    bad: int
    needed: int
    bound: float

    @property
    def at_least(self) -> float:
        """The least P(good) to accept: the threshold, NEVER where infeasible, 0 where nothing is known."""
        if self.state is State.CERTIFIED:
            return self.value
        return NEVER if self.state is State.INFEASIBLE else 0.0


@dataclass(frozen=True, slots=True)
class TierCertificate:
    """One tier of one workload; its evidence is of requests received in [since_s, until_s]."""

    false_accept_max: float
    accept: Threshold
    direct: Threshold
    since_s: float
    until_s: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """One workload: a confidence, and by tier what it holds for. The highest tier has none: nothing is above it.

    `mistake_cost_usd` is what α was made from, 0 where it was given.
    """

    confidence: float
    mistake_cost_usd: float = 0.0
    tiers: Mapping[str, TierCertificate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promise:
    """What a workload's configuration asks for; nothing where it gives neither α nor the cost of a mistake.

    With `mistake_cost_usd` in place of `false_accept_max`, α is the false-accept rate at which asking the next tier
    costs as much as the mistakes among the replies that it would replace: its expected cost / `mistake_cost_usd`,
    taking its reply to be good, which makes α the smaller.
    """

    false_accept_max: float | None = None
    confidence: float = 0.95
    mistake_cost_usd: float | None = None

    @property
    def made(self) -> bool:
        """Whether anything is promised."""
        return self.false_accept_max is not None or self.mistake_cost_usd is not None

    def alpha(self, next_tier_cost_usd: float) -> float:
        """The share of bad replies allowed, 1 where any is cheaper than asking on."""
        if self.false_accept_max is not None:
            return self.false_accept_max
        assert self.mistake_cost_usd is not None
        return min(1.0, next_tier_cost_usd / self.mistake_cost_usd)

    def kept_by(self, certificate: Certificate) -> bool:
        """Whether the certificate is of this promise or of a stricter one."""
        if certificate.confidence < self.confidence:
            return False
        if self.false_accept_max is None:
            return certificate.mistake_cost_usd >= (self.mistake_cost_usd or 0.0)
        return all(tier.false_accept_max <= self.false_accept_max for tier in certificate.tiers.values())


@dataclass(frozen=True, slots=True)
class Standing:
    """What each tier's word counts for in one workload now, by tier: least P(good), and why in words.

    A tier that is not named may be taken at its word.
    """

    accept: Mapping[str, float] = field(default_factory=dict)
    direct: Mapping[str, float] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)

    def barred(self, tier: str) -> bool:
        """Whether no reply of the tier is accepted on the scorer's word."""
        return self.accept.get(tier, 0.0) == NEVER


NO_PROMISE = Promise()
UNBOUND = Standing()


def standing(
    promise: Promise, certificate: Certificate | None, suspended: Mapping[str, str], tiers: Sequence[str]
) -> Standing:
    """What was promised and certified, and the tiers suspended since with the reason of each. `tiers` may answer."""
    accept: dict[str, float] = {}
    direct: dict[str, float] = {}
    words: dict[str, str] = {}
    for tier in tiers[:-1]:  # above the last is nothing to ask instead
        if tier in suspended:
            accept[tier] = direct[tier] = NEVER
            words[tier] = f"{tier} suspended: {suspended[tier]}"
        elif promise.made and certificate is not None and not promise.kept_by(certificate):
            words[tier] = f"{tier} not certified for what is configured now"
        elif promise.made and certificate is not None and tier in certificate.tiers:
            own = certificate.tiers[tier]
            accept[tier] = own.accept.at_least
            if own.direct.state is not State.NOT_CERTIFIED:
                direct[tier] = own.direct.at_least
            words[tier] = in_words(tier, own.accept, own.false_accept_max, certificate.confidence)
        elif promise.made:
            words[tier] = f"{tier} not certified: no judged replies yet"
    return Standing(accept, direct, words)


def in_words(tier: str, threshold: Threshold, false_accept_max: float, confidence: float) -> str:
    """One line for people."""
    match threshold.state:
        case State.CERTIFIED:
            return (
                f"{tier} certified from P(good) {threshold.value:.2f}: at most {threshold.bound:.1%} bad "
                f"with {confidence:.0%} confidence, {false_accept_max:.1%} allowed, n = {threshold.n}"
            )
        case State.INFEASIBLE:
            return (
                f"{tier} infeasible, start higher: no threshold keeps bad replies below {false_accept_max:.1%} "
                f"with {confidence:.0%} confidence, n = {threshold.n}"
            )
        case State.NOT_CERTIFIED:
            return f"{tier} not certified: {threshold.n} of {threshold.needed} judged replies needed"


def finding(threshold: Threshold) -> str:
    """The state in words."""
    match threshold.state:
        case State.CERTIFIED:
            return "certified"
        case State.INFEASIBLE:
            return "infeasible: start higher"
        case State.NOT_CERTIFIED:
            return f"not certified: {threshold.n} of {threshold.needed} needed"


def rows_of(
    certificates: Mapping[str, Certificate],
) -> list[tuple[str, str, Literal["accept", "DIRECT"], TierCertificate, Threshold]]:
    """(workload, tier, what for, the tier's certificate, the threshold), one for each line of a table."""
    found: list[tuple[str, str, Literal["accept", "DIRECT"], TierCertificate, Threshold]] = []
    for workload, certificate in sorted(certificates.items()):
        for tier, own in certificate.tiers.items():
            found.append((workload, tier, "accept", own, own.accept))
            found.append((workload, tier, "DIRECT", own, own.direct))
    return found


# --- in the manifest -------------------------------------------------------------------------


def to_json(certificates: Mapping[str, Certificate]) -> dict[str, Any]:
    """As it stands in a model's manifest."""
    return {workload: asdict(certificate) for workload, certificate in certificates.items()}


def from_json(document: object) -> dict[str, Certificate]:
    """By workload; ValueError naming what is not as `to_json` writes it."""
    table = _table(document, "certificates")
    if len(table) > MAX_WORKLOADS:
        raise ValueError(f"certificates: more than {MAX_WORKLOADS} workloads")
    return {workload: _certificate(each, workload) for workload, each in table.items()}


def _certificate(document: object, at: str) -> Certificate:
    table = _fields(document, ("confidence", "mistake_cost_usd", "tiers"), at)
    tiers = _table(table["tiers"], f"{at}.tiers")
    if len(tiers) > 64:
        raise ValueError(f"{at}.tiers: more than 64")
    return Certificate(
        _number(table["confidence"], f"{at}.confidence", high=1.0),
        _number(table["mistake_cost_usd"], f"{at}.mistake_cost_usd"),
        {tier: _tier(each, f"{at}.{tier}") for tier, each in tiers.items()},
    )


def _tier(document: object, at: str) -> TierCertificate:
    table = _fields(document, ("false_accept_max", "accept", "direct", "since_s", "until_s"), at)
    return TierCertificate(
        _number(table["false_accept_max"], f"{at}.false_accept_max", high=1.0),
        _threshold(table["accept"], f"{at}.accept"),
        _threshold(table["direct"], f"{at}.direct"),
        _number(table["since_s"], f"{at}.since_s"),
        _number(table["until_s"], f"{at}.until_s"),
    )


def _threshold(document: object, at: str) -> Threshold:
    table = _fields(document, ("state", "value", "n", "bad", "needed", "bound"), at)
    try:
        state = State(str(table["state"]))
    except ValueError:
        raise ValueError(f"{at}.state: {str(table['state'])[:40]!r} is none of {', '.join(State)}") from None
    n, bad, needed = (int(_number(table[name], f"{at}.{name}", high=_MAX_COUNT)) for name in ("n", "bad", "needed"))
    return Threshold(
        state,
        _number(table["value"], f"{at}.value", high=1.0),
        n,
        bad,
        needed,
        _number(table["bound"], f"{at}.bound", high=1.0),
    )


def _table(document: object, at: str) -> dict[str, Any]:
    if not isinstance(document, dict) or any(len(name) > 64 for name in document):
        raise ValueError(f"{at}: no table of names")
    return document


def _fields(document: object, names: tuple[str, ...], at: str) -> dict[str, Any]:
    table = _table(document, at)
    if set(table) != set(names):
        raise ValueError(f"{at}: must hold exactly {', '.join(names)}")
    return table


def _number(value: object, at: str, high: float = 1e12) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise ValueError(f"{at}: no number of 0 to {high:g}")
    return float(value)
