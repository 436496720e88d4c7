"""From the wire to values: all of a message but its prompt (`router.prompts`).

Every wrong field is refused by its path; nothing is decided here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from router.config_base import NAME
from router.fields import PRINTABLE, InvalidField, Limits
from router.v1 import feedback_pb2, router_pb2

_MAX_LABELS = 16


@dataclass(frozen=True, slots=True)
class Bounds:
    """The caller's bounds; the whole ladder and no cap where it set none."""

    allowed: tuple[str, ...]
    cost_cap_usd: float = math.inf


def workload_of(name: str) -> str:
    """The workload's name; empty means `default`."""
    if name and not NAME.fullmatch(name):
        raise InvalidField("workload", "must be 1 to 64 characters of [a-z0-9._-], the first a letter or digit")
    return name or "default"


def bounds_of(bounds: router_pb2.Bounds, limits: Limits) -> Bounds:
    """The caller's bounds; lowest above highest, unknown names and senseless caps are refused."""
    ladder = limits.ladder
    for field, name in (("bounds.lowest_tier", bounds.lowest_tier), ("bounds.highest_tier", bounds.highest_tier)):
        if name and name not in ladder:
            raise InvalidField(field, f"no such tier; there are {', '.join(ladder)}")
    low = ladder.index(bounds.lowest_tier) if bounds.lowest_tier else 0
    high = ladder.index(bounds.highest_tier) if bounds.highest_tier else len(ladder) - 1
    if low > high:
        raise InvalidField("bounds.lowest_tier", "is above bounds.highest_tier")
    cap = bounds.cost_cap_usd
    if not math.isfinite(cap) or cap < 0:
        raise InvalidField("bounds.cost_cap_usd", "must be a non-negative number of US dollars")
    return Bounds(ladder[low : high + 1], cap or math.inf)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Another policy for one decision; `policy` has the fields of a workload's that it replaces."""

    policy: Mapping[str, float]
    start_tier: str = ""


def what_if_of(what_if: router_pb2.WhatIf, allowed: Sequence[str]) -> WhatIf:
    """The changes asked for; `allowed` are the tiers inside the caller's bounds."""
    ranges = {
        "mistake_cost_usd": (1e-12, math.inf, "must be a positive number of US dollars"),
        "second_cost_usd": (0.0, math.inf, "must be a non-negative number of US dollars"),
        "quality_target": (0.5, 1.0, "must be 0.5 to 1"),
        "latency_p95_s": (1e-3, 86_400.0, "must be 0.001 to 86400 seconds"),
    }
    policy: dict[str, float] = {}
    for name, (low, high, description) in ranges.items():
        if what_if.HasField(cast("Any", name)):
            value = getattr(what_if, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise InvalidField(f"what_if.{name}", description)
            policy[name] = value
    if what_if.start_tier and what_if.start_tier not in allowed:
        raise InvalidField("what_if.start_tier", f"must be one of the allowed tiers: {', '.join(allowed)}")
    return WhatIf(policy, what_if.start_tier)


def labels_of(labels: Any) -> dict[str, str]:
    """Metadata labels, bounded and printable."""
    if len(labels) > _MAX_LABELS:
        raise InvalidField("labels", f"at most {_MAX_LABELS}")
    for key, value in labels.items():
        if not 0 < len(key) <= 64 or not PRINTABLE.fullmatch(key):
            raise InvalidField("labels", "a key must be 1 to 64 printable characters")
        if len(value) > 256 or not PRINTABLE.fullmatch(value):
            raise InvalidField("labels", "a value must be at most 256 printable characters")
    return dict(labels)


def idempotency_key_of(key: str) -> str:
    """The key, bounded and printable."""
    if len(key) > 128 or not PRINTABLE.fullmatch(key):
        raise InvalidField("idempotency_key", "must be at most 128 printable characters")
    return key


def feedback_of(request: feedback_pb2.ReportOutcomeRequest, limits: Limits) -> None:
    """Refuses a report with a wrong field."""
    if not re.fullmatch(r"[0-9a-f]{32}", request.request_id):
        raise InvalidField("request_id", "must be the 32 hex digits of CompleteResponse.request_id")
    if request.quality not in (feedback_pb2.QUALITY_GOOD, feedback_pb2.QUALITY_BAD):
        raise InvalidField("quality", "must be QUALITY_GOOD or QUALITY_BAD")
    if request.sufficient_tier and request.sufficient_tier not in limits.ladder:
        raise InvalidField("sufficient_tier", f"no such tier; there are {', '.join(limits.ladder)}")
    if request.HasField("score") and not 0 <= request.score <= 1:
        raise InvalidField("score", "must be 0 to 1")
    if len(request.reason) > 256 or not PRINTABLE.fullmatch(request.reason):
        raise InvalidField("reason", "must be at most 256 printable characters")
