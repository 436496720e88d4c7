"""R1: a load held."""

from __future__ import annotations

import asyncio

import numpy as np

from bench.faults.result import Result, percentile
from bench.faults.stand import Calls, at_rate, rss_mb, stand, watching
from router.store.sql import SqlStore

RATE = 200.0


def overheads_s(calls: Calls) -> list[float]:
    """Of each reply: what the caller waited beyond the upstream calls; gRPC, store and all."""
    pairs = zip(calls.seconds, calls.replies, strict=True)
    return [
        seconds - sum(attempt.duration.ToNanoseconds() for attempt in reply.attempts) / 1e9 for seconds, reply in pairs
    ]


def held(scale: float, seed: int) -> Result:
    """R1: 200 requests a second, upstream p50 300 ms."""
    result = Result("R1", "load held", seed=seed)
    seconds = 45.0 * scale
    with stand(latency="0.3,1.0", seed=seed) as here, here.service() as (process, port):
        asyncio.run(at_rate(port, RATE, 10.0))  # warm
        warm_mb = rss_mb(process)
        calls, seen_mb = asyncio.run(watching(at_rate(port, RATE, seconds), lambda: rss_mb(process)))
        store = SqlStore(here.store_url)
        inside = [
            each.outcome.duration_s - sum(attempt.duration_s for attempt in each.outcome.attempts)
            for each in store.read()
        ]
        store.close()
    result.n = f"{calls.n} calls"
    result.none("calls that failed", calls.n - calls.statuses["OK"])
    result.most("overhead of features, decision, checks p50", 1e3 * percentile(inside, 50), 2.0, " ms")
    result.most("the same p99", 1e3 * percentile(inside, 99), 10.0, " ms")
    waits = overheads_s(calls)
    result.told(
        "the caller's wait beyond upstream, with gRPC and the durable outcome, p50 / p99",
        f"{1e3 * percentile(waits, 50):.1f} / {1e3 * percentile(waits, 99):.1f} ms",
    )
    later = seen_mb[len(seen_mb) // 3 :]
    slope = float(np.polyfit(np.arange(len(later)), later, 1)[0]) * 60 if len(later) > 2 else 0.0
    result.most("memory's slope", slope, 1.0, " MB/min")
    result.told("memory at the start and the end", f"{warm_mb:.0f}, {seen_mb[-1]:.0f} MB")
    return result
