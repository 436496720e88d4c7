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
    def words(self) -> str:
        """Why, for people."""
        counts = f" ({self.observed:.0f} of {self.n}, {self.expected:.0f} allowed)" if self.n else ""
        return _IN_WORDS[self.stream] + counts


def standing_alarms(events: Iterable[Alarm]) -> list[Alarm]:
    """Those raised and not cleared since; `events` in the order in which they happened."""
    stand: dict[tuple[str, str, Stream], Alarm] = {}
    for event in events:
        key = event.workload, event.tier, event.stream
        if event.cleared:
            stand.pop(key, None)
        else:
            stand[key] = event
    return list(stand.values())
