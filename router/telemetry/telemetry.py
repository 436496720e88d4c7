"""Telemetry of one process: started once, handed every finished RPC, shut down within its time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from opentelemetry.sdk.resources import Resource

from router.alarms import Alarm
from router.outcome import Audit, Outcome
from router.telemetry import export, traces
from router.telemetry.metrics import Key, Metrics, Read, observe
from router.telemetry.settings import AuditRun, RpcCall, Settings

_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_log = logging.getLogger(__name__)


class Telemetry:
    """Spans and metrics of finished requests. Every method is cheap but `flush` and `shutdown`, and none raises.

    Holds its own providers: nothing global is set, and several may live in one process.
    """

    def __init__(self, settings: Settings) -> None:
        name = settings.service_name or os.environ.get("OTEL_SERVICE_NAME") or "tierwise"
        resource = Resource.create({"service.name": name})
        self._ends = export.Ends()
        meters = export.meter_provider(settings, settings.destination("metrics", os.environ), resource, self._ends)
        tracers = export.tracer_provider(
            settings, settings.destination("traces", os.environ), resource, meters, self._ends
        )
        self._meter = meters.get_meter("tierwise")
        self._metrics = Metrics(self._meter, settings)
        self._traces = traces.Traces(tracers, settings.providers)

    @classmethod
    def start(cls, settings: Settings) -> Telemetry:
        """Start what the settings and the OTEL_ variables ask for; raises TelemetryError where that cannot be.

        With neither an OTLP endpoint nor a Prometheus port there is no thread and no exporter.
        """
        return cls(settings)

    @property
    def prometheus_port(self) -> int | None:
        """The port of the metrics endpoint; None where there is none."""
        return self._ends.prometheus_port

    @staticmethod
    def trace_id(metadata: Mapping[str, str | bytes], request_id: str) -> str:
        """The trace id, as 32 hex digits, that this request's spans have or would have; for log lines."""
        return traces.trace_id(metadata, request_id)

    # --- what happened -------------------------------------------------------------------------------

    def record(self, outcome: Outcome, rpc: RpcCall) -> None:
        """A request ended, well or not: its trace and its counts."""
        self._metrics.record(outcome, rpc)
        self._traces.record(rpc, outcome)

    def rpc(self, rpc: RpcCall) -> None:
        """An RPC without an outcome ended: Route, ReportOutcome, a replayed or an invalid Complete."""
        self._metrics.rpc(rpc)
        self._traces.record(rpc, None)

    def feedback(self, workload: str, *, good: bool) -> None:
        """A caller judged a reply."""
        self._metrics.feedback(workload, good=good)

    def alarm(self, alarm: Alarm) -> None:
        """A tier became worse in a workload, or is good again."""
        self._metrics.alarm(alarm)

    def audit(self, audit: Audit, run: AuditRun | None) -> None:
        """A reply was audited; with a trace of its own where a lot was drawn for it."""
        self._metrics.audit(audit)
        if run is not None:
            self._traces.audit(audit, run)

    def audit_skipped(self, workload: str, reason: str) -> None:
        """A reply that was to be audited was not, or what was found could not be written."""
        self._metrics.audit_skipped(workload, reason)

    # --- what is: read when somebody looks, on the reader's thread, so quick and thread-safe ----------

    def watch_queues(self, read: Callable[[], Mapping[str, float]]) -> None:
        """How many wait, by queue."""
        self._gauge("tierwise.queue.depth", "Waiting in a queue", ("queue",), lambda: _keyed(read()))

    def watch_breakers(self, read: Callable[[], Mapping[tuple[str, str], str]]) -> None:
        """Breaker state (closed, half_open or open) by endpoint and tier, a provider's own by (provider, '')."""

        def states() -> Mapping[Key, float]:
            return {key: _BREAKER_STATES.get(state, 2) for key, state in read().items()}

        self._gauge("tierwise.breaker.state", "0 closed, 1 half open, 2 open", ("endpoint", "tier"), states)

    def watch_alarms(self, read: Callable[[], Mapping[Key, float]]) -> None:
        """What somebody has to act on, by (kind, endpoint, tier); the tier is empty where all are concerned."""
        what = "1 while an endpoint refuses us: credentials, model not served, spend limit"
        self._gauge("tierwise.alarms", what, ("kind", "endpoint", "tier"), read)

    def watch_admission(self, limit: Callable[[], float], refused: Callable[[], Mapping[str, int]]) -> None:
        """How many at once as it is now, and the refused by priority."""
        self._gauge("tierwise.admission.limit", "Requests at once, as it stands", (), lambda: {(): limit()})
        create, what = self._meter.create_observable_counter, "Refused for want of a place"
        observe(create, "tierwise.admission.refused", "{request}", what, ("priority",), lambda: _keyed(refused()))

    def watch_model(
        self, version: Callable[[], str], refused: Callable[[], bool], learned_until_s: Callable[[], float | None]
    ) -> None:
        """The model in use (empty without one), whether another was refused, and when the last it learned from was."""
        self._gauge("tierwise.model.info", "1 for the model in use", ("version",), lambda: {(version() or "none",): 1})
        what = "1 while the version that is published cannot be used"
        self._gauge("tierwise.model.refused", what, (), lambda: {(): float(refused())})

        def until() -> Mapping[Key, float]:
            at_s = learned_until_s()
            return {} if at_s is None else {(): at_s}

        create, what = (
            self._meter.create_observable_gauge,
            "Wall time of the newest request that the model learned from",
        )
        observe(create, "tierwise.model.learned_until", "s", what, (), until)

    def watch_store(self, damaged_rows: Callable[[], int]) -> None:
        """Rows that were read and are not as they were written, counted since the start."""
        create, what = self._meter.create_observable_counter, "Rows of the store that are not as they were written"
        observe(create, "tierwise.store.damaged_rows", "{row}", what, (), lambda: {(): damaged_rows()})

    def watch_recorder(self, read: Callable[[], Mapping[str, int]]) -> None:
        """Outcomes by what became of them (recorded, dropped ...), counted since the start."""
        create, what = self._meter.create_observable_counter, "Outcomes by what became of them"
        observe(create, "tierwise.recorder.outcomes", "{outcome}", what, ("result",), lambda: _keyed(read()))

    def watch_health(self, read: Callable[[], Mapping[str, bool]]) -> None:
        """Whether each component is well."""
        self._gauge("tierwise.health", "1 well, 0 not", ("component",), lambda: _keyed(read()))

    def watch_drift(self, read: Callable[[], Mapping[tuple[str, str, str], float]]) -> None:
        """1 by workload, tier and stream while its alarm stands."""
        self._gauge(
            "tierwise.drift",
            "1 while an alarm stands",
            ("workload", "tier", "stream"),
            lambda: {(*key,): value for key, value in read().items()},
        )

    def _gauge(self, name: str, description: str, labels: Key, read: Read) -> None:
        observe(self._meter.create_observable_gauge, name, "", description, labels, read)

    # --- the end -------------------------------------------------------------------------------------

    def flush(self, timeout_s: float = 2.0) -> bool:
        """Export what is there now; whether it went out in time. Blocks for at most `timeout_s` seconds."""
        return export.within(timeout_s, self._ends.flush)

    def shutdown(self, timeout_s: float = 2.0) -> bool:
        """Export what is left and stop; whether that was done. Blocks for at most `timeout_s` seconds.

        What a silent or dead collector does not take in that time is lost.
        """
        jobs, self._ends.close = self._ends.close, []
        done = export.within(timeout_s, jobs)
        if not done:
            _log.warning("telemetry: not all was exported in the %.1f s of shutdown", timeout_s)
        return done


def _keyed(values: Mapping[str, float]) -> Mapping[Key, float]:
    return {(name,): float(value) for name, value in values.items()}
