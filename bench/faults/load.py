"""R1: a load held. R2: twice the capacity."""

from __future__ import annotations

import argparse
import asyncio

import numpy as np
import overload

from bench.faults.result import Result, percentile
from bench.faults.stand import Calls, at_rate, rss_mb, stand, watching
from router.store.sql import SqlStore

RATE = 200.0
_STEADY_S = 180


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
    if len(later) >= _STEADY_S:
        result.most("memory's slope", slope, 1.0, " MB/min")
    else:  # it goes up and down by 0.4 MB, which is 1 MB a minute in half a minute
        result.told("memory's slope, too short a run for its bar of 1", f"{slope:.2g} MB/min")
    result.told("memory at the start and the end", f"{warm_mb:.0f}, {seen_mb[-1]:.0f} MB")
    return result


def doubled(scale: float, seed: int) -> Result:
    """R2: what is served at twice the capacity, how fast, and how fast the rest is refused."""
    seconds = 20.0 * scale
    found = overload.main(argparse.Namespace(seconds=seconds, callers=128, latency="0.3,1.0"))
    result = Result("R2", "2× overload", n=f"{found['refusals']:,} refusals in {seconds:g} s", seed=seed)
    result.told("capacity", f"{found['capacity_rps']:.0f} calls/s")
    result.least("goodput", 100 * found["goodput_share_of_capacity"], 90.0, " % of capacity")
    result.most("p99 of the accepted", found["p99_ratio_of_accepted"], 1.5, " × unloaded")
    result.most("to refuse, p99", 1e3 * found["refusal_p99_s"], 20.0, " ms")
    result.most("health check p95", 1e3 * found["health_p95_s"], 100.0, " ms")
    result.most("memory", found["rss_mb"], 512.0, " MB")
    result.most("p99 five seconds after", found["p99_ratio_5_s_after"], 1.5, " × unloaded")
    untyped = sum(n for status, n in found["refused_by_status"].items() if status != "RESOURCE_EXHAUSTED")
    result.none("refusals that are not RESOURCE_EXHAUSTED", untyped)
    return result
