"""The emulator with one fixed reply, for benchmarks of what stands in front of it."""

from __future__ import annotations

import argparse
import asyncio

from fallback.emulator.latency import Latency
from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource


async def main(latency: str, seed: int) -> None:
    """Serve until killed."""
    base_url = await Emulator(StaticSource(), latency=Latency.parse(latency), seed=seed).start()
    print(base_url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", default="0", help="SECONDS, or P50,P99 in seconds")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.latency, arguments.seed))
