"""What is counted of each request.

Resilience (failures, retries, failovers) and cost tiering (escalations, misroutes) never share a counter.
Labels come from the configuration (tiers, endpoints, models, checks) or are bounded here (workloads, methods).
"""

from __future__ import annotations

from fallback.errors import Failure
from fallback.types import Attempt, Purpose, Reply
from router.outcome import Outcome
from router.telemetry import attributes, safe, semconv, story
from router.telemetry.instruments import Instruments
from router.telemetry.settings import RpcCall, Settings

_MAX_METHODS = 32
_MAX_NAMES = 64  # tiers, endpoints, models, checks: each far below it in any sane configuration
_USD = "{USD}"


class Metrics:
    """The instruments that requests feed."""

    def __init__(self, settings: Settings) -> None:
        made = self.instruments = Instruments()
        self._providers = settings.providers
        self._workload = safe.Bounded(settings.max_workloads)
        self._method = safe.Bounded(_MAX_METHODS)
        self._name = safe.Bounded(_MAX_NAMES)
        self._requests = made.counter(
            "tierwise.requests", "{request}", "Requests with an outcome", ("workload", "tier", "mode", "accepted")
        )
        self._attempts = made.counter("tierwise.attempts", "{attempt}", "Upstream calls", ("workload", "tier"))
        self._failures = made.counter(
            "tierwise.failures", "{failure}", "Attempts that ended in a failure", ("kind", "tier", "endpoint")
        )
        self._retries = made.counter(
            "tierwise.retries", "{retry}", "Same tier and endpoint again, for a failure", ("tier", "endpoint")
        )
        self._failovers = made.counter(
            "tierwise.failovers", "{failover}", "Another endpoint or tier, for a failure", ("tier", "endpoint")
        )
        self._escalations = made.counter(
            "tierwise.escalations", "{escalation}", "A higher tier for a verdict, by tier left", ("workload", "tier")
        )
        self._misroutes = made.counter(
            "tierwise.misroutes", "{request}", "Direct replies that a check rejected", ("workload", "tier")
        )
        self._cost = made.counter(
            "tierwise.cost_usd", _USD, "Spent, wasted spend included", ("workload", "tier", "part")
        )
        self._top_cost = made.counter(
            "tierwise.top_tier_cost_usd", _USD, "What always-top-tier would have spent", ("workload",)
        )
        self._wasted = made.counter(
            "tierwise.wasted_usd", _USD, "Spent on replies that the caller did not get", ("workload",)
        )
        self._feedback = made.counter(
            "tierwise.feedback", "{report}", "Callers' judgements of replies", ("workload", "quality")
        )
        self._make_histograms(made)

    def _make_histograms(self, made: Instruments) -> None:
        self._duration = made.histogram(
            "tierwise.request.duration", "s", "From request to outcome", ("workload",), semconv.GEN_AI_SECONDS
        )
        self._check_duration = made.histogram(
            "tierwise.check.duration", "s", "Time to a verdict", ("check", "verdict"), semconv.CHECK_SECONDS
        )
        self._rpc_duration = made.histogram(
            semconv.RPC_SERVER_DURATION,
            "s",
            "Duration of an RPC",
            (semconv.RPC_SYSTEM, semconv.RPC_METHOD, semconv.RPC_STATUS, semconv.ERROR_TYPE),
            semconv.RPC_SECONDS,
        )
        gen_ai = (semconv.GEN_AI_OPERATION, semconv.GEN_AI_PROVIDER, semconv.GEN_AI_REQUEST_MODEL)
        self._upstream_duration = made.histogram(
            semconv.GEN_AI_CLIENT_DURATION,
            "s",
            "Duration of an upstream call",
            (*gen_ai, semconv.ERROR_TYPE),
            semconv.GEN_AI_SECONDS,
        )
        self._upstream_tokens = made.histogram(
            semconv.GEN_AI_CLIENT_TOKENS,
            "{token}",
            "Tokens of an upstream call",
            (*gen_ai, semconv.GEN_AI_TOKEN_TYPE),
            semconv.GEN_AI_TOKENS,
        )

    def record(self, outcome: Outcome, rpc: RpcCall) -> None:
        """Count one finished request."""
        with self.instruments.lock:
            self._rpc(rpc)
            workload = self._workload(outcome.workload)
            tier = self._name(outcome.resolved_tier) or "none"
            mode = outcome.decision.mode.value
            self._requests.add((workload, tier, mode, "true" if outcome.accepted else "false"))
            self._duration.record((workload,), safe.amount(outcome.duration_s))
            self._top_cost.add((workload,), safe.cost(outcome.top_tier_cost_usd))
            for attempt in outcome.attempts:
                self._attempt(workload, attempt)
            wasted = safe.cost(story.wasted_usd(outcome, story.kept_attempt(outcome)))
            if wasted:
                self._wasted.add((workload,), wasted)
            for left in story.escalated_from(outcome):
                self._escalations.add((workload, self._name(left)))
            if outcome.misrouted:
                self._misroutes.add((workload, self._name(outcome.decision.start_tier)))

    def rpc(self, rpc: RpcCall) -> None:
        """Count one finished RPC that has no outcome."""
        with self.instruments.lock:
            self._rpc(rpc)

    def feedback(self, workload: str, *, good: bool) -> None:
        """Count one judgement."""
        with self.instruments.lock:
            self._feedback.add((self._workload(workload), "good" if good else "bad"))

    def _rpc(self, rpc: RpcCall) -> None:
        status = attributes.rpc_status(rpc.status)
        error = status if status in semconv.SERVER_ERRORS else ""
        method = self._method(attributes.rpc_method(rpc.method))
        self._rpc_duration.record(("grpc", method, status, error), safe.amount(rpc.duration_s))

    def _attempt(self, workload: str, attempt: Attempt) -> None:
        tier, endpoint, model = self._name(attempt.tier), self._name(attempt.endpoint), self._name(attempt.model)
        self._attempts.add((workload, tier))
        self._cost.add((workload, tier, "attempt"), safe.cost(attempt.cost_usd))
        if attempt.purpose is Purpose.RETRY:
            self._retries.add((tier, endpoint))
        elif attempt.purpose is Purpose.FAILOVER:
            self._failovers.add((tier, endpoint))
        upstream = ("chat", self._providers.get(attempt.endpoint, semconv.ANTHROPIC), model)
        result = attempt.result
        error = ""
        if isinstance(result, Failure):
            error = self._name(result.kind)
            self._failures.add((error, tier, endpoint))
        else:
            self._tokens(upstream, result)
        self._upstream_duration.record((*upstream, error), safe.amount(attempt.duration_s))
        for report in attempt.checks:
            verdict, _ = story.verdict_word(report.verdict)
            self._check_duration.record((self._name(report.check), verdict), safe.amount(report.duration_s))
            if report.cost_usd:
                self._cost.add((workload, tier, "check"), safe.cost(report.cost_usd))

    def _tokens(self, upstream: tuple[str, str, str], reply: Reply) -> None:
        self._upstream_tokens.record((*upstream, "input"), reply.usage.prompt_tokens)
        self._upstream_tokens.record((*upstream, "output"), reply.usage.output_tokens)
