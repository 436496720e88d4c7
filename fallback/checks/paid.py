"""What the checks that ask a tier have in common."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol, TypeVar

from fallback.errors import Failure, NotAttempted
from fallback.types import Reply, StopReason


class _Pinnable(Protocol):
    @property
    def model(self) -> str: ...

    @property
    def tier(self) -> str: ...


P = TypeVar("P", bound=_Pinnable)


def pinned_to(check: P, model: str) -> P:
    """The check with its tier's model id filled in. ValueError where its settings pin it to another one."""
    if check.model and check.model != model:
        raise ValueError(f"model: pinned to {check.model!r}, but tier {check.tier!r} is {model!r}")
    return replace(check, model=model)  # type: ignore[type-var]


def check_band(uncertain: tuple[float, float]) -> None:
    """ValueError unless 0 <= low <= high <= 1."""
    low, high = uncertain
    if not 0 <= low <= high <= 1:
        raise ValueError("uncertain must be [low, high] with 0 <= low <= high <= 1")


def check_timeout(timeout_s: float) -> None:
    """ValueError unless it is a positive number of seconds."""
    if not 0 < timeout_s < math.inf:
        raise ValueError("timeout_s must be a positive number of seconds")


def cause_of(failure: Failure) -> str:
    """Why a check that met this Failure could not tell."""
    return failure.error_type if isinstance(failure, NotAttempted) else failure.kind


def ended_whole(reply: Reply) -> bool:
    """Whether the tier said all that it had to say."""
    return reply.stop_reason in (StopReason.END_TURN, StopReason.STOP_SEQUENCE, StopReason.TOOL_USE)
