"""Outcomes for tests: builders with sensible defaults, hypothesis strategies, and what stays of one when stored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from hypothesis import strategies as st

from fallback import errors
from fallback.errors import Failure
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
from router.outcome import (
    Agreement,
    Audit,
    AuditMethod,
    AuditVerdict,
    Decision,
    Feedback,
    Mode,
    Outcome,
    RetainedText,
)

TIERS = ("haiku", "sonnet", "opus")
FAILURES: tuple[type[Failure], ...] = (
    errors.TimedOut,
    errors.Overloaded,
    errors.RateLimited,
    errors.ConnectionFailed,
    errors.UpstreamError,
    errors.MalformedReply,
    errors.CredentialsRefused,
    errors.TierNotServed,
    errors.SpendLimited,
    errors.RequestRefused,
    errors.NotAttempted,
    errors.Cancelled,
)


# --- builders --------------------------------------------------------------------------------


def request_id(n: int) -> str:
    """The n-th of a series of ids that sort by n."""
    return f"{n:032x}"


def reply(tier: str = "haiku", *, text: str = "an answer", output_tokens: int = 20) -> Reply:
    """A reply that ended by itself."""
    return Reply((TextBlock(text),), StopReason.END_TURN, Usage(100, output_tokens), f"claude-{tier}", "msg_1")


def check(verdict: Verdict, *, name: str = "form") -> CheckReport:
    """A free check's report."""
    return CheckReport(name, "1", verdict, started_s=0.2, duration_s=0.001)


def attempt(
    tier: str = "haiku",
    *,
    result: Reply | Failure | None = None,
    purpose: Purpose = Purpose.FIRST,
    verdict: Verdict | None = None,
    cost_usd: float = 0.001,
) -> Attempt:
    """One call: a reply that was accepted, unless told otherwise. `verdict` is of its only check."""
    outcome_of_call = reply(tier) if result is None else result
    checks = () if isinstance(outcome_of_call, Failure) else (check(Accept() if verdict is None else verdict),)
    return Attempt(
        tier, f"claude-{tier}", "first-party", purpose, outcome_of_call, 0.0, 0.25, cost_usd=cost_usd, checks=checks
    )


def escalated_attempts(start: str = "haiku", end: str = "sonnet") -> tuple[Attempt, ...]:
    """The start tier's reply rejected, the next one's accepted."""
    return (
        attempt(start, verdict=Reject("not_json"), cost_usd=0.001),
        attempt(end, purpose=Purpose.ESCALATION, cost_usd=0.02),
    )


def outcome(
    n: int = 1,
    *,
    workload: str = "triage",
    mode: Mode = Mode.CHAIN,
    attempts: Sequence[Attempt] | None = None,
    resolved_tier: str | None = None,
    accepted: bool | None = None,
    received_at_s: float = 1_000_000.0,
    top_tier_cost_usd: float = 0.04,
    status: str = "OK",
    retained: RetainedText | None = None,
    labels: Mapping[str, str] | None = None,
) -> Outcome:
    """The n-th outcome: one accepted haiku reply, unless told otherwise; what is not given follows from that."""
    made = (attempt(),) if attempts is None else tuple(attempts)
    replied = [a for a in made if isinstance(a.result, Reply)]
    start = made[0].tier if made else "haiku"
    return Outcome(
        request_id=request_id(n),
        workload=workload,
        received_at_s=received_at_s,
        duration_s=0.5,
        status=status,
        decision=Decision(mode, TIERS[TIERS.index(start) :], "static_plan", propensities={start: 1.0}),
        attempts=made,
        resolved_tier=(replied[-1].tier if replied else "") if resolved_tier is None else resolved_tier,
        accepted=(bool(replied) and replied[-1].accepted) if accepted is None else accepted,
        reasons=(),
        cost_usd=math.fsum(a.cost_usd for a in made),
        top_tier_cost_usd=top_tier_cost_usd,
        features_version="f1",
        request_features=b"\x01\x02",
        reply_features=tuple(b"\x03" if isinstance(a.result, Reply) else None for a in made),
        labels=labels or {},
        retained=retained,
    )


def audit(n: int = 1, **changes: Any) -> Audit:
    """The n-th outcome's accepted haiku reply, found good by the audit verifier; one in twenty is audited."""
    values: dict[str, Any] = {
        "request_id": request_id(n),
        "workload": "triage",
        "tier": "haiku",
        "accepted": True,
        "auditor_tier": "sonnet",
        "verdict": AuditVerdict.GOOD,
        "auditor_verdict": AuditVerdict.UNKNOWN,
        "method": AuditMethod.VERIFIER,
        "propensity": 0.05,
        "attempts": 1,
        "cost_usd": 0.02,
        "audited_at_s": 1_000_010.0,
    }
    return Audit(**{**values, **changes})


def typical(n: int) -> Outcome:
    """The n-th of a mix as a service sees it, with features of a usual size: for measuring."""
    made = escalated_attempts() if n % 4 == 0 else (attempt(),)
    return replace(
        outcome(n, attempts=made, received_at_s=1_000_000.0 + n),
        request_features=(n % 251).to_bytes(1, "big") * 1_200,
        reply_features=tuple(b"\x07" * 200 for _ in made),
        decision=Decision(
            Mode.CHAIN,
            TIERS,
            "no tier clears 0.92; haiku first costs least",
            probabilities={"haiku": 0.71, "sonnet": 0.88, "opus": 0.91},
            propensities={"haiku": 0.96, "sonnet": 0.02, "opus": 0.02},
            expected_cost_usd={"haiku": 0.0021, "sonnet": 0.0032, "opus": 0.0081},
            mistake_cost_usd=0.05,
            model_version="2026-01-01T00-00-00Z-3f2a",
        ),
    )


# --- comparing -------------------------------------------------------------------------------


def comparable(outcome_: Outcome) -> Outcome:
    """What must come back from a store, in a form that `==` compares: no reply content, Failures as tuples."""

    def result(of: Reply | Failure) -> Any:
        if isinstance(of, Reply):
            return replace(of, content=())
        return (type(of), of.error_type, of.http_status, of.retry_after_s, of.upstream_request_id)

    return replace(outcome_, attempts=tuple(replace(a, result=result(a.result)) for a in outcome_.attempts))


# --- strategies ------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
_tokens = st.integers(0, 2**40)
_times = st.floats(0, 1e10)
_usd = st.floats(0, 1e6)
_by_tier = st.dictionaries(st.sampled_from(TIERS), finite, max_size=3)

replies = st.builds(
    Reply,
    content=st.lists(st.builds(TextBlock, words), max_size=2).map(tuple),
    stop_reason=st.sampled_from(StopReason),
    usage=st.builds(Usage, _tokens, _tokens, _tokens, _tokens, _tokens),
    model=words,
    upstream_id=words,
)


@st.composite
def failures(draw: st.DrawFn) -> Failure:
    """Any Failure of the tree's leaves."""
    kind = draw(st.sampled_from(FAILURES))
    return kind(
        draw(words),
        http_status=draw(st.none() | st.integers(400, 599)),
        retry_after_s=draw(st.none() | finite),
        upstream_request_id=draw(words),
    )


verdicts = st.one_of(st.just(Accept()), st.builds(Reject, words, st.sampled_from(Remedy)), st.builds(Unjudged, words))
check_reports = st.builds(
    CheckReport,
    check=words,
    version=words,
    verdict=verdicts,
    score=st.none() | finite,
    cost_usd=_usd,
    started_s=_times,
    duration_s=_times,
    calls=st.integers(0, 9),
    overruled=st.booleans(),
)
attempts = st.builds(
    Attempt,
    tier=st.sampled_from(TIERS),
    model=words,
    endpoint=words,
    purpose=st.sampled_from(Purpose),
    result=replies | failures(),
    started_s=_times,
    duration_s=_times,
    cost_usd=_usd,
    checks=st.lists(check_reports, max_size=3).map(tuple),
)
decisions = st.builds(
    Decision,
    mode=st.sampled_from(Mode),
    tiers=st.lists(st.sampled_from(TIERS), min_size=1, max_size=3, unique=True).map(tuple),
    reason=words,
    probabilities=_by_tier,
    propensities=_by_tier,
    expected_cost_usd=_by_tier,
    mistake_cost_usd=st.floats(0, 10),
    model_version=words,
    explored=st.booleans(),
)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any outcome that may be stored; ids are drawn from a large space, in no order."""
    made = tuple(draw(st.lists(attempts, max_size=3)))
    pairs = list(combinations([n for n, each in enumerate(made) if isinstance(each.result, Reply)], 2))
    return Outcome(
        request_id=draw(st.integers(0, 2**128 - 1).map(request_id)),
        workload=draw(words),
        received_at_s=draw(_times),
        duration_s=draw(_times),
        status=draw(words),
        decision=draw(decisions),
        attempts=made,
        resolved_tier=draw(st.sampled_from(("", *TIERS))),
        accepted=draw(st.booleans()),
        reasons=tuple(draw(st.lists(words, max_size=2))),
        cost_usd=draw(_usd),
        top_tier_cost_usd=draw(_usd),
        features_version=draw(words),
        request_features=draw(st.binary(max_size=40)),
        reply_features=tuple(draw(st.none() | st.binary(max_size=20)) for _ in made),
        labels=draw(st.dictionaries(words, words, max_size=2)),
        agreements=tuple(
            Agreement(one, two, draw(st.sampled_from((0.0, 1.0))), draw(st.floats(0, 1))) for one, two in pairs
        ),
        retained=draw(st.none() | st.builds(RetainedText, words, words)),
    )


feedbacks = st.builds(
    Feedback,
    request_id=st.integers(0, 2**128 - 1).map(request_id),
    good=st.booleans(),
    sufficient_tier=st.sampled_from(("", *TIERS)),
    score=st.none() | finite,
    reason=words,
    reported_at_s=finite,
)

audits = st.builds(
    Audit,
    request_id=st.integers(0, 2**128 - 1).map(request_id),
    workload=words,
    tier=st.sampled_from(TIERS),
    accepted=st.booleans(),
    auditor_tier=st.sampled_from(("", *TIERS)),
    verdict=st.sampled_from(AuditVerdict),
    auditor_verdict=st.sampled_from(AuditVerdict),
    method=st.sampled_from(AuditMethod),
    propensity=st.floats(1e-9, 1),
    attempts=st.integers(0, 5),
    cost_usd=_usd,
    audited_at_s=_times,
    reply_features=st.binary(max_size=20),
)
