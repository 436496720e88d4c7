"""What became of the outcomes given to the recorder, as counts."""

from __future__ import annotations

from dataclasses import asdict, dataclass

_RECORDER = ("recorded", "late", "dropped", "failed_batches")
_BACKLOG = ("journalled", "drained", "lost", "damaged")


@dataclass(frozen=True, slots=True)
class RecorderCounters:
    """What became of the outcomes given to `record`.

    Every one of them is in exactly one of `recorded` (on disk, in the store or the journal, before its waiter was
    told, or its waiter was cancelled), `late` (on disk after its waiter was told no), `dropped` (not on disk) and
    `queue_depth` (still to be written). `failed_batches`: groups that the store did not take.
    """

    recorded: int
    late: int
    dropped: int
    failed_batches: int
    queue_depth: int


@dataclass(frozen=True, slots=True)
class BacklogCounters:
    """`journalled` outcomes were taken; `drained` reached the store, those of a process before this one too.

    `lost` were taken and are not in the store: whole frames that this version cannot decode, or no store would
    have. `damaged` stretches of the files could not be read. `depth` outcomes wait.
    """

    journalled: int = 0
    drained: int = 0
    lost: int = 0
    damaged: int = 0
    depth: int = 0
    size_bytes: int = 0


def results(recorder: RecorderCounters, backlog: BacklogCounters) -> dict[str, int]:
    """The counts that only grow, by name, for metrics."""
    counted, journalled = asdict(recorder), asdict(backlog)
    return {name: counted[name] for name in _RECORDER} | {name: journalled[name] for name in _BACKLOG}
