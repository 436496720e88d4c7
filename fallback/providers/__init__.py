"""Roads to a tier. A provider is one file in this package that meets `Provider`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from fallback.types import Reply, Request, Tier


class Provider(Protocol):
    """One account on one platform."""

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        """One HTTP request, rendered for the tier. A Reply, or raises a Failure; no retry of its own.

        Cancelling the call closes the upstream connection.
        """

    async def close(self) -> None:
        """Close the connections; idempotent."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A named provider with what differs on its platform.

    `budget` names the retry budget and breaker group that it shares with others of its platform;
    `models` overrides the tiers' model ids; `price_multiplier` is the platform's surcharge.
    """

    name: str
    provider: Provider
    budget: str
    models: Mapping[str, str] = field(default_factory=dict)
    price_multiplier: float = 1.0

    def model(self, tier: Tier) -> str:
        """The tier's model id as this platform spells it."""
        return self.models.get(tier.name, tier.model)
