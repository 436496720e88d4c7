"""The gRPC listener: what is served on it, and how it is left without a call lost."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fallback.clock import Clock
from router.admission import Admission
from router.config import Config
from router.health import Health
from router.servicer import FeedbackServicer, RouterServicer
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc

_TURN_AWAY_S, _TURN_AWAY_TIMES = 0.05, 20


def make_listener(
    config: Config, *, router: RouterServicer, feedback: FeedbackServicer, health: Health
) -> grpc.aio.Server:
    """A server with the three services, and reflection where it is wanted; not listening yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # else a second service binds the same port without a word
            # Calls pile up in the listener, seen by nobody, when they come faster than the loop takes them.
            ("grpc.server.max_pending_requests", config.admission.max_pending),
            ("grpc.server.max_pending_requests_hard_limit", 2 * config.admission.max_pending),
            ("grpc.max_receive_message_length", config.server.max_message_bytes),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
    )
    router_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(feedback, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if config.server.reflection:
        files = (router_pb2.DESCRIPTOR, feedback_pb2.DESCRIPTOR)
        names = [name for file in files for name in (s.full_name for s in file.services_by_name.values())]
        reflection.enable_server_reflection((*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    return server


async def turn_away(admission: Admission, clock: Clock) -> None:
    """Answer what still comes in with UNAVAILABLE until nothing does, for a second at most.

    What the listener has taken and nobody has looked at when it closes ends as CANCELLED, which callers
    take for their own doing.
    """
    admission.close()
    for _ in range(_TURN_AWAY_TIMES):
        before = admission.arrived
        await clock.sleep(_TURN_AWAY_S)
        if admission.arrived == before:
            return
