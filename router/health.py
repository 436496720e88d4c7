"""Health that tells the truth: of the service, and of each thing it depends on.

`""` and `router.v1.RouterService` say whether requests are answered. `tierwise.model`,
`tierwise.store` and `tierwise.provider` say how their part is, `tierwise.drift` that no alarm stands: a store that
is down or a model that is missing degrades the service, it does not stop it.
"""

from __future__ import annotations

from collections.abc import Callable

from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from fallback.clock import Clock

SERVICES = ("", "router.v1.RouterService", "router.v1.FeedbackService")
_EVERY_S = 0.5


class Health:
    """Feeds the standard gRPC health service. The probes are cheap and give True for well."""

    def __init__(
        self,
        *,
        model: Callable[[], bool],
        store: Callable[[], bool],
        provider: Callable[[], bool],
        drift: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self.servicer = HealthServicer()
        self._parts = {
            "tierwise.model": model,
            "tierwise.store": store,
            "tierwise.provider": provider,
            "tierwise.drift": drift,
        }
        self._clock = clock

    def states(self) -> dict[str, bool]:
        """Each part's own state, for metrics."""
        return {name.removeprefix("tierwise."): probe() for name, probe in self._parts.items()}

    async def update(self) -> None:
        """Publish the state of everything now. Without any usable provider no request can be answered."""
        parts = {name: probe() for name, probe in self._parts.items()}
        for name, well in parts.items():
            await self.servicer.set(name, _status(well=well))
        for name in SERVICES:
            await self.servicer.set(name, _status(well=parts["tierwise.provider"]))

    async def watch(self) -> None:
        """Update for ever."""
        while True:
            await self.update()
            await self._clock.sleep(_EVERY_S)

    async def leave(self) -> None:
        """Say NOT_SERVING from now on, whatever comes: load balancers go elsewhere."""
        await self.servicer.enter_graceful_shutdown()


def _status(*, well: bool) -> health_pb2.HealthCheckResponse.ServingStatus:
    serving = health_pb2.HealthCheckResponse
    return serving.SERVING if well else serving.NOT_SERVING
