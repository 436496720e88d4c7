"""Counts of what the emulator was asked and what it answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MAX_KEYS = 100  # endpoints and unknown models come from outside: their number is bounded


@dataclass(slots=True)
class Stats:
    """Counters since the start or the last reset. Each POST .../v1/messages counts once, at its arrival.

    `requests` = the sum of `by_status` + `in_flight`. A status is a code as text, or `cut` (the emulator
    closed the connection on purpose) or `cancelled` (the client went away or the emulator was stopped).
    """

    requests: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    other_requests: int = 0
    by_model: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)
    by_endpoint: Counter[str] = field(default_factory=Counter)
    by_rule: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Counter[str]] = field(default_factory=dict)

    def arrived(self, endpoint: str) -> None:
        """A request to /v1/messages came in."""
        self.requests += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        self._count(self.by_endpoint, endpoint or "/")

    def for_model(self, model: str) -> None:
        """Its model is known now; `model` is what the request said."""
        self._count(self.by_model, model)

    def ended(self, status: str) -> None:
        """It ended."""
        self.in_flight -= 1
        self.by_status[status] += 1

    def billed(self, model: str, usage: dict[str, Any]) -> None:
        """A message was made; its tokens are billed whether or not it arrives."""
        sums = self.usage.setdefault(model, Counter())
        for name in ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"):
            sums[name] += usage[name]

    def as_dict(self) -> dict[str, Any]:
        """A plain copy, ready for JSON."""
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "other_requests": self.other_requests,
            "cancelled": self.by_status["cancelled"],
            "by_model": dict(self.by_model),
            "by_status": dict(self.by_status),
            "by_endpoint": dict(self.by_endpoint),
            "by_rule": dict(self.by_rule),
            "usage": {model: dict(sums) for model, sums in self.usage.items()},
        }

    @staticmethod
    def _count(counter: Counter[str], key: str) -> None:
        counter[key if key in counter or len(counter) < _MAX_KEYS else "(other)"] += 1
