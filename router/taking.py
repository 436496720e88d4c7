"""A grpc.aio server that takes many calls of a method at once.

grpc.aio asks its core for one call of each method at a time, and since 1.84 takes five turns of the event loop to get
it and to ask for the next (a task and an asyncio.wait for each; grpc/grpc#43461). A loop with work to do makes some
thousands of turns a second, so calls pile up in the core, where nobody here sees them, while a fifth of the processor
idles. Here the core always has several places to fill, and each is filled anew as soon as its call is taken.

A call that is to be refused has no need of what gRPC prepares for a handler: two tasks and a notice should the caller
go away. Here a door is asked as soon as the request is there, and a refusal ends the call in three turns instead of
eight, and for less: under overload what refusing costs is taken from serving.

Nothing public does that, so this reaches into grpc.aio: ADR 0025 and 0026.
"""

# ruff: noqa: SLF001 - private things of grpc.aio are what it is about

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final, cast

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

from router.status import Refusal
from router.wakeups import KNOWN

_PLACES: Final = 16

Options = list[tuple[str, int]]
Door = Callable[[Any], Refusal | None]  # who of the requests may not come in


def make_server(options: Options, doors: Mapping[str, Door]) -> grpc.aio.Server:
    """A server that takes calls of some methods (paths) many at once, and asks their doors before it serves them.

    gRPC's own, which takes one at a time and asks no door, where its inside is not known to be as it is used here.
    """
    if KNOWN:
        return cast("grpc.aio.Server", _Server(options, doors))
    return grpc.aio.server(options=options)


class _Server(_server.Server):
    def __init__(self, options: Options, doors: Mapping[str, Door]) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(self._loop, doors, tuple(options))


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Its main loop waits for calls of all methods together; those of a method with a door are taken beside it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, doors: Mapping[str, Door], options: tuple[tuple[str, int], ...]
    ) -> None:
        super().__init__(loop, None, (), (), options, None)
        self._on = loop
        self._doors = {method.encode(): door for method, door in doors.items()}
        self._handlers: dict[bytes, Any] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = False

    def add_registered_method_handlers(self, handlers: Mapping[str, Any]) -> None:
        """Called by the generated code with the handlers by method."""
        self._handlers |= {method.encode(): handler for method, handler in handlers.items()}
        super().add_registered_method_handlers(dict(handlers))

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Called by the main loop for each method when it starts, and when it has taken a call of it."""
        if method is None or method not in self._doors:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        for _ in range(_PLACES):
            self._begin(self._take(method))
        return self._on.create_future()  # never done, so that the main loop leaves this method alone

    async def shutdown(self, grace: float | None) -> None:
        """Called by `stop`."""
        self._stopping = True
        await super().shutdown(grace)

    async def _take(self, method: bytes) -> None:
        """Fill a place with a call, have another place in its stead, and see the call to its end."""
        while True:
            try:
                call = await self._request_registered_call(method)
                break
            except cygrpc._RequestCallError:  # the server stops, or the call was gone before it was taken
                if self._stopping:
                    return
        self._begin(self._take(method))
        raw = await cygrpc._receive_message(call, self._on)
        if raw is None:  # the caller is gone
            return
        handler = self._handlers[method]
        refusal = self._refusal(method, handler, raw)
        if refusal is None:
            await cygrpc._schedule_rpc_coro(self._serve(handler, call, raw), call, self._on, method.decode())
        else:
            await self._refuse(call, refusal)

    def _refusal(self, method: bytes, handler: Any, raw: bytes) -> Refusal | None:
        try:
            return self._doors[method](handler.request_deserializer(raw))
        except Exception:  # noqa: BLE001 - whatever it is, it is told where the request is served
            return None

    async def _serve(self, handler: Any, call: Any, raw: bytes) -> None:
        request = handler.request_deserializer(raw)
        context = cygrpc._ServicerContext(call, None, None, self._on)
        await cygrpc._finish_handler_with_unary_response(
            call, handler.unary_unary, request, context, handler.response_serializer, self._on
        )

    async def _refuse(self, call: Any, refusal: Refusal) -> None:
        with suppress(cygrpc.ExecuteBatchError):  # the caller is gone
            await cygrpc._send_error_status_from_server(
                call,
                refusal.code.value[0],
                refusal.message,
                refusal.trailers,
                cygrpc.SendInitialMetadataOperation((), 0),
                self._on,
            )

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._on.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
