"""Where outcomes are kept. A store is one file in this package that meets `Store`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from router.outcome import Feedback, Outcome


class StoreError(Exception):
    """The store could not do it now (down, locked, full, corrupt). Says which, never what was stored."""


class FeedbackStatus(StrEnum):
    """What became of a report."""

    RECORDED = "recorded"
    REPEATED = "repeated"  # the same or an earlier report existed; the new one stands
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    NO_REPLY = "no_reply"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An outcome as read back (reply content is not stored), with its feedback if any came."""

    outcome: Outcome
    feedback: Feedback | None


@dataclass(frozen=True, slots=True)
class WorkloadStats:
    """The numbers by which a fallback chain is watched, for one workload.

    `resolved` counts accepted replies by the tier that gave them; `direct` of `requests` were DIRECT,
    of which `misroutes` had to escalate. `first_rejected` of `first_judged` chains had their start
    tier's reply rejected, by start tier. Costs in US dollars over all requests.
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
    attempt_cost_usd: dict[str, float]  # mean cost of one reply, by tier
    cost_usd: float
    top_tier_cost_usd: float
    feedback_good: int
    feedback_bad: int


class Store(Protocol):
    """Blocking; called from the recorder's thread or from a command, never on the event loop.

    Every method raises StoreError when the store cannot do it now.
    """

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Commit all, durably, in one transaction. An id seen before is left as it was."""

    def report(self, feedback: Feedback, *, window_s: float) -> FeedbackStatus:
        """Commit a caller's judgement of an outcome not older than `window_s`."""

    def read(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[Recorded]:
        """Outcomes received in [since_s, until_s), by request id, in bounded memory."""

    def stats(self, *, since_s: float = 0.0) -> list[WorkloadStats]:
        """Per workload, by name."""

    def enforce_retention(self, *, now_s: float, max_age_s: dict[str, float]) -> int:
        """Delete retained text older than its workload's age limit, everywhere it lies; how many."""

    def ping(self) -> None:
        """Cheap proof that a write would work."""

    def close(self) -> None:
        """Release everything; idempotent."""
