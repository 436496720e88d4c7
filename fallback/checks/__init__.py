"""Quality checks: is this reply good enough? A check is one file in this package that meets `Check`.

A check's settings are the fields of its frozen dataclass, so a configuration that names a check is
validated by the check's own types. How the verdicts of several checks become one: `fallback.judging`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from fallback.errors import NotAttempted
from fallback.types import CheckReport, Reply, Request, Verdict


class AskTier(Protocol):
    """Asks a tier on behalf of a check: one upstream call, no retry, inside the request's time and money.

    What it costs is accounted for by who provides it, however the call ends.
    """

    async def __call__(self, tier: str, request: Request, *, timeout_s: float) -> Reply:
        """The tier's reply; raises a Failure. `request.max_tokens` is its limit."""


async def nobody(tier: str, request: Request, *, timeout_s: float) -> Reply:  # noqa: ARG001 - the protocol's
    """For a check that asks nobody. Raises NotAttempted."""
    raise NotAttempted("nobody_to_ask")


@dataclass(frozen=True, slots=True)
class Case:
    """What a check may look at, and whom it may `ask`. `earlier` are the reports of the checks before it."""

    request: Request
    reply: Reply
    tier: str
    earlier: tuple[CheckReport, ...]
    time_left_s: float
    ask: AskTier = nobody


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, with the score it rests on (P(good) where there is one) and what it cost to know.

    `cost_usd` is for what the check paid by itself: calls made through `Case.ask` are added by who provides it.
    """

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


@runtime_checkable
class PaidCheck(Check, Protocol):
    """A check that asks a tier, and so costs money."""

    @property
    def tier(self) -> str:
        """The tier that it asks; empty for the one that replied."""

    @property
    def model(self) -> str:
        """The model id that it is pinned to, part of its version; empty while it is not."""

    @property
    def uncertain(self) -> tuple[float, float]:
        """[low, high]: it is asked where the scorer's score is inside, and where there is no score."""

    def pinned(self, model: str) -> Self:
        """The same check, pinned to its tier's model id. ValueError where it is pinned to another one."""
