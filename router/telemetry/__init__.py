"""Traces and metrics of finished requests; the only part that knows OpenTelemetry.

Observation is data: the service works, then hands over the finished Outcome and the RPC's own facts. Nothing
here is on the way of a request, and nothing here can fail one.
"""

from router.telemetry.settings import AuditRun, RpcCall, Settings, TelemetryError
from router.telemetry.telemetry import Telemetry

__all__ = ["AuditRun", "RpcCall", "Settings", "Telemetry", "TelemetryError"]
