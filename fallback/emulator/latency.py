"""How long the emulated models take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Self

_Z99 = 2.3263478740408408  # the standard normal's 99th percentile


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds until an answer: lognormal with the given median and 99th percentile, fixed when they are equal."""

    p50_s: float = 0.0
    p99_s: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.p50_s) and math.isfinite(self.p99_s) and 0 <= self.p50_s <= self.p99_s):
            raise ValueError(f"latency: expected 0 <= p50_s <= p99_s, got p50_s={self.p50_s} p99_s={self.p99_s}")
        if self.p50_s == 0 < self.p99_s:
            raise ValueError("latency: p50_s must be above 0 when p99_s is")

    @classmethod
    def fixed(cls, seconds: float) -> Self:
        """Always the same."""
        return cls(seconds, seconds)

    @classmethod
    def lognormal(cls, p50_s: float, p99_s: float) -> Self:
        """The long right tail that real models have."""
        return cls(p50_s, p99_s)

    @classmethod
    def parse(cls, text: str) -> Self:
        """`0.3` is fixed, `0.3,2.5` is lognormal with p50 and p99; in seconds."""
        parts = text.split(",")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if len(numbers) not in (1, 2):
            raise ValueError(f"latency: expected SECONDS or P50,P99 in seconds, got {text!r}")
        return cls(numbers[0], numbers[-1])

    def draw(self, rng: Random) -> float:
        """One latency in seconds."""
        if self.p99_s == self.p50_s:
            return self.p50_s
        sigma = math.log(self.p99_s / self.p50_s) / _Z99
        return self.p50_s * math.exp(rng.gauss(0.0, sigma))


# Simulated, and only of the right order: short answers with thinking at default effort.
PLAUSIBLE: Mapping[str, Latency] = MappingProxyType(
    {"haiku": Latency(0.5, 2.0), "sonnet": Latency(1.5, 6.0), "opus": Latency(2.5, 10.0)}
)
