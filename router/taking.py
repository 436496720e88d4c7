"""A grpc.aio server that takes many calls of a method at once.

grpc.aio asks its core for one call of each method at a time, and since 1.84 takes five turns of the event loop to get
it and to ask for the next (a task and an asyncio.wait for each; grpc/grpc#43461). A loop with work to do makes some
thousands of turns a second, so calls pile up in the core, where nobody here sees them, while a fifth of the processor
idles. Here the core always has several places to fill, and all that it filled is taken in those five turns.

Nothing public does that, so this reaches into grpc.aio: ADR 0025.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

_PLACES: Final = 16
_KNOWN: Final = "1.85."  # the versions whose inside is as it is used here

Options = list[tuple[str, int]]


def make_server(options: Options, busy: frozenset[str]) -> grpc.aio.Server:
    """A server that takes calls of the `busy` methods (paths) many at once.

    gRPC's own, which takes one at a time, where its inside is not known to be as it is used here.
    """
    if grpc.__version__.startswith(_KNOWN):
        return cast("grpc.aio.Server", _Server(options, busy))
    return grpc.aio.server(options=options)


class _Server(_server.Server):
    def __init__(self, options: Options, busy: frozenset[str]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(self._loop, busy, tuple(options))


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Its main loop asks for one call of each registered method, so a busy method is registered under many names.

    All lead to the same handler, and whichever it asks for, it gets a call of the method. The names are secret, because
    nobody would ever look at a call of one of them.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, busy: frozenset[str], options: tuple[tuple[str, int], ...]
    ) -> None:
        super().__init__(loop, None, (), (), options, None)
        self._busy = busy
        self._methods: dict[bytes, bytes] = {}

    def add_registered_method_handlers(self, handlers: Mapping[str, Any]) -> None:
        """Called by the generated code with the handlers by method."""
        places = dict(handlers)
        for method in self._busy & handlers.keys():
            for _ in range(_PLACES - 1):
                place = f"{method}/{secrets.token_hex()}"
                self._methods[place.encode()] = method.encode()
                places[place] = handlers[method]
        super().add_registered_method_handlers(places)

    def _make_request_call_future(self, place: bytes | None) -> asyncio.Future[Any]:
        """Called by the main loop for each place when it starts, and when it has taken the call in it."""
        future: asyncio.Future[Any] = super()._make_request_call_future(self._methods.get(place or b"", place))
        return future
