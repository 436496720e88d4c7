"""Two attempts at once, where the first is late: the first Reply wins and the other is cancelled.

Dean and Barroso, "The Tail at Scale" (CACM 2013): a second request sent after the 95th percentile costs
a few per cent of load and cuts the tail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fallback.clock import Clock
from fallback.errors import Failure
from fallback.types import Reply

Running = Coroutine[Any, Any, Reply | Failure]


class Race:
    """Which of the attempts for the same answer came first; most run alone."""

    __slots__ = ("reply",)

    def __init__(self) -> None:
        self.reply: Reply | None = None

    def won_by(self, reply: Reply) -> bool:
        """Whether this is the first reply."""
        if self.reply is None:
            self.reply = reply
        return self.reply is reply


async def run(
    race: Race, first: Running, delay_s: float, second: Callable[[], Running | None], clock: Clock
) -> Reply | Failure:
    """`first`, with what `second` gives beside it from `delay_s` on. The first Reply, else the Failure of `first`.

    When this returns or is cancelled, nothing of it runs any more.
    """
    main = asyncio.ensure_future(first)
    timer = asyncio.ensure_future(clock.sleep(delay_s))
    tasks: set[asyncio.Future[Any]] = {main, timer}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not main.done() and (other := second()) is not None:
            running: set[asyncio.Future[Any]] = {main, asyncio.ensure_future(other)}
            tasks |= running
            while running and race.reply is None:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.result()  # a bug in a provider comes out here
            if race.reply is not None:
                return race.reply
        return await main
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
