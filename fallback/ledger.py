"""The running record of one request: every attempt made and every dollar spent, whatever happens next.

The chain writes it as it goes, so that a request that fails or is cancelled leaves a true account.
"""

from __future__ import annotations

from dataclasses import replace

from fallback.types import Attempt, CheckReport, Reply


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

    def judged(self, reply: Reply, reports: tuple[CheckReport, ...]) -> None:
        """The checks of a reply have ended."""
        position = max(at for at, attempt in enumerate(self._attempts) if attempt.result is reply)
        self._attempts[position] = replace(self._attempts[position], checks=reports)
