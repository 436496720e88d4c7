"""The attributes of each span."""

from __future__ import annotations

from opentelemetry.util.types import AttributeValue

from fallback.errors import Failure
from fallback.types import Attempt, CheckReport, Reply
from router.outcome import Audit, Decision, Outcome
from router.telemetry import safe, semconv, story
from router.telemetry.settings import RpcCall

Attributes = dict[str, AttributeValue]


def rpc_method(method: str) -> str:
    """The fully qualified method; `_OTHER` where it does not look like one."""
    return method if method and safe.name(method) == method else "_OTHER"


def of_rpc(rpc: RpcCall) -> Attributes:
    """What every RPC has."""
    attributes: Attributes = {
        semconv.RPC_SYSTEM: "grpc",
        semconv.RPC_METHOD: rpc_method(rpc.method),
        semconv.RPC_STATUS: safe.name(rpc.status),
    }
    if rpc.status in semconv.SERVER_ERRORS:
        attributes[semconv.ERROR_TYPE] = rpc.status
    return attributes


def of_outcome(outcome: Outcome, kept: int) -> Attributes:
    """What became of the request; `kept` is the index of the attempt whose reply the caller got."""
    return {
        "tierwise.request_id": safe.name(outcome.request_id),
        "tierwise.workload": safe.name(outcome.workload),
        "tierwise.tier": safe.name(outcome.resolved_tier),
        "tierwise.accepted": outcome.accepted,
        "tierwise.reasons": [safe.code(reason) for reason in outcome.reasons],
        "tierwise.attempts": len(outcome.attempts),
        "tierwise.escalated": outcome.escalated,
        "tierwise.misrouted": outcome.misrouted,
        "tierwise.cost_usd": outcome.cost_usd,
        "tierwise.top_tier_cost_usd": outcome.top_tier_cost_usd,
        "tierwise.wasted_usd": story.wasted_usd(outcome, kept),
    }


def of_audit(audit: Audit) -> Attributes:
    """What was found, and what it cost."""
    return {
        "tierwise.request_id": safe.name(audit.request_id),
        "tierwise.workload": safe.name(audit.workload),
        "tierwise.tier": safe.name(audit.tier),
        "tierwise.audit.auditor_tier": safe.name(audit.auditor_tier),
        "tierwise.audit.verdict": audit.verdict.value,
        "tierwise.audit.method": audit.method.value,
        "tierwise.audit.propensity": audit.propensity,
        "tierwise.audit.cost_usd": audit.cost_usd,
    }


def of_decision(decision: Decision, features_version: str) -> Attributes:
    """What was chosen, and why."""
    tiers = [safe.name(tier) for tier in decision.tiers]
    attributes: Attributes = {
        "tierwise.mode": decision.mode.value,
        "tierwise.start_tier": tiers[0] if tiers else "",
        "tierwise.tiers": tiers,
        "tierwise.reason": safe.words(decision.reason),
        "tierwise.propensity": decision.propensity if tiers else 0.0,
        "tierwise.explored": decision.explored,
        "tierwise.model_version": safe.name(decision.model_version),
        "tierwise.features_version": safe.name(features_version),
    }
    for tier, probability in decision.probabilities.items():
        attributes[f"tierwise.probability.{safe.name(tier)}"] = probability
    return attributes


def of_attempt(attempt: Attempt, number: int, *, wasted: bool, provider: str) -> Attributes:
    """One attempt, counted from 1."""
    attributes: Attributes = {
        semconv.GEN_AI_OPERATION: semconv.CHAT,
        semconv.GEN_AI_PROVIDER: provider,
        semconv.GEN_AI_REQUEST_MODEL: safe.name(attempt.model),
        "tierwise.attempt.number": number,
        "tierwise.attempt.tier": safe.name(attempt.tier),
        "tierwise.attempt.endpoint": safe.name(attempt.endpoint),
        "tierwise.attempt.purpose": attempt.purpose.value,
        "tierwise.trigger": story.TRIGGERS[attempt.purpose],
        "tierwise.cost_usd": attempt.cost_usd,
        "tierwise.wasted": wasted,
    }
    verdict = story.attempt_verdict(attempt)
    if verdict:
        attributes["tierwise.verdict"] = verdict
    result = attempt.result
    return attributes | (_of_failure(result) if isinstance(result, Failure) else _of_reply(result))


def _of_reply(reply: Reply) -> Attributes:
    usage = reply.usage
    return {
        "tierwise.result": "reply",
        semconv.GEN_AI_RESPONSE_MODEL: safe.name(reply.model),
        semconv.GEN_AI_RESPONSE_ID: safe.name(reply.upstream_id),
        semconv.GEN_AI_FINISH_REASONS: [reply.stop_reason.value],
        semconv.GEN_AI_INPUT_TOKENS: usage.prompt_tokens,
        semconv.GEN_AI_OUTPUT_TOKENS: usage.output_tokens,
        semconv.GEN_AI_CACHE_READ_TOKENS: usage.cache_read_tokens,
        semconv.GEN_AI_CACHE_WRITE_TOKENS: usage.cache_write_5m_tokens + usage.cache_write_1h_tokens,
    }


def _of_failure(failure: Failure) -> Attributes:
    attributes: Attributes = {
        "tierwise.result": safe.code(failure.kind),
        semconv.ERROR_TYPE: safe.code(failure.error_type),
    }
    if failure.http_status is not None:
        attributes[semconv.HTTP_STATUS] = failure.http_status
    if failure.upstream_request_id:
        attributes[semconv.ANTHROPIC_REQUEST_ID] = safe.name(failure.upstream_request_id)
    return attributes


def of_check(report: CheckReport) -> Attributes:
    """One check's verdict."""
    verdict, reason = story.verdict_word(report.verdict)
    attributes: Attributes = {
        "tierwise.check.name": safe.name(report.check),
        "tierwise.check.version": safe.name(report.version),
        "tierwise.verdict": verdict,
        "tierwise.cost_usd": report.cost_usd,
    }
    if reason:
        attributes["tierwise.verdict.reason"] = safe.code(reason)
    if report.score is not None:
        attributes["tierwise.check.score"] = report.score
    if report.calls:
        attributes["tierwise.check.calls"] = report.calls
    if report.overruled:
        attributes["tierwise.check.overruled"] = True
    return attributes
