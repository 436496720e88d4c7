"""An event loop whose time jumps to the next thing that is due: hours pass in milliseconds, in one order."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

_START_S = 1_000.0
_WALL_S = 1_790_000_000.0


class Stuck(AssertionError):
    """Something waits for what can never come."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting for files, moves the loop's time on."""

    jump: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits, and nothing is due")
        if timeout > 0:
            self.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`tasks_of` gives the tasks begun inside `owner` and still under way, so that a process can be killed."""

    owner: ContextVar[object | None] = ContextVar("owner", default=None)

    def __init__(self) -> None:
        selector = _Jump()
        selector.jump = self._jump
        self._now_s = _START_S
        super().__init__(selector)
        self._owned: dict[asyncio.Task[Any], object | None] = {}
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def tasks_of(self, owner: object) -> list[asyncio.Task[Any]]:
        return [task for task, its in self._owned.items() if its is owner]

    def _jump(self, seconds: float) -> None:
        self._now_s += seconds

    def _make_task(self, loop: asyncio.AbstractEventLoop, work: Any, **named: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **named)
        self._owned[task] = self.owner.get()
        task.add_done_callback(lambda done: self._owned.pop(done, None))
        return task


class VirtualClock:
    """The loop's time as a Clock; the wall clock may be stepped."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.step_s = 0.0

    def monotonic_s(self) -> float:
        return self._loop.time()

    def wall_s(self) -> float:
        return _WALL_S + self._loop.time() + self.step_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtually(work: Callable[[VirtualLoop], Awaitable[None]]) -> None:
    """Runs `work` to its end on a loop of its own; what is still under way then is cancelled."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work(loop))
    finally:
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
