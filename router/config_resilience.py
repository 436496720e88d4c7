"""The sections [resilience] and [admission] of the configuration file: how Failures and overload are met."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from fallback.ailing import AilingSettings
from fallback.breaker import BreakerSettings
from fallback.guards import GuardSettings
from fallback.quota import QuotaSettings
from fallback.recovery import RecoverySettings
from router.admission import AdmissionSettings
from router.config_base import Count, Number, Seconds, Section
from router.limits import LimitSettings


class ResilienceConfig(Section):
    """Retry budget (gRPC A6), attempts, backoff and breakers; see docs/architecture.md."""

    attempts_per_tier: Annotated[int, Field(strict=True, ge=1, le=5)] = 3
    backoff_base_s: Seconds = 0.2
    backoff_cap_s: Seconds = 5.0
    budget_tokens: Annotated[Number, Field(gt=0, le=10_000)] = 100.0
    budget_ratio: Annotated[Number, Field(gt=0, le=1)] = 0.25
    ailing_failures: Count = 10
    ailing_window: Count = 20
    breaker_failures: Count = 10
    breaker_window: Count = 10
    breaker_first_open_s: Seconds = 5.0
    breaker_open_s: Seconds = 30.0
    near_limit: Annotated[Number, Field(ge=0, lt=1)] = 0.02

    @model_validator(mode="after")
    def _can_open(self) -> Self:
        if self.breaker_failures > self.breaker_window:
            raise ValueError("breaker_failures must not exceed breaker_window")
        if self.ailing_failures > self.ailing_window:
            raise ValueError("ailing_failures must not exceed ailing_window")
        if self.backoff_base_s > self.backoff_cap_s:
            raise ValueError("backoff_base_s must not exceed backoff_cap_s")
        return self

    def recovery(self) -> RecoverySettings:
        """For the chain."""
        return RecoverySettings(self.attempts_per_tier, self.backoff_base_s, self.backoff_cap_s)

    def guards(self) -> GuardSettings:
        """For the budgets and breakers."""
        first_s, longest_s = self.breaker_first_open_s, self.breaker_open_s
        settings = GuardSettings(self.budget_tokens, self.budget_ratio)
        return replace(
            settings,
            endpoint=BreakerSettings(self.breaker_failures, self.breaker_window, longest_s, first_s),
            provider=replace(settings.provider, open_s=longest_s, first_open_s=first_s),
            quota=QuotaSettings(self.near_limit),
            ailing=AilingSettings(self.ailing_failures, self.ailing_window, self.breaker_first_open_s),
        )


class AdmissionConfig(Section):
    """How many requests at once: between `min_in_flight` and `server.max_in_flight`, by how late the event loop is.

    At most `max_pending` calls that the event loop has not yet looked at wait in the listener.
    """

    min_in_flight: Count = 32
    max_lag_s: Seconds = 0.016
    max_queued: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 32
    queue_wait_s: Seconds = 0.1
    max_pending: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 512

    def settings(self, max_in_flight: int) -> AdmissionSettings:
        """For the admission."""
        limit = LimitSettings(max_in_flight, min(self.min_in_flight, max_in_flight), self.max_lag_s)
        return AdmissionSettings(limit, self.max_queued, self.queue_wait_s)
