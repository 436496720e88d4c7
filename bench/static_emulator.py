"""The emulator with one fixed reply, for benchmarks of what stands in front of it."""

from __future__ import annotations

import asyncio

from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource


async def main() -> None:
    """Serve until killed."""
    base_url = await Emulator(StaticSource()).start()
    print(base_url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
