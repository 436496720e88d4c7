"""What audits found, on its way to the store: written in groups, again while the store is down, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from fallback.clock import Clock, ended_within
from router.outcome import Audit
from router.store import Store, StoreError, Unstorable

_GROUP = 64
_MOST = 1_000
_PAUSE_S = 1.0


class Errands(Protocol):
    """Runs a blocking errand at the store off the loop, as `router.recorder.Recorder` does."""

    def run(self, errand: Callable[[Store], Any]) -> Awaitable[Any]:
        """What the errand gives; raises StoreError."""


class AuditLog:
    """Belongs to one event loop. `lost` is told how many could not be written."""

    def __init__(self, errands: Errands, clock: Clock, lost: Callable[[Audit], None]) -> None:
        self._errands = errands
        self._clock = clock
        self._lost = lost
        self._waiting: deque[Audit] = deque()
        self._writer: asyncio.Task[None] | None = None

    def add(self, audit: Audit) -> None:
        """To be written soon."""
        if len(self._waiting) >= _MOST:
            self._lost(audit)
            return
        self._waiting.append(audit)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(), name="audit-log")

    async def close(self, timeout_s: float) -> None:
        """Write what waits for at most `timeout_s`; the rest is lost."""
        if self._writer is not None:
            await ended_within(self._writer, timeout_s, self._clock)
        while self._waiting:
            self._lost(self._waiting.popleft())

    async def _write(self) -> None:
        size = _GROUP
        while self._waiting:
            group = [self._waiting[i] for i in range(min(size, len(self._waiting)))]
            try:
                await self._errands.run(partial(_put, group))
            except Unstorable:
                if len(group) > 1:
                    size = 1  # one of them: find it by writing them one by one
                    continue
                self._lost(group[0])
            except StoreError:
                await self._clock.sleep(_PAUSE_S)
                continue
            for _ in group:
                self._waiting.popleft()


def _put(group: Sequence[Audit], store: Store) -> None:
    store.write_audits(group)
