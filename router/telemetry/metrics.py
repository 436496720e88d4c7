"""What is counted of each request.

Resilience (failures, retries, failovers) and cost tiering (escalations, misroutes) never share a counter.
Labels come from the configuration (tiers, endpoints, models, checks) or are bounded here (workloads).

An addition to a counter of the SDK costs 7 µs and a request makes twenty: ours are cells that the SDK reads when
somebody looks. Histograms are the SDK's own; checks, of which a request has many, are counters of seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from fallback.errors import Failure
from fallback.types import Attempt, Purpose
from router.alarms import Alarm
from router.outcome import Audit, Outcome
from router.telemetry import attributes, safe, semconv, story
from router.telemetry.settings import RpcCall, Settings

_MAX_NAMES = 256  # tiers, endpoints, models, checks, kinds of failure: together far below it
_USD = "{USD}"

Key = tuple[str, ...]
Read = Callable[[], Mapping[Key, float]]


def observe(create: Callable[..., object], name: str, unit: str, description: str, labels: Key, read: Read) -> None:
    """Make an observable instrument. `read` runs on the reader's thread."""

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        for key, value in read().items():
            yield Observation(value, dict(zip(labels, map(safe.name, key), strict=True)))

    create(name, callbacks=[callback], unit=unit, description=description)


class Counter:
    """A sum that only grows, by label values. Written by one thread, the event loop's."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str, *labels: str) -> None:
        self._cells: dict[Key, float] = {}
        observe(meter.create_observable_counter, name, unit, description, labels, self._cells.copy)

    def add(self, *key: str, value: float = 1) -> None:
        """Add to one cell what can be added."""
        if 0 < value < math.inf:
            self._cells[key] = self._cells.get(key, 0) + value


class Metrics:
    """The instruments that requests feed."""

    def __init__(self, meter: Meter, settings: Settings) -> None:
        self._providers = settings.providers
        self._workload = safe.Bounded(settings.max_workloads)
        self._name = safe.Bounded(_MAX_NAMES)

        def counter(name: str, unit: str, description: str, *labels: str) -> Counter:
            return Counter(meter, f"tierwise.{name}", unit, description, *labels)

        place = ("tier", "endpoint")
        scope = ("workload", "tier")
        self._requests = counter("requests", "{request}", "Requests with an outcome", *scope, "mode", "accepted")
        self._attempts = counter("attempts", "{attempt}", "Upstream calls", *scope)
        self._failures = counter("failures", "{failure}", "Attempts that ended in a failure", "kind", *place)
        self._retries = counter("retries", "{retry}", "Same tier and endpoint again, for a failure", *place)
        self._failovers = counter("failovers", "{failover}", "Another endpoint or tier, for a failure", *place)
        self._hedges = counter("hedges", "{hedge}", "A second attempt beside a late one", *place)
        self._escalations = counter("escalations", "{escalation}", "A higher tier for a verdict, by tier left", *scope)
        self._misroutes = counter("misroutes", "{request}", "Direct replies that a check rejected", *scope)
        self._cost = counter("cost_usd", _USD, "Spent, wasted spend included", *scope, "part")
        self._top_cost = counter("top_tier_cost_usd", _USD, "What always-top-tier would have spent", "workload")
        self._wasted = counter("wasted_usd", _USD, "Spent on replies that the caller did not get", "workload")
        self._tokens = counter("tokens", "{token}", "Tokens of upstream calls, cached ones included", *scope, "type")
        self._checks = counter("checks", "{check}", "Checks run", "check", "verdict")
        self._check_seconds = counter("check.seconds", "s", "Time spent on checks", "check", "verdict")
        self._check_calls = counter("check.calls", "{call}", "Upstream calls made by checks", "check")
        self._check_cost = counter("check.cost_usd", _USD, "Spent on checks, by check", "workload", "check")
        self._alarms = counter(
            "drift.alarms", "{alarm}", "Alarms of drift by what was watched", *scope, "stream", "state"
        )
        self._feedback = counter("feedback", "{report}", "Callers' judgements of replies", "workload", "quality")

        audited = ("workload", "tier", "reply", "verdict")
        self._audits = counter("audits", "{audit}", "Replies audited", *audited)
        self._audit_cost = counter("audit.cost_usd", _USD, "Spent on audits, in no request's cost", "workload")
        self._audit_skips = counter("audits.skipped", "{audit}", "Lots drawn without an audit", "workload", "reason")

        def histogram(name: str, description: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("tierwise.request.duration", "From request to outcome", semconv.GEN_AI_SECONDS)
        self._rpc_duration = histogram(semconv.RPC_SERVER_DURATION, "Duration of an RPC", semconv.RPC_SECONDS)
        self._upstream_duration = histogram(
            semconv.GEN_AI_CLIENT_DURATION, "Duration of an upstream call", semconv.GEN_AI_SECONDS
        )

    def record(self, outcome: Outcome, rpc: RpcCall) -> None:
        """Count one finished request."""
        self.rpc(rpc)
        workload = self._workload(outcome.workload)
        tier = self._name(outcome.resolved_tier) or "none"
        self._requests.add(workload, tier, outcome.decision.mode.value, "true" if outcome.accepted else "false")
        self._duration.record(outcome.duration_s, {"workload": workload})
        self._top_cost.add(workload, value=outcome.top_tier_cost_usd)
        self._wasted.add(workload, value=story.wasted_usd(outcome, story.kept_attempt(outcome)))
        for attempt in outcome.attempts:
            self._attempt(workload, attempt)
        for left in story.escalated_from(outcome):
            self._escalations.add(workload, self._name(left))
        if outcome.misrouted:
            self._misroutes.add(workload, self._name(outcome.decision.start_tier))

    def rpc(self, rpc: RpcCall) -> None:
        """Count one finished RPC."""
        self._rpc_duration.record(rpc.duration_s, attributes.of_rpc(rpc))

    def feedback(self, workload: str, *, good: bool) -> None:
        """Count one judgement."""
        self._feedback.add(self._workload(workload), "good" if good else "bad")

    def alarm(self, alarm: Alarm) -> None:
        """Count one alarm, raised or cleared."""
        state = "cleared" if alarm.cleared else "raised"
        self._alarms.add(self._workload(alarm.workload), self._name(alarm.tier), alarm.stream.value, state)

    def audit(self, audit: Audit) -> None:
        """Count one audit. Its upstream calls are in no other metric: those are of requests."""
        workload, reply = self._workload(audit.workload), "accepted" if audit.accepted else "rejected"
        self._audits.add(workload, self._name(audit.tier), reply, audit.verdict.value)
        self._audit_cost.add(workload, value=audit.cost_usd)

    def audit_skipped(self, workload: str, reason: str) -> None:
        """Count one that was not made."""
        self._audit_skips.add(self._workload(workload), self._name(reason))

    def _attempt(self, workload: str, attempt: Attempt) -> None:
        tier, endpoint = self._name(attempt.tier), self._name(attempt.endpoint)
        self._attempts.add(workload, tier)
        self._cost.add(workload, tier, "attempt", value=attempt.cost_usd)
        if attempt.purpose is Purpose.RETRY:
            self._retries.add(tier, endpoint)
        elif attempt.purpose is Purpose.FAILOVER:
            self._failovers.add(tier, endpoint)
        elif attempt.purpose is Purpose.HEDGE:
            self._hedges.add(tier, endpoint)
        upstream = {
            semconv.GEN_AI_OPERATION: semconv.CHAT,
            semconv.GEN_AI_PROVIDER: self._providers.get(attempt.endpoint, semconv.ANTHROPIC),
            semconv.GEN_AI_REQUEST_MODEL: self._name(attempt.model),
        }
        if isinstance(attempt.result, Failure):
            kind = upstream[semconv.ERROR_TYPE] = self._name(attempt.result.kind)
            self._failures.add(kind, tier, endpoint)
        else:
            self._tokens.add(workload, tier, "input", value=attempt.result.usage.prompt_tokens)
            self._tokens.add(workload, tier, "output", value=attempt.result.usage.output_tokens)
        self._upstream_duration.record(attempt.duration_s, upstream)
        for report in attempt.checks:
            verdict, _ = story.verdict_word(report.verdict)
            check = self._name(report.check)
            self._checks.add(check, verdict)
            self._check_seconds.add(check, verdict, value=report.duration_s)
            self._check_calls.add(check, value=report.calls)
            self._check_cost.add(workload, check, value=report.cost_usd)
            self._cost.add(workload, tier, "check", value=report.cost_usd)
