"""What a request will probably cost and take on each tier: measured for its workload, else a prior. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from fallback.economics import PriceBook
from fallback.plans import Delay
from fallback.types import Request, Tier
from router.experience import Experience

_TYPICAL_OUTPUT_TOKENS = 400.0
# Before a workload's replies have been timed: a first token after a second and sixty more a second, give or take 70 %.
_FIRST_TOKEN_S = 1.0
_TOKENS_PER_S = 60.0
_SPREAD = 0.7


class Expectations:
    """By request and tier; `ladder` by tier name."""

    def __init__(self, ladder: Mapping[str, Tier], prices: PriceBook, experience: Experience) -> None:
        self._ladder = ladder
        self._prices = prices
        self._experience = experience

    def cost_usd(self, request: Request, tier: str) -> float:
        """One reply with its checks: measured for the workload where there is enough, else one by list price."""
        measured = self._experience.cost_usd(request.workload, tier)
        if measured is not None:
            return measured
        return self._prices.expected_usd(self._ladder[tier].model, request, self.output_tokens(request, tier))

    def check_usd(self, request: Request, tier: str) -> float:
        """The checks' part of the cost; 0 until it has been measured."""
        found = self._experience.timed(request.workload, tier)
        return found.check_usd if found is not None else 0.0

    def output_tokens(self, request: Request, tier: str) -> float:
        """Length of a reply: the workload's own on this tier, else a typical one."""
        measured = self._experience.output_tokens(request.workload, tier)
        return measured if measured is not None else min(_TYPICAL_OUTPUT_TOKENS, float(request.max_tokens))

    def delay(self, request: Request, tier: str) -> Delay:
        """Time of one reply with its checks: measured, else the prior for its length."""
        measured = self._experience.delay(request.workload, tier)
        if measured is not None:
            return measured
        mean_s = _FIRST_TOKEN_S + self.output_tokens(request, tier) / _TOKENS_PER_S
        return Delay(mean_s, (_SPREAD * mean_s) ** 2)
