"""How long slow attempts take: the 95th percentile of the last ones. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal

_WINDOW = 200
_ENOUGH = 20  # below that the 95th percentile is little more than the maximum
_EVERY = 10  # samples between two sortings


class Tail:
    """The p95 of the last 200 durations in seconds."""

    __slots__ = ("_p95_s", "_recent", "_until_sort")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._until_sort = _ENOUGH
        self._p95_s: float | None = None

    @property
    def p95_s(self) -> float | None:
        """Seconds; None until there are twenty."""
        return self._p95_s

    def add(self, duration_s: float) -> None:
        """One more; of an attempt that was cancelled because a hedge beat it, as long as it had run."""
        self._recent.append(duration_s)
        self._until_sort -= 1
        if self._until_sort <= 0:
            self._until_sort = _EVERY
            ordered = sorted(self._recent)
            self._p95_s = ordered[(len(ordered) * 95) // 100]


def hedge_after_s(
    wanted: float | Literal["p95"] | None, slow_s: Mapping[str, float], tiers: Iterable[str]
) -> Mapping[str, float]:
    """By tier, when a second attempt is sent; with `p95` only where that is known, and empty without hedging."""
    if wanted is None:
        return {}
    return slow_s if wanted == "p95" else dict.fromkeys(tiers, wanted)
