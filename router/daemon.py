"""One thread for blocking calls, seen from an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Worker(Protocol):
    """Where blocking calls run, one after the other."""

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises.

        When the caller is cancelled, work that has begun goes on, and work that has not does not begin.
        """

    @property
    def queued(self) -> int:
        """Calls that have not begun, those of cancelled callers too."""

    def end(self) -> None:
        """Stop after the calls made so far, without waiting for them."""


class DaemonThread:
    """Runs blocking calls one after the other. A daemon: a store that hangs must not hold up the exit."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises.

        When the caller is cancelled, work that has begun goes on, and work that has not does not begin.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            if done.cancelled():
                return  # nobody wants it: doing it would only hold up those who still wait
            result: Any = None
            problem: Exception | None = None
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - carried to the caller, who knows what it means
                problem = error
            with contextlib.suppress(RuntimeError):  # the loop is gone, and the caller with it
                loop.call_soon_threadsafe(_resolve, done, result, problem)

        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return await done

    @property
    def queued(self) -> int:
        """Calls that have not begun, those of cancelled callers too."""
        return self._jobs.qsize()

    def end(self) -> None:
        """Stop after the calls made so far, without waiting for them."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _resolve(done: asyncio.Future[T], result: T, problem: Exception | None) -> None:
    if done.done():
        return  # cancelled meanwhile
    if problem is not None:
        done.set_exception(problem)
    else:
        done.set_result(result)
