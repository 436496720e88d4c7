"""What the chain is given and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

from fallback.checks import Check
from fallback.types import Remedy, Reply, Request


@dataclass(frozen=True, slots=True)
class Rules:
    """What the workload allows. `unjudged` says what a check that could not tell means."""

    unjudged: Remedy | None = None  # None: let the reply pass
    failover_up: bool = True
    failover_down: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One request with its plan. `tiers` in the order to try; `allowed` may be failed over to as well."""

    request: Request
    tiers: tuple[str, ...]
    allowed: frozenset[str]
    checks: tuple[Check, ...]
    rules: Rules
    deadline_s: float
    cost_cap_usd: float = float("inf")


@dataclass(frozen=True, slots=True)
class Resolution:
    """How it ended: the reply to hand over, whose it is, and why it is not accepted where it is not."""

    reply: Reply
    tier: str
    accepted: bool
    reasons: tuple[str, ...] = ()
