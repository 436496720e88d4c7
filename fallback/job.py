"""What the chain is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fallback import cascade
from fallback.checks import Check
from fallback.types import CheckReport, Purpose, Remedy, Reply, Request, Tier


@dataclass(frozen=True, slots=True)
class Rules:
    """What the workload allows. `unjudged` says what a check that could not tell means."""

    unjudged: Remedy | None = None  # None: let the reply pass
    failover_up: bool = True
    failover_down: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """A reply that `report` rejected. `above` are the plan's tiers that may be asked next, lowest first."""

    tier: str
    reply: Reply
    report: CheckReport
    above: tuple[str, ...]
    time_left_s: float


# Where a rejection leads: a tier of `above` to ask, or a reply seen to hand back, with a reason in a word.
Steering = Callable[[Rejected], cascade.Step]


def next_above(rejected: Rejected) -> cascade.Step:
    """Tier by tier to the top, whatever it costs: what is done where nothing is known."""
    return cascade.Ask(rejected.above[0]) if rejected.above else cascade.Keep("", accepted=False)


@dataclass(frozen=True, slots=True)
class Job:
    """One request with its plan. `tiers` in the order to try; `allowed` may be failed over to as well.

    `slow_s`: by tier, how long a slow attempt (p95) takes, where it is known. `hedge_after_s`: by tier, when
    a second attempt is sent beside one that has not ended; empty without hedging.
    """

    request: Request
    tiers: tuple[str, ...]
    allowed: frozenset[str]
    checks: tuple[Check, ...]
    rules: Rules
    deadline_s: float
    cost_cap_usd: float = float("inf")
    steer: Steering = next_above
    slow_s: Mapping[str, float] = field(default_factory=dict)
    hedge_after_s: Mapping[str, float] = field(default_factory=dict)

    def above(self, tier: str, rung: Mapping[str, int]) -> tuple[str, ...]:
        """The plan's tiers above `tier`, which a failover may have left out of the plan."""
        return tuple(name for name in self.tiers if rung[name] > rung[tier])


@dataclass(frozen=True, slots=True)
class Step:
    """One rung to try: which tier, why, and with what output limit."""

    tier: Tier
    purpose: Purpose
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """How it ended: the reply to hand over, whose it is, and why it is not accepted where it is not."""

    reply: Reply
    tier: str
    accepted: bool
    reasons: tuple[str, ...] = ()
