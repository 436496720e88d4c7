"""The service's loop takes all of gRPC's wake-ups at once, and everybody else's as asyncio does."""

from __future__ import annotations

import asyncio
import functools
import socket
from contextlib import suppress
from typing import Any

import grpc
import pytest

from router.v1 import router_pb2, router_pb2_grpc
from router.wakeups import Loop


class Told:
    """A reader that takes one byte each time it is called, as gRPC's does."""

    def __init__(self, heard: socket.socket) -> None:
        self._heard = heard
        self.calls = 0

    def handle(self, loop: asyncio.AbstractEventLoop) -> None:
        del loop
        self.calls += 1
        with suppress(BlockingIOError):
            self._heard.recv(1)


class Deaf(Loop):
    """A loop that takes Told for gRPC."""

    Speaker = Told


async def calls_after(wakeups: int) -> int:
    """How often a reader is called for so many bytes."""
    loop = asyncio.get_running_loop()
    heard, says = socket.socketpair()
    with heard, says:
        heard.setblocking(False)
        told = Told(heard)
        says.send(b"1" * wakeups)
        loop.add_reader(heard, functools.partial(told.handle, loop))
        for _ in range(wakeups + 5):
            await asyncio.sleep(0)
        loop.remove_reader(heard)
    return told.calls


@pytest.mark.parametrize(("loop", "calls"), [(Deaf, 1), (Loop, 50), (asyncio.SelectorEventLoop, 50)])
def test_all_bytes_are_one_wakeup_where_grpc_speaks_and_nowhere_else(loop: Any, calls: int) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(calls_after(50)) == calls


def test_a_wakeup_after_the_last_one_was_heard_is_heard_too() -> None:
    async def two() -> int:
        return await calls_after(3) + await calls_after(1)

    with asyncio.Runner(loop_factory=Deaf) as runner:
        assert runner.run(two()) == 2


class Echo(router_pb2_grpc.RouterServiceServicer):
    """Answers with the caller's own words."""

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802 - the wire's name
        """One call."""
        del context
        return router_pb2.CompleteResponse(request_id=request.idempotency_key)


def test_grpc_works_on_it() -> None:
    async def ask() -> list[str]:
        server = grpc.aio.server()
        router_pb2_grpc.add_RouterServiceServicer_to_server(Echo(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            asked = [router_pb2.CompleteRequest(idempotency_key=str(number)) for number in range(400)]
            answers = await asyncio.gather(*(stub.Complete(each) for each in asked))
        await server.stop(None)
        return [answer.request_id for answer in answers]

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(ask()) == [str(number) for number in range(400)]
