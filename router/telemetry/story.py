"""What a finished Outcome says that it does not spell out; used alike by the spans and the metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from fallback.types import Accept, Attempt, Purpose, Reject, Reply, Verdict
from router.outcome import Outcome

# The two jobs of the chain, told apart: resilience follows a failure, cost tiering a verdict.
TRIGGERS = {
    Purpose.FIRST: "none",
    Purpose.RETRY: "failure",
    Purpose.FAILOVER: "failure",
    Purpose.ESCALATION: "verdict",
    Purpose.LONGER: "verdict",
    Purpose.HEDGE: "latency",
}


def kept_attempt(outcome: Outcome) -> int:
    """Index of the attempt whose reply the caller got; -1 where none did."""
    best = -1
    for index, attempt in enumerate(outcome.attempts):
        if attempt.tier == outcome.resolved_tier and isinstance(attempt.result, Reply):
            if outcome.accepted and not attempt.accepted:
                continue
            best = index
    return best


def attempt_cost_usd(attempt: Attempt) -> float:
    """An attempt with its checks, in US dollars."""
    return attempt.cost_usd + sum(report.cost_usd for report in attempt.checks)


def wasted_usd(outcome: Outcome, kept: int) -> float:
    """Spent on attempts, and their checks, whose reply the caller did not get."""
    return sum(attempt_cost_usd(attempt) for index, attempt in enumerate(outcome.attempts) if index != kept)


def verdict_word(verdict: Verdict) -> tuple[str, str]:
    """The verdict in a word, and its reason or cause (empty with accept)."""
    if isinstance(verdict, Accept):
        return "accept", ""
    if isinstance(verdict, Reject):
        return "reject", verdict.reason
    return "unjudged", verdict.cause


def attempt_verdict(attempt: Attempt) -> str:
    """What the checks said together: reject, unjudged, accept; empty where no check ran."""
    words = {verdict_word(report.verdict)[0] for report in attempt.checks if not report.overruled}
    return next((word for word in ("reject", "unjudged", "accept") if word in words), "")


def escalated_from(outcome: Outcome) -> Iterator[str]:
    """The tier that was left, for each escalation."""
    last_reply = ""
    for attempt in outcome.attempts:
        if attempt.purpose is Purpose.ESCALATION and last_reply:
            yield last_reply
        if isinstance(attempt.result, Reply):
            last_reply = attempt.tier
