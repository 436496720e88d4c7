"""R4: a full outage costs a bounded number of calls. R5: a partial one. R6: the breaker."""

from __future__ import annotations

import asyncio
import random
import time

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
    result.most("from the end of the outage to full success, most", max(recovery), 30.0 * 1.2 + 5.0, " s")
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
    """R5: 5, 20 and 50 per cent of the calls fail at random, in the real process; then all is well again."""
    result = Result("R5", "partial outage", n=f"{int(100 * 10 * scale)} calls for each share", seed=seed)
    with stand(latency="0.05,0.2", seed=seed) as here:
        for share in (0.05, 0.2, 0.5):
            with here.service() as (_, port):
                asyncio.run(at_rate(port, 50.0, 2.0))
                here.emulator.reset()
                here.emulator.faults({"probability": share, "action": {"kind": "status", "status": 529}})
                calls = asyncio.run(at_rate(port, 100.0, 10.0 * scale, timeout_s=20.0))
                made = here.emulator.stats()["requests"] / calls.n
                here.emulator.faults()
                healed_s = time.monotonic()
                after = asyncio.run(at_rate(port, 50.0, 12.0, timeout_s=20.0))
            name = f"{share:.0%} fail: "
            if share < 0.5:
                result.least(f"{name}answered", 100 * calls.share(), 99.5 if share < 0.1 else 95.0, " %")
                result.most(f"{name}calls a request", made, 1.08 if share < 0.1 else 1.25, " ×")
            else:
                result.told(f"{name}answered, calls a request", f"{calls.share():.1%}, {made:.2f} ×")
            result.most(f"{name}full success after the end", _full_success_s(after, healed_s), 10.0, " s")
    return result


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
    opened_at_s = 0.0
    for _ in range(steps):
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
            wrong += open_s < settings.open_s * (1 - settings.jitter) - 1e-9
            recent = []
        for permit in given:
            failed = rng.random() < 0.45
            permit.failed() if failed else permit.succeeded()
            if state is State.CLOSED:
                recent = [*recent, failed][-settings.window :]
                wrong += (one.state is State.OPEN) != (sum(recent) >= settings.failures)
        if one.state is State.OPEN and state is not State.OPEN:
            opened, opened_at_s, recent = opened + 1, clock.monotonic_s(), []
        clock.advance(rng.choice((0.001, 0.5, 10.0)))
    result.told("openings", f"{opened:,}")
    result.none("openings, refusals and closings at the wrong moment", wrong)
    result.most("probes at once, half open", most_probes, 2)
    result.most("to refuse, p99", 1e3 * percentile(refuse_s, 99), 1.0, " ms")
    return result
