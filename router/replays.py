"""Idempotency: the same key again within the window gets the first reply and spends nothing.

Bounded, and in memory only, so that no text reaches the store; a restart forgets it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fallback.clock import Clock
from router.fields import InvalidField
from router.v1 import router_pb2

Make = Callable[[], Awaitable[router_pb2.CompleteResponse]]


class _Abandoned(Exception):
    """The first caller went away; somebody else has to do it."""


@dataclass(slots=True)
class _Entry:
    fingerprint: bytes
    expires_s: float
    future: asyncio.Future[router_pb2.CompleteResponse]
    size: int = 0  # bytes, once there is a reply


class Replays:
    """First replies by (workload, key)."""

    def __init__(self, *, window_s: float, max_entries: int, max_bytes: int, clock: Clock) -> None:
        self._window_s = window_s
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    async def once(self, key: tuple[str, str], fingerprint: bytes, make: Make) -> router_pb2.CompleteResponse:
        """The reply for `key`: the first one again (marked replayed), the one in flight, or a new one.

        Raises InvalidField when the key was used with another request, and what `make` raises; an
        error is shared with those who wait for it and then forgotten, so that a later try is a new one.
        """
        while True:
            self._expire()
            entry = self._entries.get(key)
            if entry is None:
                return await self._first(key, fingerprint, make)
            if entry.fingerprint != fingerprint:
                raise InvalidField("idempotency_key", "was used with a different request")
            try:
                first = await asyncio.shield(entry.future)
            except _Abandoned:
                continue
            again = router_pb2.CompleteResponse()
            again.CopyFrom(first)
            again.replayed = True
            return again

    async def _first(self, key: tuple[str, str], fingerprint: bytes, make: Make) -> router_pb2.CompleteResponse:
        future: asyncio.Future[router_pb2.CompleteResponse] = asyncio.get_running_loop().create_future()
        entry = _Entry(fingerprint, self._clock.monotonic_s() + self._window_s, future)
        self._entries[key] = entry
        try:
            reply = await make()
        except BaseException as error:
            del self._entries[key]
            # Only the first caller's own going away leaves something to do for the others.
            future.set_exception(error if isinstance(error, Exception) else _Abandoned())
            future.exception()  # nobody may be waiting: mark it as seen
            raise
        entry.size = reply.ByteSize()
        self._bytes += entry.size
        future.set_result(reply)
        self._expire()
        return reply

    def _expire(self) -> None:
        """Forgets the oldest finished replies past the window, the count or the bytes."""
        now_s = self._clock.monotonic_s()
        gone: list[tuple[str, str]] = []
        for key, entry in self._entries.items():
            over = len(self._entries) - len(gone) > self._max_entries or self._bytes > self._max_bytes
            if not over and entry.expires_s > now_s:
                break
            if entry.future.done():
                gone.append(key)
                self._bytes -= entry.size
        for key in gone:
            del self._entries[key]
