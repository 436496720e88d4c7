"""Where a rejection leads without a model: by what the workload's own tiers have done after one. Pure."""

from __future__ import annotations

from fallback.cascade import Ask, Keep, Step
from fallback.job import Rejected, Steering
from router.deliberation import NO_TIME, NOT_WORTH_IT, Stakes
from router.experience import Experience


def measured_steering(experience: Experience, workload: str, stakes: Stakes) -> Steering:
    """The next tier that may be worth its price after this rejection; back to the caller where none is.

    The doubt is the tier's: its rate of passing is taken at the upper end of its 95 % interval, which is 1 where
    nothing is known. So a rejected reply is handed back only where all above have been seen to fail after it too.
    """

    def steer(rejected: Rejected) -> Step:
        if not rejected.above:
            return Keep(rejected.tier, accepted=False)
        if stakes.insists:
            return Ask(rejected.above[0])
        gains = {tier: _gain_usd(experience, workload, stakes, rejected, tier) for tier in rejected.above}
        for tier, (_, in_time_usd) in gains.items():
            if in_time_usd > 0.0:
                return Ask(tier, in_time_usd)
        hurried = any(unhurried_usd > 0.0 for unhurried_usd, _ in gains.values())
        return Keep(rejected.tier, accepted=False, why=NO_TIME if hurried else NOT_WORTH_IT)

    return steer


def _gain_usd(
    experience: Experience, workload: str, stakes: Stakes, rejected: Rejected, tier: str
) -> tuple[float, float]:
    """Expected gain of asking the tier in US dollars: with all the time in the world, and with what is left."""
    least_rejected, _ = experience.rejection_bounds(workload, rejected.tier, tier)
    most_passes = stakes.rejected_cost_usd * (1.0 - least_rejected)
    price_usd = stakes.price_usd(tier)
    return most_passes - price_usd, most_passes * stakes.in_time(tier, rejected.time_left_s) - price_usd
