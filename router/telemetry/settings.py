"""What telemetry is told to do. Frozen values; reads the environment only where it is handed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fallback.types import Attempt

OtlpProtocol = Literal["grpc", "http/protobuf"]
Signal = Literal["traces", "metrics"]

_PROTOCOLS: tuple[OtlpProtocol, ...] = ("grpc", "http/protobuf")


class TelemetryError(Exception):
    """Telemetry cannot start as configured. Says which setting and why."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one signal goes. `endpoint` None: the exporter reads the standard variables itself."""

    protocol: OtlpProtocol
    endpoint: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """Telemetry settings; the defaults do nothing but what the standard OTEL_ variables ask for.

    `otlp_endpoint`: base URL of a collector (`http://host:4317`, over HTTP `http://host:4318`).
    None: the OTEL_EXPORTER_OTLP_* variables; where those are unset too, nothing is exported.
    `protocol` None: OTEL_EXPORTER_OTLP_PROTOCOL, else grpc. `service_name` empty: OTEL_SERVICE_NAME, else tierwise.
    `sample_ratio`: share of traces kept where the caller has not decided, 0 to 1. None: OTEL_TRACES_SAMPLER,
    else all. `prometheus_port` None: no metrics endpoint; 0: any free port.
    `max_workloads`: workloads beyond it are counted as `_other_`.
    `providers`: `gen_ai.provider.name` by endpoint (aws.bedrock, gcp.vertex_ai ...), anthropic where unnamed.

    The rest is the SDK's: OTEL_BSP_* (queue and batch of spans), OTEL_METRIC_EXPORT_INTERVAL,
    OTEL_METRICS_EXPORTER=none (a Jaeger takes spans only), OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED=true (spans
    dropped and exported, as metrics).
    """

    otlp_endpoint: str | None = None
    protocol: OtlpProtocol | None = None
    service_name: str = ""
    sample_ratio: float | None = None
    prometheus_host: str = "127.0.0.1"
    prometheus_port: int | None = None
    max_workloads: int = 200
    providers: Mapping[str, str] = field(default_factory=dict)

    def destination(self, signal: Signal, environ: Mapping[str, str]) -> Destination | None:
        """Where `signal` is exported to, if anywhere."""
        name = signal.upper()
        if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get(f"OTEL_{name}_EXPORTER") == "none":
            return None
        if self.otlp_endpoint is None and not (
            environ.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        ):
            return None
        protocol = self.protocol or (
            environ.get(f"OTEL_EXPORTER_OTLP_{name}_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
        )
        if protocol not in _PROTOCOLS:
            raise TelemetryError(f"OTLP protocol {protocol[:32]!r}: expected one of {', '.join(_PROTOCOLS)}")
        return Destination(protocol, self._endpoint(signal, protocol))

    def _endpoint(self, signal: Signal, protocol: OtlpProtocol) -> str | None:
        if self.otlp_endpoint is None:
            return None
        if not self.otlp_endpoint.startswith(("http://", "https://")):
            raise TelemetryError("otlp_endpoint: expected a URL that starts with http:// or https://")
        if protocol == "grpc":
            return self.otlp_endpoint
        # Over HTTP each signal has its own path; the setting is the base URL, as in the standard variable.
        return f"{self.otlp_endpoint.rstrip('/')}/v1/{signal}"


@dataclass(frozen=True, slots=True)
class RpcCall:
    """One finished RPC as the servicer saw it.

    `method` is fully qualified, without a leading slash: `router.v1.RouterService/Complete`. `status` is
    the gRPC status name sent to the caller. `started_wall_s` is seconds since the epoch, `duration_s`
    comes from the monotonic clock. `metadata`: the caller's, of which only `traceparent` and `tracestate` are
    ever read.
    """

    method: str
    status: str
    started_wall_s: float
    duration_s: float
    metadata: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class AuditRun:
    """How an audit went: when it began (seconds since the epoch) and how long it took, and its upstream calls.

    `trace_id` is that of the audited request's own trace.
    """

    started_wall_s: float
    duration_s: float
    trace_id: str
    attempts: tuple[Attempt, ...] = ()
