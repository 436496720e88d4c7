"""Journals outcomes while its store is down, or drains the journal into the store. Run as a module.

python -m tests.support.drain_until_killed URL FOLDER FIRST   the store is down: journals, says each number
python -m tests.support.drain_until_killed URL FOLDER         drains, says how many it has drained, then "done"
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fallback.clock import SystemClock
from router.journal import Journal
from router.outcome import Outcome
from router.recorder import Recorder
from router.store import StoreError
from router.store.sql import SqlStore
from tests.support import outcomes as make


class Down(SqlStore):
    """Takes nothing."""

    def write(self, outcomes: Sequence[Outcome]) -> None:
        raise StoreError("down")

    def ping(self) -> None:
        raise StoreError("down")


def say(what: object) -> None:
    os.write(sys.stdout.fileno(), f"{what}\n".encode())


async def journal(recorder: Recorder, first: int) -> None:
    async def call(caller: int) -> None:
        for n in range(first + caller, first + 1_000_000, 20):
            if await recorder.record(make.typical(n)):
                say(n)

    await asyncio.gather(*(call(caller) for caller in range(20)))


async def drain(recorder: Recorder) -> None:
    await recorder.recover()
    said = -1
    while recorder.backlog.size_bytes:
        if recorder.backlog.drained > said:
            said = recorder.backlog.drained
            say(said)
        await asyncio.sleep(0)
    say("done")


async def main(url: str, folder: Path, first: int | None) -> None:
    store = SqlStore(url) if first is None else Down(url)
    recorder = Recorder(store, SystemClock(), max_wait_s=30.0, journal=Journal(folder, max_bytes=1 << 30))
    await (drain(recorder) if first is None else journal(recorder, first))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None))
