"""What writing a group of outcomes takes in each store: milliseconds, and of them the process's own processor time.

    python -m tests.support.postgres python bench/store_writes.py

starts a PostgreSQL; without one (TIERWISE_TEST_POSTGRES_DSN) only SQLite is measured.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from itertools import count

import numpy as np

from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.support import postgres

SIZES = (1, 6, 64, 256)
TIMES = 30


def measure(store: SqlStore, size: int, numbers: count[int]) -> tuple[float, float]:
    """Median (ms, CPU ms) of a group of so many."""
    took = []
    for _ in range(TIMES):
        group = [make.typical(next(numbers)) for _ in range(size)]
        began_s, cpu_s = time.perf_counter(), time.thread_time()
        store.write(group)
        took.append((time.perf_counter() - began_s, time.thread_time() - cpu_s))
    ms, cpu_ms = 1e3 * np.median(np.array(took), axis=0)
    return float(ms), float(cpu_ms)


def main() -> None:
    """A line for each store and size."""
    with ExitStack() as stack:
        urls = {"sqlite": f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/outcomes.db"}
        if postgres.dsn():
            urls["postgresql"] = stack.enter_context(postgres.database("tierwise_writes"))
        for name, url in urls.items():
            store, numbers = SqlStore(url), count(1)
            for size in SIZES:
                ms, cpu_ms = measure(store, size, numbers)
                print(f"{name}: a group of {size}: {ms:.1f} ms, CPU {cpu_ms:.1f} ms")
            store.close()


if __name__ == "__main__":
    main()
