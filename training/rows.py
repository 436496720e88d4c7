"""The values that training works on: one row per request, one step per tier that replied, one label per tier.

How a row gets its labels is in `training.labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fallback.plans import Delay
from router.features import Features


class Source(StrEnum):
    """Where a label comes from."""

    VERDICT = "verdict"
    AUDIT = "audit"
    FEEDBACK = "feedback"


@dataclass(frozen=True, slots=True)
class Label:
    """Whether a tier's reply was good, and who says so.

    `accepted`: the checks looked and let it pass. `weight`: how many replies the label stands for, so that
    those with labels stand for all. `strength`: how far the source is to be trusted beside others.
    `propensity`: the known probability with which an audit was drawn; 1 with other sources.
    """

    good: bool
    source: Source
    accepted: bool = False
    weight: float = 1.0
    strength: float = 1.0
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """What one tier gave in one request: its last reply, judged.

    `rejected` is empty for an accepted reply, else `free`, `paid` or `learned` by the check that
    rejected it; what the learned one rejected had passed the free ones, and no paid one contradicted it. `ends` marks a
    rejection after which the chain hands the reply back. `cost_usd` holds all attempts at the tier,
    wasted ones too, without `check_cost_usd`. `model` is the id in the reply, `endpoint` where it came from.
    """

    tier: str
    rejected: str
    ends: bool
    cost_usd: float
    check_cost_usd: float
    reply_features: Features | None
    endpoint: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One request. `steps` are the tiers that replied, in order; `labels` by tier.

    `audit_replies`: features of the replies that audits got, by the auditor's tier. They are no steps: nobody waited
    for them or paid for them. `agree`: by (earlier tier, later tier), whether their last replies give the same
    answer (0 or 1) and how alike the two are; without those of which nothing was recorded.
    `delay`: the expected time of one reply, by tier, as it was logged.
    `regime`: the model version that decided, empty for the static plans.
    """

    request_id: str
    workload: str
    group: str
    received_at_s: float
    features: Features
    start: str
    direct: bool
    propensities: Mapping[str, float]
    expected_cost_usd: Mapping[str, float]
    steps: tuple[Step, ...]
    resolved: str
    accepted: bool
    labels: Mapping[str, Label]
    cost_usd: float
    top_tier_cost_usd: float
    simulated: bool
    audit_replies: Mapping[str, Features] = field(default_factory=dict)
    delay: Mapping[str, Delay] = field(default_factory=dict)
    agree: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    regime: str = ""

    @property
    def propensity(self) -> float:
        """P(this start tier) as logged, in (0, 1]; 1 where none was logged or it is no probability."""
        logged = self.propensities.get(self.start, 1.0)
        return logged if 0.0 < logged <= 1.0 else 1.0
