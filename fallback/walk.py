"""Where one step of a chain stands among endpoints and tiers, and what it has tried. Pure."""

from __future__ import annotations

from fallback.job import Step
from fallback.providers import Endpoint
from fallback.types import Purpose, Tier


class Walk:
    """The road taken now, why, and the calls so far. While none has been made, going elsewhere is no failover."""

    __slots__ = ("calls", "calls_on_tier", "endpoint", "max_tokens", "purpose", "tier", "tried", "visited")

    def __init__(self, step: Step, endpoint: Endpoint) -> None:
        self.tier: Tier = step.tier
        self.endpoint = endpoint
        self.purpose = step.purpose
        self.max_tokens = step.max_tokens
        self.tried: set[str] = set()
        self.visited = {step.tier.name}
        self.calls = 0
        self.calls_on_tier = 0

    def called(self) -> None:
        """A call is being made where it stands."""
        self.calls += 1
        self.calls_on_tier += 1
        self.tried.add(self.endpoint.name)

    def again(self) -> None:
        """The same tier once more."""
        self.purpose = Purpose.RETRY if self.calls else self.purpose

    def to_endpoint(self, endpoint: Endpoint) -> None:
        """Another endpoint of the same tier."""
        self.purpose = Purpose.FAILOVER if self.calls else self.purpose
        self.endpoint = endpoint
        self.tried.add(endpoint.name)

    def to_tier(self, tier: Tier, endpoint: Endpoint) -> None:
        """Another tier."""
        self.purpose = Purpose.FAILOVER if self.calls else self.purpose
        self.tier, self.endpoint = tier, endpoint
        self.tried, self.calls_on_tier = {endpoint.name}, 0
        self.visited.add(tier.name)

    def hedge(self, endpoint: Endpoint) -> Walk:
        """A hedge that is being sent beside the call where it stands; it counts as a call of this walk."""
        self.calls += 1
        self.tried.add(endpoint.name)
        beside = Walk(Step(self.tier, Purpose.HEDGE, self.max_tokens), endpoint)
        beside.tried, beside.visited = self.tried, self.visited
        return beside
