"""R4: a full outage costs a bounded number of calls. R5: a partial one. R6: the breaker."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import Any

from bench.faults.result import Result, percentile
from bench.faults.stand import Calls, at_rate, stand
from fallback.breaker import Breaker, BreakerSettings, State
from fallback.errors import ConnectionFailed, Failure, Overloaded, TimedOut
from fallback.guards import GuardSettings
from tests.support.fakes import Bench, Delayed, FakeClock, reply
from tests.support.fakes import Call as Sent

_KINDS: dict[str, tuple[type[Failure], float]] = {
    "529": (Overloaded, 0.05),
    "refused": (ConnectionFailed, 0.001),
    "hang": (TimedOut, 30.0),
}
_TWO_ROADS = """
[endpoints.eu]
base_url = "http://127.0.0.1:{upstream}/eu"
budget = "eu"
[[tiers]]
name = "haiku"
model = "claude-haiku-5-5"
endpoints = ["eu", "claude"]
"""
_NEVER = BreakerSettings(failures=10**9, window=10**9)


def full(scale: float, seed: int) -> Result:
    """R4: everything fails, at 1, 10 and 100 requests a second of fake time; the budget alone, and with breakers."""
    requests = int(10_000 * scale)
    result = Result("R4", "full outage", n=f"{requests:,} requests for each kind and rate, fake clock", seed=seed)
    alone, together, recovery = [], [], []
    for kind, takes_s in _KINDS.values():
        for rate in (1.0, 10.0, 100.0):
            alone.append(asyncio.run(_outage(kind, takes_s, rate, requests, breakers=False))[0])
            calls, back_s = asyncio.run(_outage(kind, takes_s, rate, requests, breakers=True))
            together.append(calls)
            recovery.append(back_s)
    result.most("calls beyond one a request, most, budget alone", requests * (max(alone) - 1.0), 50)
    result.most("calls a request with breakers, most", max(together), 0.1, " ×")
    longest_s = BreakerSettings().open_s * (1 + BreakerSettings().jitter)
    result.most("from the end of the outage to full success, most", max(recovery), longest_s + 5.0, " s")
    return result


async def _outage(
    kind: type[Failure], takes_s: float, rate: float, requests: int, *, breakers: bool
) -> tuple[float, float]:
    """(calls per request, seconds from the end of the outage to the first of twenty replies in a row)."""
    clock, broken = FakeClock(), True

    def script(_: Sent) -> Delayed:
        return Delayed(takes_s if broken else 0.0, kind() if broken else reply())

    guards = GuardSettings() if breakers else GuardSettings(endpoint=_NEVER, provider=_NEVER)
    bench = Bench(script, guards=guards, clock=clock, uniform=random.Random(0).random)
    for _ in range(requests):
        before_s = clock.monotonic_s()
        await _try(bench)
        clock.advance(max(0.0, 1 / rate - (clock.monotonic_s() - before_s)))
    calls = len(bench.provider.calls) / requests
    broken, healed_s, row = False, clock.monotonic_s(), 0
    while row < 20:
        began_s = clock.monotonic_s()
        row = row + 1 if await _try(bench) else 0
        clock.advance(0.1)
        if row == 1:
            back_s = began_s - healed_s
    return calls, back_s


async def _try(bench: Bench) -> bool:
    try:
        await bench.run(bench.job(checks=()))
    except Failure:
        return False
    return True


def partial(scale: float, seed: int) -> Result:
    """R5: a share of the calls fails at random, of all, of one tier or of one endpoint; then all is well."""
    result = Result("R5", "partial outage", n=f"{int(100 * 10 * scale)} calls for each share", seed=seed)
    for share, only in ((0.05, ""), (0.2, ""), (0.5, ""), (0.5, "haiku"), (0.5, "one of two endpoints")):
        more = _TWO_ROADS if "endpoints" in only else ""
        with stand(more, latency="0.05,0.2", seed=seed) as here, here.service() as (_, port):
            asyncio.run(at_rate(port, 50.0, 2.0))
            here.emulator.reset()
            rule: dict[str, Any] = {"probability": share, "action": {"kind": "status", "status": 529}}
            here.emulator.faults(rule | ({"endpoint": "/eu"} if more else {"model": only} if only else {}))
            calls = asyncio.run(at_rate(port, 100.0, 10.0 * scale, timeout_s=20.0))
            made = here.emulator.stats()["requests"] / calls.n
            here.emulator.faults()
            healed_s = time.monotonic()
            after = asyncio.run(at_rate(port, 50.0, 12.0, timeout_s=20.0))
        name = f"{share:.0%} {f'of {only} ' if only else ''}fail: "
        if share < 0.5:
            result.least(f"{name}answered", 100 * calls.share(), 99.5 if share < 0.1 else 95.0, " %")
            result.most(f"{name}calls a request", made, 1.08 if share < 0.1 else _bar_at_20_percent(calls.n), " ×")
        elif only:
            result.least(f"{name}answered", 100 * calls.share(), 95.0, " %")
        else:
            # Refusing everything would be worse than the outage: about as many are answered as calls succeed.
            result.least(f"{name}answered", 100 * calls.share(), 45.0, " %")
            result.most(f"{name}calls a request", made, 1.25, " ×")
        result.most(f"{name}full success after the end", _full_success_s(after, healed_s), 10.0, " s")
    return result


def _bar_at_20_percent(n: int) -> float:
    """1.25 is what retrying until success comes to on average, so a draw of n may lie two standard errors above it.

    The failures before a success are geometric: their standard deviation is √q / p with q = 0.2. ADR 0027.
    """
    return 1.25 + 2 * math.sqrt(0.2) / 0.8 / math.sqrt(n)


def _full_success_s(calls: Calls, healed_s: float) -> float:
    """When the last call that failed had ended."""
    failed = [at_s for at_s, status in calls.ended_s if status != "OK"]
    return max(failed, default=healed_s) - healed_s


def breaker(scale: float, seed: int) -> Result:
    """R6: 100,000 random steps against the settings' own words, on a fake clock."""
    steps = int(100_000 * scale)
    result = Result("R6", "breaker", n=f"{steps:,} steps", seed=seed)
    rng, clock = random.Random(seed), FakeClock()
    settings = BreakerSettings()
    one = Breaker(settings, clock, rng.random)
    opened, wrong, most_probes, refuse_s = 0, 0, 0, []
    recent: list[bool] = []
    opened_at_s, failed_probes = 0.0, 0
    for step in range(steps):
        share = (0.2, 0.6, 0.95)[step // 500 % 3]  # of the calls that fail: healthy, ill, as good as dead
        state = one.state
        began = time.perf_counter()
        permits = [one.permit() for _ in range(4 if state is State.HALF_OPEN else 1)]
        if state is State.OPEN:
            refuse_s.append(time.perf_counter() - began)
            wrong += permits != [None]
        given = [permit for permit in permits if permit is not None]
        if state is State.HALF_OPEN:
            most_probes = max(most_probes, len(given))
            open_s = clock.monotonic_s() - opened_at_s
            bar_s = min(settings.open_s, settings.first_open_s * 2**failed_probes)
            wrong += open_s < bar_s * (1 - settings.jitter) - 1e-9
            recent = []
        for permit in given:
            failed = rng.random() < share
            permit.failed() if failed else permit.succeeded()
            if state is State.CLOSED:
                recent = [*recent, failed][-settings.window :]
                wrong += (one.state is State.OPEN) != (sum(recent) >= settings.failures)
        failed_probes = 0 if one.state is State.CLOSED else failed_probes + (state is State.HALF_OPEN)
        if one.state is State.OPEN and state is not State.OPEN:
            opened, opened_at_s, recent = opened + 1, clock.monotonic_s(), []
        clock.advance(rng.choice((0.001, 0.5, 10.0)))
    result.told("openings", f"{opened:,}")
    result.none("openings, refusals and closings at the wrong moment", wrong)
    result.most("probes at once, half open", most_probes, 2)
    result.most("to refuse, p99", 1e3 * percentile(refuse_s, 99), 1.0, " ms")
    return result
