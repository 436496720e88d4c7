"""Idempotency: the same key again within the window gets the first reply and spends nothing.

Bounded, and in memory only, so that no text reaches the store; a restart forgets it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fallback.clock import Clock
from router.status import Refusal
from router.translate import InvalidField
from router.v1 import router_pb2

Make = Callable[[], Awaitable[router_pb2.CompleteResponse]]


class _Abandoned(Exception):  # noqa: N818 - a signal between two callers, never an error
    """The first caller went away; somebody else has to do it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    fingerprint: bytes
    expires_s: float
    future: asyncio.Future[router_pb2.CompleteResponse]


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

        Raises InvalidField when the key was used with another request, and what `make` raises; a
        refusal is shared with those who wait for it and then forgotten, so that a later try is a new one.
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
        self._entries[key] = _Entry(fingerprint, self._clock.monotonic_s() + self._window_s, future)
        try:
            reply = await make()
        except BaseException as error:
            del self._entries[key]
            future.set_exception(error if isinstance(error, Refusal | InvalidField) else _Abandoned())
            future.exception()  # nobody may be waiting: mark it as seen
            raise
        future.set_result(reply)
        self._bytes += reply.ByteSize()
        self._expire()
        return reply

    def _expire(self) -> None:
        """Forgets the oldest finished replies past the window, the count or the bytes."""
        now_s = self._clock.monotonic_s()
        for key, entry in list(self._entries.items()):
            over = len(self._entries) > self._max_entries or self._bytes > self._max_bytes
            if not over and entry.expires_s > now_s:
                break
            if entry.future.done():
                del self._entries[key]
                self._bytes -= entry.future.result().ByteSize()
