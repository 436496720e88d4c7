"""What to do about a Failure: retry, fail over, or give up. Pure; knows no verdicts.

Order: another endpoint of the same tier at once; then the same endpoint again after a jittered
backoff (or after the provider's Retry-After where that fits the time left); then a neighbouring tier
where the workload allows it; else give up. Where nothing was sent, because every road to the tier is
closed, a neighbouring tier comes before waiting, and only a rate limit is waited for.

Each call beyond the first needs the leave of the retry budget of the provider that would get it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fallback.errors import EndpointUnusable, Failure, NotAttempted, RateLimited, Transient

_LEAST_WAIT_S = 0.05


@dataclass(frozen=True, slots=True)
class RecoverySettings:
    """`attempts_per_tier` bounds the calls for one tier, failovers between its endpoints included."""

    attempts_per_tier: int = 3
    backoff_base_s: float = 0.2
    backoff_cap_s: float = 5.0
    jitter: float = 0.2


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known when an attempt has failed.

    `other_endpoint` and `other_tier` are usable, not yet tried for this step, and inside their provider's
    budget; empty when there is none. `budget_allows` is about the same endpoint again. While this step has
    made no call, every budget allows: a first call elsewhere is no extra call.
    """

    attempts_on_tier: int
    time_left_s: float
    tier_min_time_s: float
    budget_allows: bool
    other_endpoint: str = ""
    other_tier: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same tier and endpoint again, after `delay_s`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class FailOverEndpoint:
    """Another endpoint of the same tier, now."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class FailOverTier:
    """A neighbouring tier, now."""

    tier: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more because of this Failure."""

    why: str


Action = Retry | FailOverEndpoint | FailOverTier | GiveUp


def decide(failure: Failure, now: Situation, settings: RecoverySettings, uniform: float) -> Action:
    """The action after `failure`; `uniform` in [0, 1) is the jitter's randomness."""
    if not isinstance(failure, Transient | EndpointUnusable | NotAttempted):
        return GiveUp("not_recoverable")
    waits = _may_wait(failure, now, settings, uniform)
    if now.attempts_on_tier < settings.attempts_per_tier and now.time_left_s >= now.tier_min_time_s:
        if now.other_endpoint:
            return FailOverEndpoint(now.other_endpoint)
        if waits is not None and isinstance(failure, Transient):
            return Retry(waits)
    if now.other_tier:
        return FailOverTier(now.other_tier)
    if waits is not None:
        return Retry(waits)
    if now.attempts_on_tier >= settings.attempts_per_tier:
        return GiveUp("attempts")
    if not now.budget_allows:
        return GiveUp("retry_budget")
    return GiveUp("deadline" if isinstance(failure, Transient) else "no_alternative")


def _may_wait(failure: Failure, now: Situation, settings: RecoverySettings, uniform: float) -> float | None:
    """Seconds after which the same tier may be called again; None where waiting does not help or is not allowed."""
    if not now.budget_allows or now.attempts_on_tier >= settings.attempts_per_tier:
        return None
    if isinstance(failure, NotAttempted) and failure.error_type == RateLimited.kind:
        # Many wait for the same moment: they are spread over a fifth of the wait.
        delay_s = max(_LEAST_WAIT_S, failure.retry_after_s or 0.0) * (1.0 + settings.jitter * uniform)
    elif isinstance(failure, Transient):
        delay_s = backoff_s(failure, now.attempts_on_tier, settings, uniform)
    else:
        return None
    return delay_s if now.time_left_s - delay_s >= now.tier_min_time_s else None


def backoff_s(failure: Failure, attempts: int, settings: RecoverySettings, uniform: float) -> float:
    """Seconds to wait: the provider's Retry-After exactly when it gave one, else exponential with jitter."""
    if failure.retry_after_s is not None:
        return failure.retry_after_s
    # A rate limit without Retry-After refills over seconds, not tenths.
    base_s = settings.backoff_base_s * (5.0 if isinstance(failure, RateLimited) else 1.0)
    delay_s: float = min(settings.backoff_cap_s, base_s * 2.0 ** (attempts - 1))
    return delay_s * (1.0 + settings.jitter * (2.0 * uniform - 1.0))
