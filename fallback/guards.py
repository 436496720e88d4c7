"""Who may call now: the retry budgets and the breakers, by provider, endpoint and tier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fallback.breaker import Breaker, BreakerSettings, Permit, State
from fallback.budget import RetryBudget
from fallback.clock import Clock
from fallback.errors import Cancelled, EndpointUnusable, Failure, Transient
from fallback.providers import Endpoint


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """`provider` is wider than `endpoint`: it opens when several tiers of one provider fail together."""

    budget_tokens: float = 100.0
    budget_ratio: float = 0.25
    endpoint: BreakerSettings = field(default_factory=BreakerSettings)
    provider: BreakerSettings = field(default_factory=lambda: BreakerSettings(failures=40, window=50))


class Call:
    """One permitted call; its end is told to the breakers and the budget in one place."""

    __slots__ = ("_budget", "_permits")

    def __init__(self, budget: RetryBudget, permits: tuple[Permit, ...]) -> None:
        self._budget = budget
        self._permits = permits

    def replied(self) -> None:
        """Ended in a Reply, whatever the checks will say of it."""
        self._budget.on_reply()
        for permit in self._permits:
            permit.succeeded()

    def failed(self, failure: Failure) -> None:
        """Ended in a Failure. Only what another call could mend costs budget or counts against health."""
        counts = isinstance(failure, Transient | EndpointUnusable) and not isinstance(failure, Cancelled)
        if counts:
            self._budget.on_failure()
        for permit in self._permits:
            if counts:
                permit.failed()
            else:
                permit.ignored()


class Guards:
    """All budgets and breakers of one process; per process by design, as in gRPC, Envoy and Finagle."""

    def __init__(self, settings: GuardSettings, clock: Clock, uniform: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._uniform = uniform
        self._budgets: dict[str, RetryBudget] = {}
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def budget(self, endpoint: Endpoint) -> RetryBudget:
        """The endpoint's provider-wide retry budget."""
        if (budget := self._budgets.get(endpoint.budget)) is None:
            budget = RetryBudget(max_tokens=self._settings.budget_tokens, ratio=self._settings.budget_ratio)
            self._budgets[endpoint.budget] = budget
        return budget

    def permit(self, endpoint: Endpoint, tier: str) -> Call | None:
        """Leave to call this endpoint for this tier now, or None."""
        above = self._breaker((endpoint.budget, ""), self._settings.provider).permit()
        if above is None:
            return None
        own = self._breaker((endpoint.name, tier), self._settings.endpoint).permit()
        if own is None:
            above.ignored()
            return None
        return Call(self.budget(endpoint), (above, own))

    def retry_after_s(self, endpoints: Iterable[Endpoint], tier: str) -> float:
        """Seconds until the first of the endpoints may be called for the tier again."""
        waits = []
        for endpoint in endpoints:
            above = self._breaker((endpoint.budget, ""), self._settings.provider)
            own = self._breaker((endpoint.name, tier), self._settings.endpoint)
            waits.append(max(above.retry_after_s, own.retry_after_s))
        return min(waits, default=0.0)

    def states(self) -> dict[tuple[str, str], State]:
        """State by (endpoint, tier); (provider, "") for the ones above."""
        return {key: breaker.state for key, breaker in self._breakers.items()}

    def _breaker(self, key: tuple[str, str], settings: BreakerSettings) -> Breaker:
        if (breaker := self._breakers.get(key)) is None:
            breaker = self._breakers[key] = Breaker(settings, self._clock, self._uniform)
        return breaker
