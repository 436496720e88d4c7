"""The call of the service to itself by which it knows how long its callers wait to be looked at."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from fallback.clock import Clock
from router.admission import Admission
from router.line import Line
from router.v1 import router_pb2, router_pb2_grpc

_QUIET_S: Final = 0.05
_BUSY_S: Final = 0.01
_TIMEOUT_S: Final = 5.0
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what a listener is bound to, not a binding


async def sing(admission: Admission, host: str, port: int, clock: Clock) -> None:
    """Keep a canary in the line while requests come in or the line is long; for ever."""
    line = admission.line
    async with grpc.aio.insecure_channel(f"{_ANYWHERE.get(host, host)}:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        arrived, canary = -1, None
        while True:
            if (canary is None or canary.done()) and (line.pressed or arrived != admission.arrived):
                arrived = admission.arrived
                canary = asyncio.create_task(_one(line, stub))
            await clock.sleep(_BUSY_S if line.pressed else _QUIET_S)
            line.sample()


async def _one(line: Line, stub: router_pb2_grpc.RouterServiceAsyncStub) -> None:
    line.sent()
    try:
        await stub.Complete(router_pb2.CompleteRequest(idempotency_key=line.key), timeout=_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
            line.lost()
        else:
            line.unknown()
