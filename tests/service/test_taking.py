"""The listener takes many calls of a busy method at once, and is otherwise what gRPC's own server is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from router.status import Refusal
from router.taking import Door, make_server
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


def open_door(request: Any) -> None:
    """Lets everybody in."""
    del request


@asynccontextmanager
async def listening(servicer: Slow, door: Door = open_door) -> AsyncIterator[tuple[grpc.aio.Server, grpc.aio.Channel]]:
    server = make_server([("grpc.so_reuseport", 0)], {COMPLETE: door})
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
    monkeypatch.setattr("router.taking.KNOWN", version == grpc.__version__)
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


def odd_ones_out(request: router_pb2.CompleteRequest) -> Refusal | None:
    """A door that refuses every other caller."""
    if int(request.idempotency_key) % 2 == 0:
        return None
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", "the service is at its limit", 0.5)


async def test_who_is_refused_at_the_door_is_told_why_and_when_to_come_back_and_no_handler_sees_it() -> None:
    servicer = Slow()
    async with listening(servicer, odd_ones_out) as (_, channel):
        stub = router_pb2_grpc.RouterServiceStub(channel)
        calls = [stub.Complete(router_pb2.CompleteRequest(idempotency_key=str(number))) for number in range(60)]
        for call in calls[1::2]:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            status = rpc_status.from_call(caught.value)
            assert status is not None
            assert (status.code, status.message) == (8, "the service is at its limit")
            assert [detail.type_url.rpartition(".")[2] for detail in status.details] == ["ErrorInfo", "RetryInfo"]
        await inside(servicer, 30)
        servicer.let.set()
        assert [(await call).request_id for call in calls[::2]] == [str(number) for number in range(0, 60, 2)]
    assert servicer.inside == {str(number) for number in range(0, 60, 2)}


async def test_a_door_that_fails_lets_everybody_in() -> None:
    servicer = Slow()
    servicer.let.set()
    async with listening(servicer, odd_ones_out) as (_, channel):
        stub = router_pb2_grpc.RouterServiceStub(channel)
        assert (await stub.Complete(router_pb2.CompleteRequest(idempotency_key="no number"))).request_id == "no number"


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_no_request_ends_as_with_grpcs_own_server(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.taking.KNOWN", version == grpc.__version__)
    async with listening(Slow()) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(COMPLETE)(b"\xff\xff")
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
