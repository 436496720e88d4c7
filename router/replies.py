"""From the chain's values to the wire."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fallback.types import Accept, Attempt, CheckReport, Reject, Reply, TextBlock, ToolUseBlock, Unjudged
from router.outcome import Decision, Mode, Outcome
from router.planning import Weighed
from router.v1 import router_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

_MODES = {Mode.DIRECT: router_pb2.MODE_DIRECT, Mode.CHAIN: router_pb2.MODE_CHAIN}


def response_of(outcome: Outcome, reply: Reply, *, recorded: bool) -> router_pb2.CompleteResponse:
    """The whole story as the caller sees it."""
    return router_pb2.CompleteResponse(
        content=[_block(block) for block in reply.content],
        stop_reason=reply.stop_reason.value,
        request_id=outcome.request_id,
        tier=outcome.resolved_tier,
        accepted=outcome.accepted,
        reasons=outcome.reasons,
        decision=decision_of(outcome.decision),
        attempts=[_attempt(attempt) for attempt in outcome.attempts],
        cost_usd=outcome.cost_usd,
        top_tier_cost_usd=outcome.top_tier_cost_usd,
        recorded=recorded,
    )


def decision_of(decision: Decision) -> router_pb2.Decision:
    """The decision as the caller sees it."""
    return router_pb2.Decision(
        mode=_MODES[decision.mode],
        tiers=decision.tiers,
        probabilities=dict(decision.probabilities),
        reason=decision.reason,
        propensity=decision.propensity,
        model_version=decision.model_version,
        explored=decision.explored,
        expected_cost_usd=dict(decision.expected_cost_usd),
    )


def plan_of(weighed: Weighed) -> router_pb2.Plan:
    """A plan as the caller sees it."""
    plan = weighed.plan
    return router_pb2.Plan(
        tiers=plan.tiers,
        mode=router_pb2.MODE_DIRECT if len(plan.tiers) == 1 else router_pb2.MODE_CHAIN,
        expected_cost_usd=plan.cost_usd,
        expected_quality=plan.quality,
        expected_time_s=plan.time_s,
        p95_s=plan.p95_s,
        value_usd=weighed.value_usd,
        taken=weighed.taken,
        why_not=weighed.why_not,
    )


def _block(block: TextBlock | ToolUseBlock) -> router_pb2.ContentBlock:
    if isinstance(block, TextBlock):
        return router_pb2.ContentBlock(text=router_pb2.TextBlock(text=block.text))
    use = router_pb2.ToolUseBlock(id=block.id, name=block.name, input_json=json.dumps(dict(block.input)))
    return router_pb2.ContentBlock(tool_use=use)


def _attempt(attempt: Attempt) -> router_pb2.Attempt:
    message = router_pb2.Attempt(
        tier=attempt.tier,
        model=attempt.model,
        endpoint=attempt.endpoint,
        purpose=attempt.purpose.value,
        result="reply" if isinstance(attempt.result, Reply) else attempt.result.kind,
        verdicts=[_verdict(report) for report in attempt.checks],
        cost_usd=attempt.cost_usd,
    )
    if isinstance(attempt.result, Reply):
        usage = attempt.result.usage
        message.usage.input_tokens = usage.input_tokens
        message.usage.output_tokens = usage.output_tokens
        message.usage.cache_write_5m_tokens = usage.cache_write_5m_tokens
        message.usage.cache_write_1h_tokens = usage.cache_write_1h_tokens
        message.usage.cache_read_tokens = usage.cache_read_tokens
    _set(message.duration, attempt.duration_s)
    return message


def _verdict(report: CheckReport) -> router_pb2.Verdict:
    match report.verdict:
        case Accept():
            word, reason = "accept", ""
        case Reject(reason):
            word = "reject"
        case Unjudged(cause):
            word, reason = "unjudged", cause
    message = router_pb2.Verdict(
        check=report.check,
        version=report.version,
        verdict=word,
        reason=reason,
        cost_usd=report.cost_usd,
        calls=report.calls,
        overruled=report.overruled,
    )
    if report.score is not None:
        message.score = report.score
    _set(message.duration, report.duration_s)
    return message


def _set(duration: Duration, seconds: float) -> None:
    duration.FromNanoseconds(int(max(0.0, seconds) * 1e9))
