"""The running record of one request: every attempt made and every dollar spent, whatever happens next.

The chain writes it as it goes, so that a request that fails or is cancelled leaves a true account.
"""

from __future__ import annotations

from dataclasses import replace

from fallback.types import Attempt, CheckReport


class Ledger:
    """Attempts in the order in which they ended."""

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self._attempts: list[Attempt] = []

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts so far."""
        return tuple(self._attempts)

    @property
    def cost_usd(self) -> float:
        """All attempts and checks so far, used or wasted."""
        return sum(attempt.cost_usd + sum(report.cost_usd for report in attempt.checks) for attempt in self._attempts)

    def attempted(self, attempt: Attempt) -> None:
        """An attempt has ended."""
        self._attempts.append(attempt)

    def judged(self, reports: tuple[CheckReport, ...]) -> None:
        """The checks of the last attempt have ended."""
        self._attempts[-1] = replace(self._attempts[-1], checks=reports)
