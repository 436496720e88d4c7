"""Records outcomes through a Recorder as fast as it can and says, id by id, which are on disk. Run as a module."""

from __future__ import annotations

import asyncio
import os
import sys

from fallback.clock import SystemClock
from router.recorder import Recorder
from router.store.sql import SqlStore
from tests.support import outcomes as make

CALLERS = 20


async def main(url: str, first: int) -> None:
    recorder = Recorder(SqlStore(url), SystemClock(), max_wait_s=30.0)

    async def call(caller: int) -> None:
        n = first + caller
        while True:
            if await recorder.record(make.typical(n)):
                os.write(sys.stdout.fileno(), f"{n}\n".encode())
            n += CALLERS

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
