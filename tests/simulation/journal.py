"""What happened, in order: the history of one seed, and the digest that two runs of it must share."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable


class BrokenLaw(AssertionError):
    """The service did what it must never do. Says which law, when, and in which seed."""


class History:
    """Lines of text; `now` stamps them with virtual time."""

    def __init__(self, seed: int, now: Callable[[], float]) -> None:
        self.seed = seed
        self._now = now
        self.lines: list[str] = []
        self.counts: Counter[str] = Counter()
        self.broken: BrokenLaw | None = None

    def add(self, what: str, *details: object) -> None:
        """One event."""
        self.counts[what] += 1
        self.lines.append(f"{self._now():.6f} {what} {' '.join(map(str, details))}")

    def law(self, name: str, *, holds: bool, detail: object = "") -> None:
        """Raises BrokenLaw unless the law holds; and ever after, because the service may catch it as any error."""
        if not holds and self.broken is None:
            self.broken = BrokenLaw(f"seed {self.seed}: {name} at {self._now():.6f} s: {detail}")
        if self.broken is not None:
            raise self.broken

    @property
    def digest(self) -> str:
        """Of everything that happened."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
