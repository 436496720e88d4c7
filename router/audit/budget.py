"""What audits may still spend today, by workload. Pure; days are UTC days."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

DAY_S = 86_400.0


class Hold:
    """Money set aside for one audit, until it is known what it cost."""

    def __init__(self, budget: DayBudget, workload: str, usd: float) -> None:
        self.usd = usd
        self._budget = budget
        self._workload = workload

    def settle(self, cost_usd: float, wall_s: float) -> None:
        """It ended and cost this much; the rest may be spent again."""
        self._budget.settled(self._workload, self.usd, cost_usd, wall_s)
        self.usd = 0.0


class DayBudget:
    """Spent and set aside here together never exceed a workload's cap. A wall clock that steps back opens no new day.

    What other processes spend counts from when it is learned.
    """

    def __init__(self) -> None:
        self._day = 0
        self._spent_usd: defaultdict[str, float] = defaultdict(float)
        self._held_usd: defaultdict[str, float] = defaultdict(float)

    def learn(self, spent_usd: Mapping[str, float], wall_s: float) -> None:
        """What all processes have written down as spent, at `wall_s`; what was spent here may be in it or not."""
        self._turn(wall_s)
        if int(wall_s // DAY_S) == self._day:
            for workload, usd in spent_usd.items():
                self._spent_usd[workload] = max(self._spent_usd[workload], usd)

    def hold(self, workload: str, usd: float, *, cap_usd: float, wall_s: float) -> Hold | None:
        """Set aside the most that an audit may cost; None where that does not fit under the cap."""
        self._turn(wall_s)
        if self._spent_usd[workload] + self._held_usd[workload] + usd > cap_usd:
            return None
        self._held_usd[workload] += usd
        return Hold(self, workload, usd)

    def settled(self, workload: str, held_usd: float, cost_usd: float, wall_s: float) -> None:
        """Turn what was held into what was spent, on the day on which it ended."""
        self._turn(wall_s)
        self._held_usd[workload] = max(0.0, self._held_usd[workload] - held_usd)
        self._spent_usd[workload] += cost_usd

    def spent_usd(self, workload: str) -> float:
        """Spent on the current day."""
        return self._spent_usd[workload]

    def _turn(self, wall_s: float) -> None:
        day = int(wall_s // DAY_S)
        if day > self._day:
            self._day = day
            self._spent_usd.clear()
