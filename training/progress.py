"""Who is told how far a night is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told what the night does, as it does it."""

    def step(self, name: str) -> None:
        """This begins now."""

    def count(self, done: int) -> None:
        """So many things of this step are done."""


class Silent:
    """Tells nobody."""

    def step(self, name: str) -> None:
        """Nothing."""

    def count(self, done: int) -> None:
        """Nothing."""
