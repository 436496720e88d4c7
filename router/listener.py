"""The gRPC listener: what is served on it, and how it is left without a call lost."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fallback.clock import Clock
from router.admission import Admission
from router.config import Config
from router.feedback import FeedbackServicer
from router.health import Health
from router.servicer import RouterServicer
from router.taking import make_server
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc

_COMPLETE = "/router.v1.RouterService/Complete"
_QUIET_S = 0.05
_TURN_AWAY_MOST_S = 5.0


def make_listener(
    config: Config, *, router: RouterServicer, feedback: FeedbackServicer, health: Health
) -> grpc.aio.Server:
    """A server with the three services, and reflection where it is wanted; not listening yet."""
    options = [
        ("grpc.so_reuseport", 0),  # else a second service binds the same port without a word
        # Calls pile up in the listener, seen by nobody, when they come faster than the loop takes them.
        ("grpc.server.max_pending_requests", config.admission.max_pending),
        ("grpc.server.max_pending_requests_hard_limit", 2 * config.admission.max_pending),
        ("grpc.max_receive_message_length", config.server.max_message_bytes),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = make_server(options, {_COMPLETE: router.turned_away})
    router_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
    feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(feedback, server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    if config.server.reflection:
        files = (router_pb2.DESCRIPTOR, feedback_pb2.DESCRIPTOR)
        names = [name for file in files for name in (s.full_name for s in file.services_by_name.values())]
        reflection.enable_server_reflection((*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server)
    return server


async def turn_away(admission: Admission, clock: Clock, *, grace_s: float) -> float:
    """Answer what still comes in with UNAVAILABLE until nothing does; the seconds that took, at most half the grace.

    A call that is on its way when the listener closes is seen by nobody here: gRPC's core ends it as CANCELLED, which
    callers take for their own doing. At 300 calls a second that happened in three stops of eight, to one call each,
    as long as a stop waited for a second only; a caller who goes on asking for longer than this may still see it.
    """
    admission.close()
    began_s = clock.monotonic_s()
    while clock.monotonic_s() - began_s < min(_TURN_AWAY_MOST_S, grace_s / 2):
        before = admission.arrived
        await clock.sleep(_QUIET_S)
        if admission.arrived == before:
            break
    return clock.monotonic_s() - began_s
