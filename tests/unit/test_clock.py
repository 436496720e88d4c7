"""The machine's clocks behind the protocol."""

from __future__ import annotations

from fallback.clock import Clock, SystemClock


async def test_durations_never_step_back_and_wall_time_is_since_the_epoch() -> None:
    clock: Clock = SystemClock()
    before_s = clock.monotonic_s()
    await clock.sleep(0.001)
    assert clock.monotonic_s() >= before_s + 0.001
    assert clock.wall_s() > 1_700_000_000
