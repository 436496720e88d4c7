"""An event loop that hears gRPC once a turn, however much gRPC has to say.

grpc.aio's thread writes one byte into a socket for each event of its completion queue, and its reader takes one byte
out of it a turn of the loop, though it handles all events at once. The bytes that stay make turns that do nothing, and
where events come faster than turns the socket fills (278 bytes on Linux): the thread then waits for each turn to take
one byte before it hands over the next event, so that a call with its four events needs four turns, and those behind it
wait in the core. Here all bytes are taken before the events are handled. An event that comes later writes another.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVarTuple

import grpc
from grpc._cython import cygrpc

if TYPE_CHECKING:
    from _typeshed import HasFileno

# Whether gRPC's inside is as it is used here and in router/taking.py.
KNOWN: Final = grpc.__version__.startswith("1.85.")
_MANY: Final = 1 << 10  # more than the socket holds
Args = TypeVarTuple("Args")


class Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, but for the wake-ups of a `Speaker`."""

    Speaker: type = cygrpc.PollerCompletionQueue

    def add_reader(self, fd: int | HasFileno, callback: Callable[[*Args], Any], *args: *Args) -> None:
        """Call back when there is something to read."""
        if KNOWN and isinstance(fd, socket.socket) and isinstance(_owner(callback), self.Speaker):
            callback = _all_at_once(fd, callback)
        super().add_reader(fd, callback, *args)


def _owner(callback: Callable[..., Any]) -> object:
    """Whose method it is that a partial calls."""
    return getattr(callback.func, "__self__", None) if isinstance(callback, functools.partial) else None


def _all_at_once(wakeups: socket.socket, handle: Callable[[*Args], Any]) -> Callable[[*Args], None]:
    room = bytearray(_MANY)

    def heard(*args: *Args) -> None:
        with suppress(BlockingIOError):
            wakeups.recv_into(room)
        handle(*args)

    return heard
