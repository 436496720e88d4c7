"""Endpoints that refuse us: bad credentials, a model that they do not serve, a spend limit. Pure.

Waiting does not help and every call is wasted, so the road is closed and an alarm stands until somebody
has acted: one call in each open period asks whether it works again. A refused key and a spend limit
close the endpoint for all tiers, a refused permission (403) or an unknown model (404) for the one tier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fallback.breaker import Breaker, BreakerSettings, Permit
from fallback.clock import Clock
from fallback.errors import CredentialsRefused, EndpointUnusable, SpendLimited

Road = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Somebody has to act. `tier` is empty where all tiers are concerned; `over` when it works again."""

    kind: str
    endpoint: str
    tier: str
    over: bool = False


class Access:
    """The endpoints that refuse us, by (endpoint, tier); (endpoint, "") for all of its tiers."""

    def __init__(
        self,
        settings: BreakerSettings,
        clock: Clock,
        uniform: Callable[[], float],
        alarm: Callable[[Alarm], None],
    ) -> None:
        self._settings = replace(settings, failures=1, window=1, probes=1)
        self._clock = clock
        self._uniform = uniform
        self._alarm = alarm
        self._closed: dict[Road, tuple[Alarm, Breaker]] = {}

    def alarms(self) -> tuple[Alarm, ...]:
        """Those that stand."""
        return tuple(alarm for alarm, _ in list(self._closed.values()))

    def permits(self, road: Road) -> tuple[Permit, ...] | None:
        """The probes that a call on this road is; none on an open road, None where it may not be made."""
        if not self._closed:
            return ()
        taken: list[Permit] = []
        for key in _keys(road):
            if key in self._closed:
                permit = self._closed[key][1].permit()
                if permit is None:
                    for one in taken:
                        one.ignored()
                    return None
                taken.append(permit)
        return tuple(taken)

    def wait(self, road: Road) -> tuple[str, float]:
        """The kind of refusal that closes a road, and the seconds until it may be asked again."""
        if not self._closed:
            return "", 0.0
        found = [self._closed[key] for key in _keys(road) if key in self._closed]
        waits = [(breaker.retry_after_s, alarm.kind) for alarm, breaker in found]
        wait_s, kind = max(waits, default=(0.0, ""))
        return kind, wait_s

    def refused(self, road: Road, failure: EndpointUnusable) -> None:
        """A call was refused: closes the road and raises the alarm, once an episode."""
        wide = isinstance(failure, SpendLimited) or (
            isinstance(failure, CredentialsRefused) and failure.http_status != 403
        )
        alarm = Alarm(failure.kind, road[0], "" if wide else road[1])
        key = (alarm.endpoint, alarm.tier)
        known = self._closed.get(key)
        if known is not None and known[0] == alarm:
            return
        breaker = known[1] if known is not None else Breaker(self._settings, self._clock, self._uniform)
        if known is not None:
            self._alarm(replace(known[0], over=True))
        elif (permit := breaker.permit()) is not None:
            permit.failed()
        self._closed[key] = (alarm, breaker)
        self._alarm(alarm)

    def granted(self, road: Road) -> None:
        """A probe was answered: the road is open again."""
        for key in _keys(road):
            if known := self._closed.pop(key, None):
                self._alarm(replace(known[0], over=True))


def _keys(road: Road) -> tuple[Road, Road]:
    return (road[0], ""), road
