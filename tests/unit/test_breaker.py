"""Circuit breakers: exact thresholds, counted probes, and a model that agrees over any history."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from fallback.breaker import Breaker, BreakerSettings, Permit, State
from tests.support.fakes import FakeClock

# TIERWISE_STEPS=100000 for the long run.
STEPS = int(os.environ.get("TIERWISE_STEPS", "18000"))


def _breaker(clock: FakeClock, *, uniform: float = 0.5, **changes: float) -> Breaker:
    settings = {"failures": 10, "window": 20, "first_open_s": 30.0} | changes
    return Breaker(BreakerSettings(**settings), clock, lambda: uniform)  # type: ignore[arg-type]


def _fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        permit = breaker.permit()
        assert permit is not None
        permit.failed()


def test_it_opens_at_exactly_the_threshold(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 9)
    assert breaker.state is State.CLOSED
    _fail(breaker, 1)
    assert (str(breaker.state), breaker.permit()) == ("open", None)


def test_only_the_last_calls_of_the_window_count(clock: FakeClock) -> None:
    breaker = _breaker(clock, failures=3, window=5)
    _fail(breaker, 2)
    for _ in range(4):
        breaker.permit().succeeded()  # type: ignore[union-attr]
    _fail(breaker, 2)  # the first two have left the window but one
    assert breaker.state is State.CLOSED
    _fail(breaker, 1)
    assert str(breaker.state) == "open"


def test_what_says_nothing_about_health_is_not_counted(clock: FakeClock) -> None:
    breaker = _breaker(clock, failures=1, window=1)
    for _ in range(100):
        breaker.permit().ignored()  # type: ignore[union-attr]
    assert breaker.state is State.CLOSED


@pytest.mark.parametrize(("uniform", "open_s"), [(0.0, 24.0), (0.5, 30.0), (0.999999, 36.0)])
def test_it_stays_open_for_its_time_within_the_jitter(clock: FakeClock, uniform: float, open_s: float) -> None:
    breaker = _breaker(clock, uniform=uniform)
    _fail(breaker, 10)
    assert breaker.retry_after_s == pytest.approx(open_s, abs=1e-4)
    clock.advance(open_s - 0.01)
    assert breaker.permit() is None
    assert breaker.state is State.OPEN
    clock.advance(0.011)
    assert (breaker.state, breaker.retry_after_s) == (State.HALF_OPEN, 0.0)


async def test_half_open_lets_two_of_a_thousand_callers_through(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 10)
    clock.advance(30.0)
    at_once = most = 0
    go = asyncio.Event()

    async def call() -> bool:
        nonlocal at_once, most
        permit = breaker.permit()
        if permit is None:
            return False
        at_once += 1
        most = max(most, at_once)
        await go.wait()
        at_once -= 1
        permit.ignored()
        return True

    tasks = [asyncio.ensure_future(call()) for _ in range(1_000)]
    await asyncio.sleep(0)
    go.set()
    assert sum(await asyncio.gather(*tasks)) == most == 2


def test_a_cancelled_probe_gives_its_place_back(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 10)
    clock.advance(30.0)
    first, second = breaker.permit(), breaker.permit()
    assert breaker.permit() is None
    first.ignored()  # type: ignore[union-attr]
    first.ignored()  # type: ignore[union-attr]  # telling again gives nothing back
    third = breaker.permit()
    assert third is not None
    assert breaker.permit() is None
    assert second is not None


def test_a_good_probe_closes_it_and_forgets_the_past(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 10)
    clock.advance(30.0)
    breaker.permit().succeeded()  # type: ignore[union-attr]
    assert breaker.state is State.CLOSED
    _fail(breaker, 9)
    assert breaker.state is State.CLOSED


def test_a_bad_probe_opens_it_for_another_period(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 10)
    clock.advance(30.0)
    late, bad = breaker.permit(), breaker.permit()
    bad.failed()  # type: ignore[union-attr]
    assert breaker.retry_after_s == pytest.approx(30.0)
    late.succeeded()  # type: ignore[union-attr]
    assert breaker.state is State.OPEN, "a probe of an earlier opening says nothing any more"


def test_each_bad_probe_doubles_the_open_time_up_to_the_longest_and_a_good_one_begins_anew(clock: FakeClock) -> None:
    breaker = Breaker(BreakerSettings(jitter=0.0), clock, lambda: 0.5)
    _fail(breaker, 10)
    seen = []
    for _ in range(5):
        seen.append(breaker.retry_after_s)
        clock.advance(breaker.retry_after_s)
        _fail(breaker, 1)
    assert seen == pytest.approx([5.0, 10.0, 20.0, 30.0, 30.0])
    clock.advance(30.0)
    breaker.permit().succeeded()  # type: ignore[union-attr]
    _fail(breaker, 10)
    assert breaker.retry_after_s == pytest.approx(5.0)


def test_calls_from_before_it_opened_count_neither_then_nor_after_it_closed_again(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    hung = [breaker.permit() for _ in range(50)]
    _fail(breaker, 10)
    for permit in hung[:20]:
        permit.succeeded()  # type: ignore[union-attr]
    assert breaker.state is State.OPEN
    clock.advance(30.0)
    breaker.permit().succeeded()  # type: ignore[union-attr]
    for permit in hung[20:]:
        permit.failed()  # type: ignore[union-attr]
    assert str(breaker.state) == "closed"


def test_a_probe_of_an_earlier_half_open_time_frees_no_place_in_a_later_one(clock: FakeClock) -> None:
    breaker = _breaker(clock)
    _fail(breaker, 10)
    clock.advance(30.0)
    early, bad = breaker.permit(), breaker.permit()
    bad.failed()  # type: ignore[union-attr]
    clock.advance(30.0)
    assert [breaker.permit() is not None for _ in range(3)] == [True, True, False]
    early.ignored()  # type: ignore[union-attr]
    assert breaker.permit() is None


class BreakerMachine(RuleBasedStateMachine):
    """An independent model: a list of counted ends, a set of probes, and one opening time."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.real = Breaker(
            BreakerSettings(3, 5, open_s=15.0, first_open_s=5.0, jitter=0.0, probes=2), self.clock, lambda: 0.5
        )
        self.counted: list[bool] = []
        self.open_until: float | None = None
        self.failed_probes = 0
        self.half_open = False
        self.era = 0
        self.probes: set[int] = set()
        self.made = 0

    def _settle(self) -> None:
        if self.open_until is not None and self.clock.monotonic_s() >= self.open_until:
            self.open_until, self.half_open, self.probes = None, True, set()

    def _trip(self) -> None:
        open_s = (5.0, 10.0, 15.0)[min(2, self.failed_probes)]
        self.open_until, self.half_open, self.counted = self.clock.monotonic_s() + open_s, False, []
        self.era += 1

    @rule(target=permits)
    def ask(self) -> tuple[Permit, int, int, bool] | None:
        self._settle()
        expected = self.open_until is None and (not self.half_open or len(self.probes) < 2)
        permit = self.real.permit()
        assert (permit is not None) == expected
        if permit is None:
            return None
        self.made += 1
        if self.half_open:
            self.probes.add(self.made)
        return permit, self.era, self.made, self.half_open

    @rule(given=consumes(permits), end=st.sampled_from(["succeeded", "failed", "ignored"]), again=st.booleans())
    def tell(self, given: tuple[Permit, int, int, bool] | None, end: str, *, again: bool) -> None:
        if given is None:
            return
        permit, era, number, probe = given
        getattr(permit, end)()
        if again:
            permit.failed()
        if era != self.era or self.open_until is not None:
            return
        if probe and self.half_open:
            self.probes.discard(number)
            if end == "failed":
                self.failed_probes += 1
                self._trip()
            elif end == "succeeded":
                self.half_open, self.failed_probes, self.counted = False, 0, []
        elif not probe and not self.half_open and end != "ignored":
            self.counted = [*self.counted, end == "failed"][-5:]
            if sum(self.counted) >= 3:
                self._trip()

    @rule(seconds=st.sampled_from([0.1, 4.0, 9.9, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-86_400.0, 3_600.0]))
    def wall_clock_steps(self, seconds: float) -> None:
        self.clock.wall_now_s += seconds

    @invariant()
    def agrees(self) -> None:
        self._settle()
        expected = State.OPEN if self.open_until is not None else State.HALF_OPEN if self.half_open else State.CLOSED
        assert self.real.state is expected
        left = 0.0 if self.open_until is None else self.open_until - self.clock.monotonic_s()
        assert self.real.retry_after_s == pytest.approx(left)
        assert self.clock.wall_reads == 0


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=STEPS // 60, stateful_step_count=60)
