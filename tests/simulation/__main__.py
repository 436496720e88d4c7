"""`python -m tests.simulation --seeds 300 [--first 0] [--jobs 2]`: every broken law with its seed; exit 1 if any."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.simulation.seeds import try_seed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    started_s, broken, events = time.monotonic(), 0, Counter[str]()
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        for seed, problem, counts in pool.map(try_seed, range(args.first, args.first + args.seeds), chunksize=5):
            events.update(counts)
            if problem:
                broken += 1
                sys.stdout.write(
                    f"seed {seed}: {problem}\n  again: python -m tests.simulation --first {seed} --seeds 1\n"
                )
    sys.stdout.write(
        f"{args.seeds} seeds from {args.first}: {broken} broken, {sum(events.values()):,} events "
        f"({events['reply']:,} replies, {events['call']:,} calls, {events['kill']:,} kills), "
        f"{time.monotonic() - started_s:.0f} s\n"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
