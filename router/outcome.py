"""What is recorded of a request: the Decision taken and the Outcome it led to. Frozen values, no I/O.

An Outcome holds no text unless the workload's retention is switched on (`retained`): the router
learns from feature vectors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fallback.types import Attempt, Purpose, Reply


class Mode(StrEnum):
    """Straight to a tier, or down the chain."""

    DIRECT = "direct"
    CHAIN = "chain"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the router chose. Immutable, logged whole.

    `tiers` are tried in order; the first is the start tier. `propensities` gives, for every start
    tier that could have been taken, the probability with which it would have been; without them
    yesterday's log cannot judge tomorrow's router. `mistake_cost_usd` is what a bad reply was taken to
    cost (0 without a model). `expected_time_s` and its standard deviation are of one reply with its checks, by tier.
    """

    mode: Mode
    tiers: tuple[str, ...]
    reason: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    propensities: Mapping[str, float] = field(default_factory=dict)
    expected_cost_usd: Mapping[str, float] = field(default_factory=dict)
    mistake_cost_usd: float = 0.0
    model_version: str = ""
    explored: bool = False
    expected_time_s: Mapping[str, float] = field(default_factory=dict)
    expected_time_sd_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def start_tier(self) -> str:
        """The tier tried first."""
        return self.tiers[0]

    @property
    def propensity(self) -> float:
        """Probability with which this start tier was taken."""
        return self.propensities.get(self.start_tier, 1.0)


@dataclass(frozen=True, slots=True)
class RetainedText:
    """Prompt and reply as JSON text, kept only where the workload's retention says so."""

    prompt_json: str = field(repr=False)
    reply_json: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the answers of two replies of one request compare: the attempts `first` < `second`, counted from 0.

    `same` is 1 for the same answer, else 0; `alike` their similarity in [0, 1] (`fallback.answers.agreement`). No text.
    """

    first: int
    second: int
    same: float
    alike: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole story of one request.

    `status` is the gRPC status name sent to the caller (CANCELLED when the caller went away).
    `resolved_tier` is empty when no tier gave a reply. `reply_features` is aligned with `attempts`;
    None where an attempt ended in a Failure. `received_at_s` is wall-clock time since the epoch;
    order is by `request_id`, which sorts by creation, never by wall time.
    """

    request_id: str
    workload: str
    received_at_s: float
    duration_s: float
    status: str
    decision: Decision
    attempts: tuple[Attempt, ...]
    resolved_tier: str
    accepted: bool
    reasons: tuple[str, ...]
    cost_usd: float
    top_tier_cost_usd: float
    features_version: str
    request_features: bytes
    reply_features: tuple[bytes | None, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    agreements: tuple[Agreement, ...] = ()
    retained: RetainedText | None = None

    @property
    def misrouted(self) -> bool:
        """DIRECT, and yet a verdict sent it to a higher tier."""
        return self.decision.mode is Mode.DIRECT and self.escalated

    @property
    def escalated(self) -> bool:
        """A verdict sent the request to a higher tier."""
        return any(attempt.purpose is Purpose.ESCALATION for attempt in self.attempts)


@dataclass(frozen=True, slots=True)
class Passage:
    """How a tier's last reply fared with the checks: `after` which tier's rejected reply, empty for the start's."""

    position: int
    tier: str
    after: str
    rejected: bool


def passages(outcome: Outcome) -> list[Passage]:
    """What a chain without a model tells about how often replies pass; nothing where one chose or a tier failed over.

    A DIRECT start, and whatever a model decided, was chosen because it looked easy: it says nothing about the rest.
    """
    if outcome.decision.mode is not Mode.CHAIN or outcome.decision.model_version:
        return []
    found: list[Passage] = []
    after = ""
    for position, attempt in enumerate(outcome.attempts):
        if attempt.purpose in (Purpose.RETRY, Purpose.FAILOVER) or not isinstance(attempt.result, Reply):
            break
        if found and attempt.purpose is Purpose.LONGER:
            found.pop()  # the same tier's longer reply stands for it
        elif found:
            after = found[-1].tier
        found.append(Passage(position, attempt.tier, after, attempt.rejection is not None))
    return found


_LAST_SEQUENCE = 0xFFFF
_ID = re.compile(r"[0-9a-f]{32}")


class RequestIds:
    """Makes request ids: 32 hex digits that sort by creation within a process, then by wall time.

    A wall clock that steps back does not make ids step back: the millisecond part never decreases.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._last_ms = 0
        self._sequence = 0

    def next(self, wall_s: float) -> str:
        """A new id for a request received at `wall_s`."""
        now_ms = int(wall_s * 1000)
        if now_ms > self._last_ms:
            self._last_ms, self._sequence = now_ms, 0
        elif self._sequence < _LAST_SEQUENCE:
            self._sequence += 1
        else:  # many requests since the clock stepped back: time goes on by itself
            self._last_ms, self._sequence = self._last_ms + 1, 0
        return f"{self._last_ms:012x}{self._sequence:04x}{self._entropy(8).hex()}"

    @staticmethod
    def made_at_s(request_id: str) -> float | None:
        """The wall time in an id, whichever process made it; None for what is no id of ours."""
        return int(request_id[:12], 16) / 1000 if _ID.fullmatch(request_id) else None


class AuditVerdict(StrEnum):
    """What an audit found of a reply."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"


class AuditMethod(StrEnum):
    """What the verdict of an audit rests on, or why it has none."""

    VERIFIER = "verifier"  # the workload's audit verifier judged each reply by itself
    JUDGE = "judge"  # replies with the same answer are alike, a judge compared the others
    ANSWERS = "answers"  # replies with the same answer are alike; which of two others is right, nobody said
    CHECKS = "checks"  # the auditor's reply did not pass the workload's own checks: nothing to compare with
    FAILURE = "failure"  # the auditor gave no reply: says nothing of the audited one

    @property
    def settles(self) -> bool:
        """Whether it can find a reply bad as well as good; otherwise its verdicts are one-sided."""
        return self in (AuditMethod.VERIFIER, AuditMethod.JUDGE)


@dataclass(frozen=True, slots=True)
class Audit:
    """What was learned, off the caller's path, of one tier's reply in one request.

    `accepted`: the reply was handed over as accepted; otherwise a check had rejected it and a higher
    tier's was. `propensity` is the probability with which it was chosen, known beforehand and independent of
    the reply. `auditor_tier` gave the reply that it was compared with, of which `auditor_verdict` speaks and
    `reply_features` holds the features (empty: none). `attempts` upstream calls were made for it, for `cost_usd`.
    """

    request_id: str
    workload: str
    tier: str
    accepted: bool
    auditor_tier: str
    verdict: AuditVerdict
    auditor_verdict: AuditVerdict
    method: AuditMethod
    propensity: float
    attempts: int
    cost_usd: float
    audited_at_s: float
    reply_features: bytes = b""


@dataclass(frozen=True, slots=True)
class Feedback:
    """A caller's later judgement of a reply."""

    request_id: str
    good: bool
    sufficient_tier: str = ""
    score: float | None = None
    reason: str = ""
    reported_at_s: float = 0.0
