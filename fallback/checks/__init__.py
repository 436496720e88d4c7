"""Quality checks: is this reply good enough? A check is one file in this package that meets `Check`.

A check's settings are the fields of its frozen dataclass, so a configuration that names a check is
validated by the check's own types. Order matters: cheapest first, the first Reject ends the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fallback.types import CheckReport, Reply, Request, Verdict


@dataclass(frozen=True, slots=True)
class Case:
    """What a check may look at. `earlier` are the reports of the checks before it on this reply."""

    request: Request
    reply: Reply
    tier: str
    earlier: tuple[CheckReport, ...]
    time_left_s: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, with the score it rests on (P(good) where there is one) and what it cost to know."""

    verdict: Verdict
    score: float | None = None
    cost_usd: float = 0.0


class Check(Protocol):
    """Judges one reply."""

    @property
    def name(self) -> str:
        """Its name in configuration, spans and outcomes."""

    @property
    def version(self) -> str:
        """Changes when its verdicts may change."""

    @property
    def paid(self) -> bool:
        """Whether judging costs money; a DIRECT reply skips paid checks."""

    async def judge(self, case: Case) -> Judgement:
        """The verdict. An operational problem of the check itself is Unjudged, never a Reject."""
