"""Telemetry of one process: started once, handed every finished RPC, shut down within its time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from router.outcome import Outcome
from router.telemetry import safe, traces
from router.telemetry.instruments import Spec
from router.telemetry.pipelines import Meters, Traces, resource, within
from router.telemetry.settings import RpcCall, Settings

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_log = logging.getLogger(__name__)


class Telemetry:
    """Spans and metrics of finished requests. Every method is cheap but `flush` and `shutdown`, and none raises.

    Holds its own providers: nothing global is set, and several may live in one process.
    """

    def __init__(self, spans: Traces | None, meters: Meters | None) -> None:
        self._traces = spans
        self._meters = meters
        self._closed = False

    @classmethod
    def start(cls, settings: Settings, *, resource_attributes: Mapping[str, str] | None = None) -> Telemetry:
        """Start what the settings and the OTEL_ variables ask for; raises TelemetryError where that cannot be.

        With neither an OTLP endpoint nor a Prometheus port there is no thread, no exporter and no cost.
        """
        where = settings.destination("traces", os.environ)
        metrics_where = settings.destination("metrics", os.environ)
        if where is None and metrics_where is None and settings.prometheus_port is None:
            return cls(None, None)
        who = resource(settings, resource_attributes or {})
        counted = metrics_where is not None or settings.prometheus_port is not None
        meters = Meters(settings, metrics_where, who) if counted else None
        spans = Traces(settings, where, who) if where is not None else None
        if meters is not None:
            meters.watch(spans)
        return cls(spans, meters)

    @property
    def tracing(self) -> bool:
        """Whether spans are exported."""
        return self._traces is not None

    @property
    def prometheus_port(self) -> int | None:
        """The port of the metrics endpoint; None where there is none."""
        return self._meters.port if self._meters is not None else None

    @staticmethod
    def trace_id(metadata: Mapping[str, str | bytes], request_id: str) -> str:
        """The trace id, as 32 hex digits, that this request's spans have or would have; for log lines."""
        return traces.trace_id(traces.caller_context(metadata), request_id).hex()

    # --- what happened -------------------------------------------------------------------------------

    def record(self, outcome: Outcome, rpc: RpcCall) -> None:
        """A request ended, well or not: its trace and its counts."""
        if self._meters is not None:
            self._meters.metrics.record(outcome, rpc)
        self._trace(rpc, outcome)

    def rpc(self, rpc: RpcCall) -> None:
        """An RPC without an outcome ended: Route, ReportOutcome, a replayed or an invalid Complete."""
        if self._meters is not None:
            self._meters.metrics.rpc(rpc)
        self._trace(rpc, None)

    def feedback(self, workload: str, *, good: bool) -> None:
        """A caller judged a reply."""
        if self._meters is not None:
            self._meters.metrics.feedback(workload, good=good)

    def _trace(self, rpc: RpcCall, outcome: Outcome | None) -> None:
        if self._traces is not None:
            spans = self._traces.builder.build(rpc, outcome)
            if spans:
                self._traces.queue.offer(spans)

    # --- what is: read when somebody looks, on the reader's thread, so quick and thread-safe ----------

    def watch_queues(self, read: Callable[[], Mapping[str, float]]) -> None:
        """How many wait, by queue."""
        self._gauge("tierwise.queue.depth", "{item}", "Waiting in a queue", "queue", read)

    def watch_breakers(self, read: Callable[[], Mapping[tuple[str, str], str]]) -> None:
        """Breaker state (closed, half_open or open) by endpoint and tier, a provider's own by (provider, '')."""
        if self._meters is None:
            return
        spec = Spec("tierwise.breaker.state", "", "0 closed, 1 half open, 2 open", ("endpoint", "tier"))
        self._meters.gauge(
            spec,
            lambda: {
                (safe.name(endpoint), safe.name(tier)): _BREAKER_STATES.get(state, 2)
                for (endpoint, tier), state in read().items()
            },
        )

    def watch_model(self, read: Callable[[], str]) -> None:
        """The version of the model in use; empty without one."""
        self._gauge("tierwise.model.info", "", "1 for the model in use", "version", lambda: {read() or "none": 1})

    def watch_recorder(self, read: Callable[[], Mapping[str, int]]) -> None:
        """Outcomes by what became of them (recorded, dropped ...), counted since the start."""
        if self._meters is None:
            return
        spec = Spec("tierwise.recorder.outcomes", "{outcome}", "Outcomes by what became of them", ("result",))
        self._meters.sum(spec, lambda: {(safe.code(result),): count for result, count in read().items()})

    def watch_health(self, read: Callable[[], Mapping[str, bool]]) -> None:
        """Whether each component is well."""
        self._gauge("tierwise.health", "", "1 well, 0 not", "component", read)

    def watch_drift(self, read: Callable[[], Mapping[str, float]]) -> None:
        """How far the requests of now are from those that the model learned from, by workload or feature."""
        self._gauge("tierwise.drift", "", "Distance from the training data", "of", read)

    def _gauge(
        self, name: str, unit: str, description: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        if self._meters is not None:
            spec = Spec(name, unit, description, (label,))
            self._meters.gauge(spec, lambda: {(safe.name(key),): float(value) for key, value in read().items()})

    # --- the end -------------------------------------------------------------------------------------

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Export what is there now; whether it went out in time. Blocks for at most `timeout_s` seconds."""
        jobs: list[Callable[[], object]] = []
        if self._traces is not None:
            queue = self._traces.queue
            jobs.append(lambda: queue.flush(timeout_s))
        if self._meters is not None:
            meters = self._meters
            jobs.append(lambda: meters.flush(timeout_s))
        return within(timeout_s, jobs)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Export what is left and stop; whether all went out. Blocks for at most `timeout_s` seconds.

        What a silent or dead collector does not take in that time is lost, counted and said once.
        """
        if self._closed:
            return True
        self._closed = True
        inner_s = 0.9 * timeout_s  # leaves time to count what was lost
        jobs = self._traces.closers(inner_s) if self._traces is not None else []
        jobs += self._meters.closers(inner_s) if self._meters is not None else []
        done = within(timeout_s, jobs)
        if not done:
            lost = self._traces.queue.counts.dropped if self._traces is not None else 0
            _log.warning("telemetry: not all was exported in the %.1f s of shutdown; spans lost: %d", timeout_s, lost)
        return done
