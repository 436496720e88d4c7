"""The listener takes many calls of a busy method at once, and is otherwise what gRPC's own server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from router.taking import make_server
from router.v1 import router_pb2, router_pb2_grpc
from tests.support.emulator import until

COMPLETE = "/router.v1.RouterService/Complete"
VERSIONS = [grpc.__version__, "99.0.0"]  # as it is used here, and one whose inside is not known


class Slow(router_pb2_grpc.RouterServiceServicer):
    """Answers with the caller's own words when it is let; notes who was cancelled."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        self.cancelled: set[str] = set()
        self.let = asyncio.Event()

    async def Complete(self, request: Any, context: Any) -> Any:  # noqa: N802 - the wire's name
        """One call."""
        del context
        self.inside.add(request.idempotency_key)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.add(request.idempotency_key)
            raise
        return router_pb2.CompleteResponse(request_id=request.idempotency_key)

    async def Route(self, request: Any, context: Any) -> Any:  # noqa: N802 - the wire's name
        """A method that is not busy."""
        del request, context
        return router_pb2.RouteResponse()


@asynccontextmanager
async def listening(servicer: Slow) -> AsyncIterator[tuple[grpc.aio.Server, grpc.aio.Channel]]:
    server = make_server([("grpc.so_reuseport", 0)], frozenset({COMPLETE}))
    router_pb2_grpc.add_RouterServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield server, channel
    finally:
        await server.stop(None)


async def inside(servicer: Slow, count: int) -> None:
    await until(lambda: len(servicer.inside) == count)


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_call_is_taken_and_gets_its_own_answer(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", version)
    servicer = Slow()
    async with listening(servicer) as (_, channel):
        stub = router_pb2_grpc.RouterServiceStub(channel)
        keys = [str(number) for number in range(300)]
        calls = [stub.Complete(router_pb2.CompleteRequest(idempotency_key=key)) for key in keys]
        await inside(servicer, 300)
        await stub.Route(router_pb2.RouteRequest())
        servicer.let.set()
        assert [(await call).request_id for call in calls] == keys


async def test_a_caller_who_goes_away_is_noticed_whichever_place_took_the_call() -> None:
    servicer = Slow()
    async with listening(servicer) as (_, channel):
        stub = router_pb2_grpc.RouterServiceStub(channel)
        calls = [stub.Complete(router_pb2.CompleteRequest(idempotency_key=str(number))) for number in range(40)]
        await inside(servicer, 40)
        for call in calls[::2]:
            call.cancel()
        await until(lambda: len(servicer.cancelled) == 20)
        servicer.let.set()
        assert [(await call).request_id for call in calls[1::2]] == [str(number) for number in range(1, 40, 2)]
        assert servicer.cancelled == {str(number) for number in range(0, 40, 2)}


async def test_a_stop_lets_those_inside_finish_and_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    servicer = Slow()
    before = asyncio.all_tasks()
    async with listening(servicer) as (server, channel):
        stub = router_pb2_grpc.RouterServiceStub(channel)
        calls = [stub.Complete(router_pb2.CompleteRequest(idempotency_key=str(number))) for number in range(40)]
        await inside(servicer, 40)
        stopping = asyncio.create_task(server.stop(30))
        await asyncio.sleep(0)
        servicer.let.set()
        assert len([await call for call in calls]) == 40
        await stopping
    assert asyncio.all_tasks() <= before | {stopping}
    assert not caplog.records


async def test_no_method_is_served_that_was_not_registered() -> None:
    async with listening(Slow()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"{COMPLETE}/1")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
