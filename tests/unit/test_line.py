"""The line before the service: a standing one is kept at its target, a burst's is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.line import Line, LineSettings
from tests.support.fakes import FakeClock

_SERVE_S, _REFUSE_S = 0.002, 0.0002


class Listener:
    """A line served first come first served by one thread, as the event loop does; one canary in it at a time.

    Times are those of 500 requests a second.
    """

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.line = Line(LineSettings(), self.clock, "canary")
        self.work: list[str] = []
        self.owed = self.spare_s = self.goes = 0.0
        self.served = self.turned_away = 0
        self.singing = False
        self.singing = False

    def tick(self, coming: float) -> None:
        """10 ms in which so many come, evenly; fractions add up."""
        if not self.singing:
            self.singing = True
            self.line.sent()
            self.work.append("canary")
        for _ in range(10):
            self.owed += coming / 10
            while self.owed >= 1.0:
                self.owed -= 1.0
                self.work.append("call")
            self.spare_s = (min(self.spare_s, 0.0) if not self.work else self.spare_s) + 0.001
            self.clock.advance(0.001)
            while self.work and self.spare_s > 0.0:
                self._serve(self.work.pop(0))
        self.line.sample()

    def _serve(self, one: str) -> None:
        if one == "canary":
            assert self.line.is_canary("canary")
            self.singing = False
            return
        self.goes += self.line.share
        if self.goes >= 1.0:
            self.goes -= 1.0
            self.turned_away += 1
            self.spare_s -= _REFUSE_S
        else:
            self.served += 1
            self.spare_s -= _SERVE_S


@settings(max_examples=25)
@given(st.floats(1.5, 4.0))
def test_a_standing_line_settles_near_its_target_and_what_is_served_stays(times: float) -> None:
    listener = Listener()
    for _ in range(300):
        listener.tick(5.0 * times)
    before = listener.served
    longest_s = 0.0
    for _ in range(500):
        listener.tick(5.0 * times)
        longest_s = max(longest_s, listener.line.wait_s)
    assert longest_s <= 0.06
    most = 5.0 * 500 * max(0.0, (1 - times * _REFUSE_S / _SERVE_S)) / (1 - _REFUSE_S / _SERVE_S)
    assert listener.served - before >= 0.85 * most


def test_nobody_is_turned_away_below_capacity_nor_for_a_burst() -> None:
    listener = Listener()
    for _ in range(200):
        listener.tick(4.5)
    for _ in range(10):
        listener.tick(0.0)
    listener.tick(80.0)
    for _ in range(100):
        listener.tick(0.5)
    assert listener.turned_away == 0
    assert listener.line.share == 0.0


def test_a_line_that_stands_and_is_short_is_left_alone() -> None:
    listener = Listener()
    listener.tick(25.0)
    for _ in range(500):
        listener.tick(5.0)
    assert listener.line.wait_s > 0.02
    assert listener.turned_away == 0


def test_one_stop_of_the_loop_is_no_line() -> None:
    listener = Listener()
    for _ in range(20):
        listener.tick(2.0)
        listener.clock.advance(0.7)
        listener.line.sample()
    assert listener.line.share == 0.0


def test_after_the_overload_nobody_is_turned_away_any_more_within_three_seconds() -> None:
    listener = Listener()
    for _ in range(300):
        listener.tick(15.0)
    assert listener.line.share > 0.4
    for _ in range(300):
        listener.tick(3.0)
    assert listener.line.share == 0.0
    assert not listener.line.pressed


def test_a_canary_that_the_listener_drops_tells_of_a_full_line_and_one_that_cannot_be_sent_of_nothing() -> None:
    clock = FakeClock()
    line = Line(LineSettings(target_s=0.01, long_s=0.1, burst_s=0.2), clock, "canary")
    line.sent()
    clock.advance(0.001)
    line.lost()
    assert line.wait_s == 0.2
    for _ in range(30):
        clock.advance(0.01)
        line.sample()
    assert line.share == 1.0
    line.sent()
    line.unknown()
    assert line.wait_s == 0.0
    line.sample()
    assert line.share < 1.0


def test_only_the_key_makes_a_canary() -> None:
    clock = FakeClock()
    line = Line(LineSettings(), clock, "canary")
    line.sent()
    clock.advance(0.5)
    assert [line.is_canary(key) for key in ("", "somebody's")] == [False, False]
    assert line.wait_s == pytest.approx(0.5)
    assert line.is_canary("canary")
    clock.advance(0.5)
    assert line.wait_s == pytest.approx(0.5)
