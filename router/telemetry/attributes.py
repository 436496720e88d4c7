"""The attributes of each span, encoded. What recurs (an attempt's tier and model, a check's name) is encoded once."""

from __future__ import annotations

from functools import lru_cache

from fallback.errors import Failure
from fallback.types import Attempt, CheckReport, Purpose, Reply
from router.outcome import Decision, Outcome
from router.telemetry import safe, semconv, story, wire
from router.telemetry.settings import RpcCall


@lru_cache(maxsize=256)
def rpc_method(method: str) -> str:
    """The fully qualified method; `_OTHER` where it does not look like one."""
    known = safe.ident(method)
    return known if known and known != safe.WITHHELD else "_OTHER"


def rpc_status(status: str) -> str:
    """A gRPC status name; UNKNOWN for anything else."""
    return status if status in semconv.STATUSES else "UNKNOWN"


@lru_cache(maxsize=256)
def _rpc_constants(method: str, status: str) -> bytes:
    error = wire.text(semconv.ERROR_TYPE, status) if status in semconv.SERVER_ERRORS else b""
    return b"".join(
        (
            wire.text(semconv.RPC_SYSTEM, "grpc"),
            wire.text(semconv.RPC_METHOD, method),
            wire.text(semconv.RPC_STATUS, status),
            error,
        )
    )


def of_rpc(rpc: RpcCall) -> list[bytes]:
    """What every RPC has."""
    return [_rpc_constants(rpc_method(rpc.method), rpc_status(rpc.status))]


def of_outcome(outcome: Outcome, kept: int) -> list[bytes]:
    """What became of the request; `kept` is the index of the attempt whose reply the caller got."""
    return [
        wire.fresh_text(semconv.REQUEST_ID, safe.ident(outcome.request_id)),
        wire.text(semconv.WORKLOAD, safe.name(outcome.workload)),
        wire.text(semconv.TIER, safe.name(outcome.resolved_tier)),
        wire.flag(semconv.ACCEPTED, outcome.accepted),
        wire.texts(semconv.REASONS, tuple(safe.code(reason) for reason in outcome.reasons)),
        wire.integer(semconv.ATTEMPTS, len(outcome.attempts)),
        wire.flag(semconv.ESCALATED, outcome.escalated),
        wire.flag(semconv.MISROUTED, outcome.misrouted),
        wire.number(semconv.COST, safe.amount(outcome.cost_usd)),
        wire.number(semconv.TOP_TIER_COST, safe.amount(outcome.top_tier_cost_usd)),
        wire.number(semconv.WASTED_COST, safe.amount(story.wasted_usd(outcome, kept))),
    ]


def of_decision(decision: Decision, features_version: str) -> list[bytes]:
    """What was chosen, and why."""
    tiers = tuple(safe.name(tier) for tier in decision.tiers)
    attributes = [
        wire.text(semconv.MODE, decision.mode.value),
        wire.text(semconv.START_TIER, tiers[0] if tiers else ""),
        wire.texts(semconv.TIERS, tiers),
        wire.fresh_text(semconv.REASON, safe.words(decision.reason)),
        wire.number(semconv.PROPENSITY, safe.amount(decision.propensity if tiers else 0.0)),
        wire.flag(semconv.EXPLORED, decision.explored),
        wire.text(semconv.MODEL_VERSION, safe.name(decision.model_version)),
        wire.text(semconv.FEATURES_VERSION, safe.name(features_version)),
    ]
    for tier, probability in decision.probabilities.items():
        attributes.append(wire.number(semconv.PROBABILITY + safe.name(tier), safe.amount(probability)))
    return attributes


@lru_cache(maxsize=1024)
def _attempt_constants(tier: str, model: str, endpoint: str, purpose: Purpose, provider: str) -> bytes:
    pairs = (
        (semconv.GEN_AI_OPERATION, semconv.CHAT),
        (semconv.GEN_AI_PROVIDER, safe.name(provider)),
        (semconv.GEN_AI_REQUEST_MODEL, safe.name(model)),
        (semconv.ATTEMPT_TIER, safe.name(tier)),
        (semconv.ATTEMPT_ENDPOINT, safe.name(endpoint)),
        (semconv.ATTEMPT_PURPOSE, purpose.value),
        (semconv.TRIGGER, story.TRIGGERS[purpose]),
    )
    return b"".join(wire.text(key, value) for key, value in pairs)


def of_attempt(attempt: Attempt, number: int, *, wasted: bool, provider: str) -> list[bytes]:
    """One attempt, counted from 1."""
    attributes = [
        _attempt_constants(attempt.tier, attempt.model, attempt.endpoint, attempt.purpose, provider),
        wire.integer(semconv.ATTEMPT_NUMBER, number),
        wire.number(semconv.COST, safe.amount(attempt.cost_usd)),
        wire.flag(semconv.WASTED, wasted),
    ]
    verdict = story.attempt_verdict(attempt)
    if verdict:
        attributes.append(wire.text(semconv.VERDICT, verdict))
    result = attempt.result
    return attributes + (_of_failure(result) if isinstance(result, Failure) else _of_reply(result))


def _of_reply(reply: Reply) -> list[bytes]:
    usage = reply.usage
    return [
        wire.text(semconv.RESULT, "reply"),
        wire.text(semconv.GEN_AI_RESPONSE_MODEL, safe.name(reply.model)),
        wire.fresh_text(semconv.GEN_AI_RESPONSE_ID, safe.ident(reply.upstream_id)),
        wire.texts(semconv.GEN_AI_FINISH_REASONS, (reply.stop_reason.value,)),
        wire.integer(semconv.GEN_AI_INPUT_TOKENS, usage.prompt_tokens),
        wire.integer(semconv.GEN_AI_OUTPUT_TOKENS, usage.output_tokens),
        wire.integer(semconv.GEN_AI_CACHE_READ_TOKENS, usage.cache_read_tokens),
        wire.integer(semconv.GEN_AI_CACHE_WRITE_TOKENS, usage.cache_write_5m_tokens + usage.cache_write_1h_tokens),
    ]


def _of_failure(failure: Failure) -> list[bytes]:
    attributes = [
        wire.text(semconv.RESULT, safe.code(failure.kind)),
        wire.text(semconv.ERROR_TYPE, safe.code(failure.error_type)),
    ]
    if failure.http_status is not None:
        attributes.append(wire.integer(semconv.HTTP_STATUS, failure.http_status))
    if failure.upstream_request_id:
        attributes.append(wire.fresh_text(semconv.ANTHROPIC_REQUEST_ID, safe.ident(failure.upstream_request_id)))
    return attributes


@lru_cache(maxsize=1024)
def _check_constants(check: str, version: str, verdict: str, reason: str) -> bytes:
    pairs = (
        (semconv.CHECK, check),
        (semconv.CHECK_VERSION, version),
        (semconv.VERDICT, verdict),
        (semconv.VERDICT_REASON, reason),
    )
    return b"".join(wire.text(key, value) for key, value in pairs if value)


def of_check(report: CheckReport) -> list[bytes]:
    """One check's verdict."""
    verdict, reason = story.verdict_word(report.verdict)
    attributes = [
        _check_constants(safe.name(report.check), safe.name(report.version), verdict, safe.code(reason)),
        wire.number(semconv.COST, safe.amount(report.cost_usd)),
    ]
    if report.score is not None:
        attributes.append(wire.number(semconv.SCORE, safe.amount(report.score)))
    return attributes
