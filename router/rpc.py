"""One call at the edge: how it ended, told to the caller and to telemetry."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from grpc_status import rpc_status

from fallback.clock import Clock
from router.completion import Completion
from router.fields import InvalidField
from router.status import Refusal, invalid
from router.telemetry import RpcCall, Telemetry

Response = TypeVar("Response")
_log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class Rpc:
    """Times one call, ends it with its status, and reports it to telemetry exactly once."""

    def __init__(self, method: str, context: Context, clock: Clock, telemetry: Telemetry) -> None:
        self._method = method
        self._context: Any = context  # the stubs do not know abort_with_status
        self._clock = clock
        self._telemetry = telemetry
        self._wall_s, self._started_s = clock.wall_s(), clock.monotonic_s()
        self.metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.completion: Completion | None = None

    async def answer(self, work: Callable[[], Awaitable[Response]]) -> Response:
        """What `work` gives; a Refusal becomes its gRPC status with details."""
        try:
            response = await work()
        except InvalidField as error:
            refusal = invalid(error)
        except Refusal as error:
            refusal = error
        except asyncio.CancelledError:
            left_s = self._context.time_remaining()
            self._ended("DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED")
            raise
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the caller gets a status
            _log.error("unexpected %s in %s", type(error).__name__, self._method, exc_info=error)
            refusal = Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "an unexpected error; see the service's log")
        else:
            self._ended("OK")
            return response
        self._ended(refusal.code.name)
        await self._context.abort_with_status(rpc_status.to_status(refusal.status))
        raise AssertionError("abort never returns")

    def _ended(self, status: str) -> None:
        duration_s = self._clock.monotonic_s() - self._started_s
        rpc = RpcCall(self._method, status, self._wall_s, duration_s, self.metadata)
        outcome = self.completion.outcome if self.completion is not None else None
        if outcome is None:
            self._telemetry.rpc(rpc)
        else:
            self._telemetry.record(outcome, rpc)
