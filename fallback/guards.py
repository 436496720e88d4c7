"""Who may call now: retry budgets, breakers, rate limits and refused access, by provider, endpoint and tier.

Each Failure speaks to one of them (ADR 0014):

    failure                                          budget   breakers  besides
    timeout, overload, connection, 5xx, no message   a token  count     where half of the calls fail, the road ails
    408, 409                                         a token  –         –
    429                                              a token  –         the road is closed as long as it says
    credentials, model not served, spend limit       a token  –         the road is closed but for probes; an alarm
    any other 4xx, cancelled, not attempted          –        –         –
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fallback.access import Access, Alarm
from fallback.ailing import Ailing, AilingSettings
from fallback.breaker import Breaker, BreakerSettings, Permit, State
from fallback.budget import RetryBudget
from fallback.clock import Clock
from fallback.errors import EndpointUnusable, Failure, RateLimited, Transient
from fallback.providers import Endpoint
from fallback.quota import Quota, QuotaSettings
from fallback.types import Reply


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """`provider` is wider than `endpoint`: it opens when several tiers of one provider fail together."""

    budget_tokens: float = 100.0
    budget_ratio: float = 0.25
    endpoint: BreakerSettings = field(default_factory=BreakerSettings)
    provider: BreakerSettings = field(default_factory=lambda: BreakerSettings(failures=40, window=50))
    quota: QuotaSettings = field(default_factory=QuotaSettings)
    ailing: AilingSettings = field(default_factory=AilingSettings)


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a road is closed: `breaker_open`, `rate_limited` or the kind of an EndpointUnusable; and for how long."""

    cause: str
    wait_s: float


class Call:
    """One permitted call; its end is told to everything that guards it in one place."""

    __slots__ = ("_budget", "_extra", "_guards", "_permits", "_probes", "_road")

    def __init__(
        self,
        guards: Guards,
        road: tuple[str, str],
        budget: RetryBudget,
        permits: tuple[Permit, ...],
        probes: tuple[Permit, ...],
        *,
        extra: bool,
    ) -> None:
        self._guards = guards
        self._road = road
        self._budget = budget
        self._permits = permits
        self._probes = probes
        self._extra = extra
        if extra:
            budget.on_extra()

    def replied(self, reply: Reply) -> None:
        """Ended in a Reply, whatever the checks will say of it."""
        self._ended()
        self._budget.on_reply()
        self._guards.quota(self._road).replied(reply.headroom)
        self._guards.ailing(self._road).ended(failed=False)
        for permit in self._permits:
            permit.succeeded()
        for probe in self._probes:
            probe.succeeded()
        if self._probes:
            self._guards.access.granted(self._road)

    def failed(self, failure: Failure) -> None:
        """Ended in a Failure."""
        self._ended()
        if isinstance(failure, Transient | EndpointUnusable):
            self._budget.on_failure()
        if isinstance(failure, RateLimited):
            self._guards.quota(self._road).limited(failure.retry_after_s)
        ill = _tells_of_health(failure)
        if ill:
            self._guards.ailing(self._road).ended(failed=True)
        for permit in self._permits:
            if ill:
                permit.failed()
            else:
                permit.ignored()
        refused = isinstance(failure, EndpointUnusable)
        for probe in self._probes:
            if refused:
                probe.failed()
            else:
                probe.ignored()
        if isinstance(failure, EndpointUnusable):
            self._guards.access.refused(self._road, failure)

    def _ended(self) -> None:
        if self._extra:
            self._budget.on_extra_ended()


class Guards:
    """All of them of one process; per process by design, as in gRPC, Envoy and Finagle.

    `alarm` is told when an endpoint begins and ceases to be unusable.
    """

    def __init__(
        self,
        settings: GuardSettings,
        clock: Clock,
        uniform: Callable[[], float],
        alarm: Callable[[Alarm], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._uniform = uniform
        self._budgets: dict[str, RetryBudget] = {}
        self._breakers: dict[tuple[str, str], Breaker] = {}
        self._quotas: dict[tuple[str, str], Quota] = {}
        self._ailing: dict[tuple[str, str], Ailing] = {}
        self.access = Access(settings.endpoint, clock, uniform, alarm)

    def budget(self, endpoint: Endpoint) -> RetryBudget:
        """The endpoint's provider-wide retry budget."""
        if (budget := self._budgets.get(endpoint.budget)) is None:
            budget = RetryBudget(max_tokens=self._settings.budget_tokens, ratio=self._settings.budget_ratio)
            self._budgets[endpoint.budget] = budget
        return budget

    def quota(self, road: tuple[str, str]) -> Quota:
        """The rate limit of an (endpoint, tier)."""
        if (quota := self._quotas.get(road)) is None:
            quota = self._quotas[road] = Quota(self._settings.quota, self._clock)
        return quota

    def ailing(self, road: tuple[str, str]) -> Ailing:
        """The recent health of an (endpoint, tier)."""
        if (ailing := self._ailing.get(road)) is None:
            ailing = self._ailing[road] = Ailing(self._settings.ailing, self._clock)
        return ailing

    def permit(self, endpoint: Endpoint, tier: str, *, extra: bool = False) -> Call | None:
        """Leave to call this endpoint for this tier now, or None. `extra`: only because of a Failure."""
        road = (endpoint.name, tier)
        if self.quota(road).wait_s > 0:
            return None
        above = self._breaker((endpoint.budget, ""), self._settings.provider).permit()
        if above is None:
            return None
        own = self._breaker(road, self._settings.endpoint).permit()
        probes = () if own is None else self.access.permits(road)
        if own is None or probes is None:
            above.ignored()
            if own is not None:
                own.ignored()
            return None
        return Call(self, road, self.budget(endpoint), (above, own), probes, extra=extra)

    def hold(self, endpoint: Endpoint, tier: str) -> Hold | None:
        """What keeps calls from this road now; None where nothing does (a half-open one may still be busy)."""
        road = (endpoint.name, tier)
        kind, refused_s = self.access.wait(road)
        breakers_s = max(
            self._breaker((endpoint.budget, ""), self._settings.provider).retry_after_s,
            self._breaker(road, self._settings.endpoint).retry_after_s,
        )
        limited_s = self.quota(road).wait_s
        wait_s = max(refused_s, breakers_s, limited_s)
        if wait_s == 0:
            return None
        if refused_s > 0:
            return Hold(kind, wait_s)
        return Hold(RateLimited.kind if limited_s >= breakers_s else "breaker_open", wait_s)

    def avoided(self, endpoint: Endpoint, tier: str) -> bool:
        """Whether another road is better, where there is one: the rate limit nearly used up, or many calls failing."""
        road = (endpoint.name, tier)
        return self.quota(road).near or bool(self.ailing(road))

    def first_open(self, endpoints: Iterable[Endpoint], tier: str) -> tuple[Endpoint, Hold]:
        """The road that opens first, with its hold: `breaker_open` for 0 s where it is merely busy with probes."""
        holds = [(endpoint, self.hold(endpoint, tier) or Hold("breaker_open", 0.0)) for endpoint in endpoints]
        return min(holds, key=lambda found: found[1].wait_s)

    def states(self) -> dict[tuple[str, str], State]:
        """Breaker state by (endpoint, tier); (provider, "") for the ones above."""
        return {key: breaker.state for key, breaker in list(self._breakers.items())}

    def _breaker(self, key: tuple[str, str], settings: BreakerSettings) -> Breaker:
        if (breaker := self._breakers.get(key)) is None:
            breaker = self._breakers[key] = Breaker(settings, self._clock, self._uniform)
        return breaker


def _tells_of_health(failure: Failure) -> bool:
    """A 4xx is about the request, the account or the quota: it never counts."""
    answered = failure.http_status is not None and 400 <= failure.http_status < 500
    return isinstance(failure, Transient) and not isinstance(failure, RateLimited) and not answered
