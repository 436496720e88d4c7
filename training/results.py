"""What a night found, as values that go to JSON and back: the report and the gate read nothing else.

Every figure carries its 95 % interval and its standard error; money is in US dollars per request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from router.certificate import Certificate
from router.rates import Rate

NIGHT_FILE = "night.json"  # beside the model, in its version

Kind = Literal["challenger", "champion", "logged", "constant", "shuffle", "oracle"]


@dataclass(frozen=True, slots=True)
class Figure:
    """An estimate with its 95 % interval [low, high] and standard error."""

    value: float
    low: float
    high: float
    sigma: float


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy on the held-out requests.

    `quality` (share of good replies) and `cost_usd` are doubly robust; `quality_ips` and `cost_ips_usd`
    are the same by self-normalised inverse propensity alone. `support` requests were logged as the
    policy would have started them, worth `effective` independent ones. `imputed` is the share of the
    weight for which the log stopped where the policy would have gone on. `mix`: share by plan.
    """

    name: str
    kind: Kind
    quality: Figure
    cost_usd: Figure
    quality_ips: Figure
    cost_ips_usd: Figure
    support: int
    effective: float
    imputed: float
    mix: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """Challenger minus another policy, on the same requests (paired)."""

    versus: str
    kind: Kind
    quality: Figure
    cost_usd: Figure


@dataclass(frozen=True, slots=True)
class Bin:
    """One point of a reliability curve: mean prediction, share good with interval, and how many."""

    predicted: float
    good: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far the challenger's P(good) for a tier can be believed. `constant_brier`: saying the mean always."""

    tier: str
    n: int
    ece: float
    brier: float
    constant_brier: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class Escalation:
    """Of `n` requests started at `start`, how many replies were rejected; above `break_even` starting higher pays."""

    workload: str
    start: str
    n: int
    rejected: int
    rate: float
    low: float
    high: float
    break_even: float | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything measured on the held-out requests, of which `labelled` say whether their reply was good."""

    n: int
    labelled: int
    results: tuple[PolicyResult, ...]
    differences: tuple[Difference, ...]
    calibration: tuple[Calibration, ...]
    escalation: tuple[Escalation, ...]
    notes: tuple[str, ...] = ()

    def of(self, kind: Kind) -> list[PolicyResult]:
        """The results of one kind, in order."""
        return [result for result in self.results if result.kind == kind]


@dataclass(frozen=True, slots=True)
class Data:
    """What the night read. `labels`: by tier, by source and class; `good_share`: by tier, held-in."""

    requests: int
    labelled: int
    held_in: int
    held_in_labelled: int
    held_out: int
    first_request_s: float
    last_request_s: float
    labels: Mapping[str, Mapping[str, int]]
    good_share: Mapping[str, float]
    skipped: Mapping[str, int]
    simulated: bool
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Audited:
    """What one workload's audits found and cost, over the night's whole window."""

    workload: str
    cost_usd: float
    false_accept: Rate
    false_escalate: Rate


@dataclass(frozen=True, slots=True)
class Night:
    """One night, whole. `result` is what became of it; `reasons` say why, in words.

    `champion` and `version` are empty where there is none. `thresholds` by name, now and before. `certificates`
    are of the model that serves after the night; `recertified` is the version under which the champion got them.
    """

    result: Literal["published", "refused", "nothing_to_do"]
    reasons: tuple[str, ...]
    version: str
    champion: str
    target: float
    seed: int
    started_at_s: float
    data: Data
    evaluation: Evaluation | None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    champion_thresholds: Mapping[str, float] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    recertified: str = ""
    audits: tuple[Audited, ...] = ()


_NIGHT = TypeAdapter(Night)


def load_night(path: Path) -> Night:
    """A night as saved; ValueError when the file is none."""
    return _NIGHT.validate_json(path.read_bytes())


def save_night(night: Night, path: Path) -> None:
    """Write it, to be read by `load_night`."""
    path.write_bytes(_NIGHT.dump_json(night, indent=1))
