"""Where outcomes are kept. A store is one file in this package that meets `Store`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from router.alarms import Alarm
from router.outcome import Audit, AuditMethod, AuditVerdict, Feedback, Outcome


class StoreError(Exception):
    """The store could not do it now (down, locked, full, corrupt). Says which, never what was stored.

    `code` is a short word (`busy`, `full`, `corrupt`, ...); `detail` names a path or a setting of the
    operator's, never data.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class Unstorable(StoreError):
    """One of these values can never be stored, however often it is tried. Nothing was written."""


class FeedbackStatus(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    REPEATED = "repeated"  # the same or an earlier report existed; the new one stands
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    NO_REPLY = "no_reply"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An outcome as read back (reply content is not stored), with its feedback if any came and its audits by tier."""

    outcome: Outcome
    feedback: Feedback | None
    audits: tuple[Audit, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditTally:
    """Audits of one workload that are alike: `count` of them stand for `weight` replies, by inverse propensity.

    `weight_squared` is the sum of the squares of what each stands for: it says how many equally weighted
    audits these are worth.
    """

    tier: str
    accepted: bool
    method: AuditMethod
    verdict: AuditVerdict
    count: int
    weight: float
    weight_squared: float
    cost_usd: float


@dataclass(frozen=True, slots=True)
class ReplyMeans:
    """Means over a tier's replies, each with its checks; `square_s2` is that of the squared duration."""

    replies: int
    check_usd: float
    duration_s: float
    square_s2: float
    check_s: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class WorkloadStats:
    """The numbers by which a fallback chain is watched, for one workload.

    `resolved` counts accepted replies by the tier that gave them; `direct` of `requests` were DIRECT,
    of which `misroutes` had to escalate. `first_rejected` of `first_judged` chains had their start
    tier's last reply rejected with a remedy above that tier, by start tier; a reply that no check could
    judge counts in neither. `passages` has (judged, rejected) replies of chains without a model by (tier whose
    rejected reply came before, tier), the first empty for a start. Costs in US dollars over all requests.
    """

    workload: str
    requests: int
    resolved: dict[str, int]
    unaccepted: int
    no_reply: int
    escalated: int
    direct: int
    misroutes: int
    attempts: int
    failures: int
    first_judged: dict[str, int]
    first_rejected: dict[str, int]
    attempt_cost_usd: dict[str, float]  # mean cost of one reply and its checks, by tier
    cost_usd: float
    top_tier_cost_usd: float
    feedback_good: int
    feedback_bad: int
    audits: tuple[AuditTally, ...] = ()
    reply_means: dict[str, ReplyMeans] = field(default_factory=dict)
    passages: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)


class Store(Protocol):
    """Blocking; called from the recorder's threads or from a command, never on the event loop.

    Every method may be called from any thread and raises StoreError when the store cannot do it now.
    """

    @property
    def corrupt_rows(self) -> int:
        """Rows that `read` refused, and therefore left out, since this store was opened."""

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Commit all, durably, in one transaction. An id seen before is left as it was.

        Raises Unstorable, with nothing written, when one of them can never be stored.
        """

    def report(self, feedback: Feedback, *, window_s: float) -> FeedbackStatus:
        """Commit a caller's judgement of an outcome not older than `window_s`."""

    def write_audits(self, audits: Sequence[Audit]) -> None:
        """Commit all in one transaction. One for a request and tier that has one is left out.

        Raises Unstorable, with nothing written, when one is of a request without an outcome here.
        """

    def audit_spend_usd(self, *, since_s: float) -> Mapping[str, float]:
        """What audits made since then cost, by workload."""

    def write_alarms(self, alarms: Sequence[Alarm]) -> None:
        """Commit all in one transaction; one that is there already is left as it is."""

    def alarms(self, *, since_s: float = 0.0) -> list[Alarm]:
        """Alarms raised and cleared since then, in the order in which they happened; damaged ones are left out."""

    def workload_of(self, request_id: str) -> str:
        """The workload of an outcome; empty for an unknown id."""

    def read(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[Recorded]:
        """Outcomes received in [since_s, until_s), by request id, in bounded memory.

        A row that is not as it was written is left out and counted in `corrupt_rows`.
        """

    def stats(self, *, since_s: float = 0.0) -> list[WorkloadStats]:
        """Per workload, by name."""

    def enforce_retention(self, *, now_s: float, max_age_s: Mapping[str, float], default_max_age_s: float = 0.0) -> int:
        """Delete retained text as old as its workload's age limit, everywhere it lies; how many.

        A workload that `max_age_s` does not name has `default_max_age_s`; 0 keeps nothing. Works in
        short transactions. Raises StoreError with code `retention_incomplete` when the text is deleted
        but a reader still keeps traces of it in the store's files: the next call removes them.
        """

    def upkeep(self) -> None:
        """Do, beside the writes, what one of them would have to stop for otherwise; the recorder calls it."""

    def ping(self) -> None:
        """Cheap proof that a write would work."""

    def close(self) -> None:
        """Release everything; idempotent."""
