"""Alarms: a tier became worse in a workload, or is good again. Values; what raises them is `router.drift`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Stream(StrEnum):
    """What is watched."""

    TRUTH = "truth"
    CHECKS = "checks"
    DOUBT = "doubt"
    MODEL = "model"


_IN_WORDS = {
    Stream.TRUTH: "accepted replies are judged bad more often than the model believes",
    Stream.CHECKS: "checks reject replies more often than the model believes",
    Stream.DOUBT: "the scorer doubts replies more than the model believed before them",
    Stream.MODEL: "replies carry another model id than before",
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A tier became worse in a workload or, `cleared`, is good again.

    Since the last time, `n` observations came to `observed` where at most `expected` was allowed. `request_id` is
    the request with which it was seen, at wall time `at_s`.
    """

    workload: str
    tier: str
    stream: Stream
    at_s: float
    request_id: str
    model_version: str
    n: int = 0
    observed: float = 0.0
    expected: float = 0.0
    cleared: bool = False

    @property
    def place(self) -> tuple[str, str, Stream]:
        """Where it stands: one alarm at a time. A changed model id stands where truth does, which clears it."""
        return self.workload, self.tier, Stream.TRUTH if self.stream is Stream.MODEL else self.stream

    @property
    def order(self) -> tuple[float, str, bool]:
        """Of two events, the later is the greater."""
        return self.at_s, self.request_id, self.cleared

    @property
    def words(self) -> str:
        """Why, for people."""
        counts = f" ({self.observed:.0f} of {self.n}, {self.expected:.0f} allowed)" if self.n else ""
        return _IN_WORDS[self.stream] + counts


def latest(events: Iterable[Alarm]) -> list[Alarm]:
    """The last event of each place, raised or cleared; `events` in any order."""
    found: dict[tuple[str, str, Stream], Alarm] = {}
    for event in sorted(events, key=lambda event: event.order):
        found[event.place] = event
    return list(found.values())


def standing_alarms(events: Iterable[Alarm]) -> list[Alarm]:
    """Those raised and not cleared since."""
    return [event for event in latest(events) if not event.cleared]
