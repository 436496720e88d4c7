"""Finished requests, told by hand: the shapes that telemetry must tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fallback.errors import Cancelled, CredentialsRefused, Failure, NotAttempted, Overloaded, RateLimited, TimedOut
from fallback.types import (
    Accept,
    Attempt,
    CheckReport,
    Purpose,
    Reject,
    Remedy,
    Reply,
    StopReason,
    TextBlock,
    Unjudged,
    Usage,
    Verdict,
)
from router.outcome import Decision, Mode, Outcome
from router.telemetry import RpcCall

REQUEST_ID = "0192f0c4d1a7000089abcdef01234567"
WALL_S = 1_795_000_000.25
MODELS = {"haiku": "claude-haiku-5-5", "sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5"}
PRICES_USD = {"haiku": 0.000_31, "sonnet": 0.006_2, "opus": 0.012_4}


def reply(tier: str, *, stop: StopReason = StopReason.END_TURN, text: str = "forty-two") -> Reply:
    """A reply with tokens of every kind."""
    usage = Usage(
        input_tokens=10, output_tokens=20, cache_write_5m_tokens=1, cache_write_1h_tokens=2, cache_read_tokens=5
    )
    return Reply((TextBlock(text),), stop, usage, MODELS[tier], f"msg_{tier}")


def check(
    name: str, verdict: Verdict, *, cost_usd: float = 0.0, at_s: float = 0.0, score: float | None = None, calls: int = 0
) -> CheckReport:
    """A check's report that took 1 ms."""
    return CheckReport(name, "1", verdict, score, cost_usd, at_s, 0.001, calls)


def attempt(
    tier: str,
    purpose: Purpose,
    result: Reply | Failure | None = None,
    *,
    checks: Sequence[CheckReport] = (),
    at_s: float = 0.01,
    endpoint: str = "first-party",
    cost_usd: float | None = None,
) -> Attempt:
    """An attempt that took half a second; a failure costs nothing unless told."""
    ended = reply(tier) if result is None else result
    default = 0.0 if isinstance(ended, Failure) else PRICES_USD[tier]
    cost = default if cost_usd is None else cost_usd
    return Attempt(tier, MODELS[tier], endpoint, purpose, ended, at_s, 0.5, cost, tuple(checks))


def outcome(
    attempts: Sequence[Attempt],
    *,
    resolved: str = "",
    accepted: bool = True,
    mode: Mode = Mode.CHAIN,
    status: str = "OK",
    workload: str = "triage",
    reasons: tuple[str, ...] = (),
) -> Outcome:
    """An Outcome whose money is what its attempts and checks cost."""
    cost = sum(a.cost_usd + sum(c.cost_usd for c in a.checks) for a in attempts)
    start = attempts[0].tier if attempts else "haiku"
    ladder = ("haiku", "sonnet", "opus")
    return Outcome(
        request_id=REQUEST_ID,
        workload=workload,
        received_at_s=WALL_S + 0.002,
        duration_s=3.0,
        status=status,
        decision=Decision(
            mode=mode,
            tiers=ladder[ladder.index(start) :],
            reason="chain from haiku: P(good) 0.71 is below 0.90",
            probabilities={"haiku": 0.71, "sonnet": 0.93, "opus": 0.97},
            propensities={"haiku": 0.95, "sonnet": 0.05},
            model_version="20261123-7f3a",
        ),
        attempts=tuple(attempts),
        resolved_tier=resolved,
        accepted=accepted,
        reasons=reasons,
        cost_usd=cost,
        top_tier_cost_usd=PRICES_USD["opus"],
        features_version="1",
        request_features=b"",
        reply_features=tuple(b"" if isinstance(a.result, Reply) else None for a in attempts),
    )


def rpc(status: str = "OK", method: str = "router.v1.RouterService/Complete", **metadata: str) -> RpcCall:
    """The RPC around an outcome of `outcome()`."""
    return RpcCall(method, status, WALL_S, 3.01, metadata)


ACCEPTED = check("stop_reason", Accept(), at_s=0.52)
REJECTED = check("labels", Reject("labels:not_a_label"), at_s=0.53)


def stories() -> dict[str, tuple[Outcome, RpcCall]]:
    """Every shape a request can take, by name."""
    first, retry, failover = Purpose.FIRST, Purpose.RETRY, Purpose.FAILOVER
    escalation, longer = Purpose.ESCALATION, Purpose.LONGER
    scored = replace(check("scorer", Reject("low_score"), score=0.4, at_s=0.6), overruled=True)
    judged = (ACCEPTED, check("judge", Accept(), cost_usd=0.000_9, score=0.87, at_s=0.6, calls=1))
    unsure = (ACCEPTED, check("judge", Unjudged("timeout"), at_s=0.6))
    rejected = attempt("haiku", first, checks=(ACCEPTED, REJECTED))
    told: dict[str, Outcome] = {
        "accepted at once": outcome([attempt("haiku", first, checks=judged)], resolved="haiku"),
        "direct": outcome([attempt("sonnet", first, checks=(ACCEPTED,))], resolved="sonnet", mode=Mode.DIRECT),
        "misroute": outcome(
            [rejected, attempt("sonnet", escalation, checks=(ACCEPTED,), at_s=1.0)], resolved="sonnet", mode=Mode.DIRECT
        ),
        "overruled": outcome([attempt("haiku", first, checks=(ACCEPTED, scored, *judged[1:]))], resolved="haiku"),
        "escalated": outcome([rejected, attempt("sonnet", escalation, checks=judged, at_s=1.0)], resolved="sonnet"),
        "unjudged": outcome([attempt("haiku", first, checks=unsure)], resolved="haiku"),
        "retried": outcome(
            [
                attempt("haiku", first, Overloaded("overloaded_error", http_status=529, upstream_request_id="req_1")),
                attempt("haiku", retry, checks=(ACCEPTED,), at_s=0.8),
            ],
            resolved="haiku",
        ),
        "failed over": outcome(
            [
                attempt("haiku", first, CredentialsRefused("authentication_error", http_status=401)),
                attempt("haiku", failover, endpoint="bedrock-eu", checks=(ACCEPTED,), at_s=0.8),
            ],
            resolved="haiku",
        ),
        "longer": outcome(
            [
                attempt(
                    "haiku",
                    first,
                    reply("haiku", stop=StopReason.MAX_TOKENS),
                    checks=(check("stop_reason", Reject("stop_reason:truncated", Remedy.RAISE_LIMIT)),),
                ),
                attempt("haiku", longer, checks=(ACCEPTED,), at_s=1.0),
            ],
            resolved="haiku",
        ),
        "everything at once": outcome(
            [
                rejected,
                attempt("sonnet", escalation, TimedOut(), at_s=0.7, cost_usd=0.001),
                attempt("opus", failover, checks=(ACCEPTED, check("agreement", Accept(), cost_usd=0.001_55)), at_s=1.5),
            ],
            resolved="opus",
        ),
        "best of the rejected": outcome(
            [rejected, attempt("sonnet", escalation, checks=(ACCEPTED, REJECTED), at_s=1.0)],
            resolved="sonnet",
            accepted=False,
            reasons=("labels:not_a_label",),
        ),
        "outage": outcome(
            [attempt("haiku", first, RateLimited("rate_limit_error")), attempt("sonnet", failover, NotAttempted())],
            status="UNAVAILABLE",
            accepted=False,
        ),
        "cancelled": outcome([attempt("haiku", first, Cancelled())], status="CANCELLED", accepted=False),
        "nothing tried": outcome([], status="DEADLINE_EXCEEDED", accepted=False),
    }
    told["odd money"] = replace(
        told["everything at once"],
        attempts=tuple(replace(a, cost_usd=0.1 / 3) for a in told["everything at once"].attempts),
        cost_usd=3 * (0.1 / 3) + 0.001_55,
    )
    return {name: (told[name], rpc(told[name].status)) for name in told}
