"""Roads that fail often without being dead: avoided while there is another, and never refused. Pure.

A breaker is for what answers nothing. Where half of the calls still succeed, refusing them all would make a
partial outage a full one, so the worst that this does is to send calls elsewhere first (ADR 0020).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fallback.clock import Clock


@dataclass(frozen=True, slots=True)
class AilingSettings:
    """A road ails for `lasts_s` once `failures` of its last `window` calls have failed; then it is tried anew."""

    failures: int = 10
    window: int = 20
    lasts_s: float = 5.0


class Ailing:
    """One endpoint's recent health for one tier."""

    __slots__ = ("_clock", "_recent", "_settings", "_until_s")

    def __init__(self, settings: AilingSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._recent: deque[bool] = deque(maxlen=settings.window)
        self._until_s: float | None = None

    def __bool__(self) -> bool:
        """Whether it ails now."""
        return self._until_s is not None and self._clock.monotonic_s() < self._until_s

    def ended(self, *, failed: bool) -> None:
        """A call that says something about health has ended."""
        self._recent.append(failed)
        if sum(self._recent) >= self._settings.failures:
            self._until_s = self._clock.monotonic_s() + self._settings.lasts_s
            self._recent.clear()
