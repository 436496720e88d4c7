"""The ways out, all of them OpenTelemetry's own: spans by OTLP, metrics by OTLP and on a Prometheus page."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.metrics.export import (
    CardinalityLimits,
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracerProvider, TracerProvider
from prometheus_client import CollectorRegistry, start_http_server

from router.telemetry.settings import Destination, Settings, TelemetryError
from router.telemetry.traces import TraceIds

Job = Callable[[], object]

# Our own bound (workloads folded into `_other_`) is below this; the SDK's default of 2,000 is not.
_LIMITS: CardinalityLimits = {sdk_metrics.Histogram: 20_000, sdk_metrics.ObservableCounter: 20_000}
# Spans that are sent at once. The thread that encodes them takes the interpreter from the event loop, which with the
# SDK's own 512 added 38 ms to the 99th percentile at 200 requests a second, with 64 it is 13.
_BATCH = 64
_BATCH_VARIABLE = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_log = logging.getLogger(__name__)


@dataclass
class Ends:
    """How to flush and to close what was started; every job may block."""

    flush: list[Job] = field(default_factory=list)
    close: list[Job] = field(default_factory=list)
    prometheus_port: int | None = None


def meter_provider(settings: Settings, to: Destination | None, resource: Resource, ends: Ends) -> MeterProvider:
    """Metrics to a page, to a collector, to both, or to nobody."""
    readers: list[MetricReader] = []
    if settings.prometheus_port is not None:
        readers.append(_prometheus(settings.prometheus_host, settings.prometheus_port, ends))
    if to is not None:
        pushing = PeriodicExportingMetricReader(_metric_exporter(to), cardinality_limits=_LIMITS)
        ends.flush.append(pushing.force_flush)
        readers.append(pushing)
    if not readers:
        return NoOpMeterProvider()
    provider = sdk_metrics.MeterProvider(
        readers, resource, sdk_metrics.AlwaysOffExemplarFilter(), shutdown_on_exit=False
    )
    ends.close.append(provider.shutdown)
    return provider


def tracer_provider(
    settings: Settings, to: Destination | None, resource: Resource, meters: MeterProvider, ends: Ends
) -> TracerProvider:
    """Spans to a collector or to nobody; what is dropped and exported is counted by `meters` (see Settings)."""
    if to is None:
        return NoOpTracerProvider()
    provider = sdk_trace.TracerProvider(
        _sampler(settings.sample_ratio),
        resource,
        shutdown_on_exit=False,
        id_generator=TraceIds(),
        meter_provider=meters,
    )
    exporter = _span_exporter(to, meters)
    batch = None if _BATCH_VARIABLE in os.environ else _BATCH
    provider.add_span_processor(BatchSpanProcessor(exporter, max_export_batch_size=batch, meter_provider=meters))
    ends.flush.append(provider.force_flush)
    ends.close.append(provider.shutdown)
    return provider


def _sampler(ratio: float | None) -> Sampler | None:
    if ratio is None:
        return None  # the SDK reads OTEL_TRACES_SAMPLER
    if not 0.0 <= ratio <= 1.0:
        raise TelemetryError(f"sample_ratio {ratio}: expected a number from 0 to 1")
    return ParentBased(TraceIdRatioBased(ratio))


def _prometheus(host: str, port: int, ends: Ends) -> MetricReader:
    registry = CollectorRegistry()
    try:
        server, _ = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise TelemetryError(f"prometheus endpoint {host}:{port}: {error}") from error

    def close() -> None:
        server.shutdown()
        server.server_close()

    ends.close.append(close)
    ends.prometheus_port = server.server_port
    return PrometheusMetricReader(scope_info_enabled=False, registry=registry, cardinality_limits=_LIMITS)


# The exporters are imported where they are made: half a second, for those who export.


def _span_exporter(to: Destination, meters: MeterProvider) -> SpanExporter:
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(to.endpoint, meter_provider=meters)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    return http.OTLPSpanExporter(to.endpoint, meter_provider=meters)


def _metric_exporter(to: Destination) -> MetricExporter:
    if to.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

        return grpc.OTLPMetricExporter(to.endpoint)
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

    return http.OTLPMetricExporter(to.endpoint)


def within(timeout_s: float, jobs: Sequence[Job]) -> bool:
    """Run blocking jobs side by side on daemon threads; whether all ended well within `timeout_s` seconds.

    Never returns later (the SDK's own shutdown takes 30 s where a collector is silent): a job that hangs is left
    behind on a thread that cannot hold the process.
    """
    ended: list[bool] = []

    def run(job: Job) -> None:
        try:
            ended.append(job() is not False)
        except Exception as error:  # noqa: BLE001 - the edge of this thread
            _log.error("telemetry did not close cleanly: %s", type(error).__name__)

    deadline = monotonic() + timeout_s
    threads = [threading.Thread(target=run, args=(job,), name="tierwise-telemetry", daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return len(ended) == len(jobs) and all(ended)
