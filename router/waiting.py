"""Outcomes on their way to disk, each with the reply that waits for it. Touched on one event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from fallback.types import Reply
from router.outcome import Outcome

OUTCOME_BYTES: Final = 4_096  # what an Outcome's objects take in memory, texts and features aside


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One outcome; `waiter` is told whether it is on disk, at the latest at `deadline_s`."""

    outcome: Outcome
    waiter: asyncio.Future[bool]
    deadline_s: float
    weight: int

    @property
    def told_no(self) -> bool:
        """The waiter went without."""
        return self.waiter.done() and not self.waiter.cancelled()

    def tell(self, *, on_disk: bool) -> None:
        """Let the waiter go, if it is still there."""
        if not self.waiter.done():
            self.waiter.set_result(on_disk)


class Waiting:
    """A queue bounded in number and bytes."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, outcome: Outcome, *, deadline_s: float) -> Entry | None:
        """The outcome's entry; None when there is no room."""
        weight = weight_of(outcome)
        if len(self._entries) >= self._max_entries or self._bytes + weight > self._max_bytes:
            return None
        entry = Entry(outcome, asyncio.get_running_loop().create_future(), deadline_s, weight)
        self._entries.append(entry)
        self._bytes += weight
        return entry

    def first(self, count: int) -> list[Outcome]:
        """The oldest `count` outcomes; they stay in the queue."""
        return [self._entries[i].outcome for i in range(count)]

    def take(self) -> Entry:
        """The oldest, out of the queue."""
        entry = self._entries.popleft()
        self._bytes -= entry.weight
        return entry

    def give_up(self) -> int:
        """Tell everybody no and empty the queue; how many there were."""
        count = len(self._entries)
        while self._entries:
            self.take().tell(on_disk=False)
        return count


def weight_of(outcome: Outcome) -> int:
    """About how many bytes the outcome holds in memory; a reply's text at four bytes a token."""
    weight = OUTCOME_BYTES + len(outcome.request_features)
    weight += sum(len(vector) for vector in outcome.reply_features if vector is not None)
    weight += sum(4 * a.result.usage.output_tokens for a in outcome.attempts if isinstance(a.result, Reply))
    if outcome.retained is not None:
        weight += len(outcome.retained.prompt_json) + len(outcome.retained.reply_json)
    return weight
