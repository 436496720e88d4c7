"""The only place in the core that knows what time it is, and waiting by it. Everything else takes a Clock."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Protocol


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


async def done_within(task: asyncio.Future[Any], seconds: float, clock: Clock) -> bool:
    """Whether the task has ended after at most so long; it goes on where it has not. Without time, as it is."""
    if seconds <= 0.0:
        return task.done()
    timer = asyncio.ensure_future(clock.sleep(seconds))
    either: set[asyncio.Future[Any]] = {task, timer}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return task.done()


async def ended_within(task: asyncio.Future[Any], seconds: float, clock: Clock) -> None:
    """Let the task end by itself for at most so long, then cancel it; what it raises stays in it."""
    try:
        await done_within(task, seconds, clock)
    finally:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
