"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Figure:
    """One figure against its bar: `measured` as shown, `met` whether it meets the bar."""

    what: str
    bar: str
    measured: str
    met: bool


@dataclass
class Result:
    """A check's figures, and what it ran on."""

    check: str
    title: str
    n: str = ""
    seed: int = 0
    figures: list[Figure] = field(default_factory=list)

    def most(self, what: str, value: float, bar: float, unit: str = "") -> None:
        """A figure that must be at most `bar`."""
        self.figures.append(Figure(what, f"≤ {bar:g}{unit}", f"{value:.4g}{unit}", bool(value <= bar)))

    def least(self, what: str, value: float, bar: float, unit: str = "") -> None:
        """A figure that must be at least `bar`."""
        self.figures.append(Figure(what, f"≥ {bar:g}{unit}", f"{value:.4g}{unit}", bool(value >= bar)))

    def none(self, what: str, count: float) -> None:
        """A count that must be 0."""
        self.figures.append(Figure(what, "0", f"{count:g}", count == 0))

    def equal(self, what: str, value: object, wanted: object) -> None:
        """A value that must be just so."""
        self.figures.append(Figure(what, str(wanted), str(value), value == wanted))

    def true(self, what: str, *, holds: bool) -> None:
        """Something that must be so."""
        self.figures.append(Figure(what, "yes", "yes" if holds else "no", holds))

    def told(self, what: str, measured: str) -> None:
        """A figure without a bar."""
        self.figures.append(Figure(what, "–", measured, met=True))


def percentile(values: list[float], percent: float) -> float:
    """0 without values."""
    return float(np.percentile(values, percent)) if values else 0.0
