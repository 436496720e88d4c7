"""A detector's stated rate of false alarms, how soon it alarms, and that it takes an alarm back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.sequential import Detector, DriftSettings

QUICK = DriftSettings(false_alarm_every=200.0, tolerance=0.0)


def run_length(detector: Detector, rng: np.random.Generator, *, rate: float, expected: float, most: int) -> int:
    """Observations until the mind changes; `most` where it does not."""
    for n in range(1, most + 1):
        if detector.see(float(rng.random() < rate), expected) is not None:
            return n
    return most


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.6])
def test_false_alarms_come_no_more_often_than_stated(rate: float) -> None:
    """At the very edge of what is allowed; runs are cut at 4,000, which can only shorten their mean."""
    rng = np.random.default_rng(1)
    lengths = [run_length(Detector(QUICK), rng, rate=rate, expected=rate, most=4_000) for _ in range(200)]
    assert np.mean(lengths) > QUICK.false_alarm_every


def test_dependent_observations_do_not_alarm_more_often() -> None:
    """Whether one is bad follows from the one before; its mean given the past is never above what is allowed."""
    rng = np.random.default_rng(2)
    lengths = []
    for _ in range(100):
        detector, last, n = Detector(QUICK), 0.0, 0
        turned = None
        while turned is None and n < 4_000:
            last = float(rng.random() < (0.2 if last else 0.05))
            turned = detector.see(last, 0.2)
            n += 1
        lengths.append(n)
    assert np.mean(lengths) > QUICK.false_alarm_every


@pytest.mark.parametrize(("expected", "rate", "within"), [(0.05, 0.2, 150), (0.1, 0.25, 200), (0.3, 0.6, 100)])
def test_a_tier_that_became_worse_alarms_soon(expected: float, rate: float, within: int) -> None:
    rng = np.random.default_rng(3)
    lengths = []
    for _ in range(100):
        detector = Detector(DriftSettings())
        assert run_length(detector, rng, rate=expected, expected=expected, most=1_000) == 1_000  # long good before
        lengths.append(run_length(detector, rng, rate=rate, expected=expected, most=2_000))
        assert detector.alarmed
    assert np.median(lengths) <= within


def test_an_alarm_is_taken_back_by_good_evidence_and_hardly_ever_by_bad() -> None:
    rng = np.random.default_rng(4)
    lengths, wrong = [], 0
    for _ in range(200):
        good, bad = Detector(DriftSettings()), Detector(DriftSettings())
        good.alarm()
        bad.alarm()
        assert run_length(bad, rng, rate=0.9, expected=0.1, most=300) == 300  # worse for long: it still comes back
        lengths.append(run_length(good, rng, rate=0.1, expected=0.1, most=2_000))
        again = Detector(DriftSettings())
        again.alarm()
        wrong += run_length(again, rng, rate=0.24, expected=0.1, most=500) < 500  # twice what is allowed
        assert run_length(bad, rng, rate=0.1, expected=0.1, most=2_000) < 2_000
    assert np.median(lengths) <= 150
    assert wrong <= 20  # 5 % of 200, and three standard errors


def test_what_was_seen_is_told_when_the_mind_changes() -> None:
    detector = Detector(DriftSettings(tolerance=0.0), ratio=0.5)
    turned = None
    for _ in range(100):
        turned = turned or detector.see(1.0, 0.2)
    assert turned is not None
    assert turned.observed == turned.n
    assert turned.expected == pytest.approx(0.1 * turned.n)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60), st.floats(0.01, 100), st.booleans())
def test_no_observation_breaks_it(seen: list[tuple[float, float]], ratio: float, alarmed: bool) -> None:  # noqa: FBT001
    detector = Detector(DriftSettings(), ratio=ratio)
    if alarmed:
        detector.alarm()
    for y, expected in seen:
        detector.see(y, expected)
    for held in (*detector._worse, *detector._better):
        assert 0.0 <= held < float("inf")
