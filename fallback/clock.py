"""The only place in the core that knows what time it is. Everything else takes a Clock."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Durations and deadlines come from `monotonic_s`; wall time is only ever recorded."""

    def monotonic_s(self) -> float:
        """Seconds on a clock that never steps."""

    def wall_s(self) -> float:
        """Seconds since the epoch; may step."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_s(self) -> float:
        """Seconds on the system's monotonic clock."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)
