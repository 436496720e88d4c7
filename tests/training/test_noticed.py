"""How many bad replies are noticed, and how a rejection is tied to the next tier: found again where it is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import CAUGHT, ODDS_RATIO, after_a_bad_reply
from tests.support.nights import TIERS, World
from training.dataset import Dataset, read_dataset
from training.noticed import after_bad, caught_shares, odds_ratios
from training.rows import Row

UNREAD = {(): np.full((2_000, 3), 0.9), **{(tier,): np.full((2_000, 3), 0.9) for tier in TIERS}}  # doubts nothing


def logged(n: int = 2_000, **world: Any) -> Dataset:
    return read_dataset(World(**{"explore": 0.2, "start": "haiku", "feedback": 0.5} | world).log(n, seed=1))


@pytest.mark.parametrize("caught", [0.3, 0.6, 0.95])
def test_the_share_that_the_checks_notice_is_found_by_workload(caught: float) -> None:
    found = caught_shares(logged(caught=caught).rows, UNREAD, TIERS)
    assert set(found) == {"easy", "mixed", "hard"}
    assert [found[name] for name in ("mixed", "hard")] == pytest.approx([caught] * 2, abs=0.08)
    assert abs(found["easy"] - CAUGHT) < abs(caught - CAUGHT) + 0.15, "few bad replies: it leans on half"


def test_a_reply_that_the_scorer_doubts_is_noticed_too() -> None:
    rows = logged(caught=0.3).rows
    doubting = UNREAD | {("haiku",): np.full((2_000, 3), 0.2)}
    found = caught_shares(rows, doubting, TIERS)
    assert min(found["mixed"], found["hard"]) > 0.9


def test_nothing_is_said_where_nobody_looked_into_accepted_replies() -> None:
    assert caught_shares(logged(caught=0.9, feedback=0.0).rows, UNREAD, TIERS) == {}


def test_little_evidence_leans_on_half() -> None:
    rows = logged(caught=0.95, feedback=1.0).rows
    bad = [row for row in rows if row.workload == "mixed" and "haiku" in row.labels and not row.labels["haiku"].good]
    good = [row for row in rows if row.workload == "mixed" and row.resolved == "haiku" and row.labels["haiku"].good]
    [few] = caught_shares([*good[:30], *[row for row in bad if row.steps[0].rejected][:2]], UNREAD, TIERS).values()
    assert few == pytest.approx((2 + 10 * CAUGHT) / 12)


@given(st.floats(0.0, 1.0), st.floats(0.0, 0.999), st.floats(1.0, 60.0))
def test_many_at_once_are_as_one_by_one(p: float, other: float, odds: float) -> None:
    [many] = after_bad(np.array([p]), np.array([other]), odds)
    assert many == pytest.approx(after_a_bad_reply(p, other, odds_ratio=odds), abs=1e-9)


def tied_rows(odds: float, n: int, seed: int = 0) -> tuple[list[Row], dict[tuple[str, ...], np.ndarray]]:
    """Requests on which haiku was rejected, and sonnet was good as often as the odds ratio says."""
    rng = np.random.default_rng(seed)
    some = next(
        row for row in logged(50, feedback=1.0, caught=1.0).rows if [s.tier for s in row.steps] == ["haiku", "sonnet"]
    )
    beliefs = np.column_stack([rng.uniform(0.2, 0.8, n), rng.uniform(0.5, 0.95, n), np.full(n, 0.97)])
    good = rng.random(n) < after_bad(beliefs[:, 1], beliefs[:, 0], odds)
    labels = [{**some.labels, "sonnet": replace(some.labels["sonnet"], good=bool(each), weight=1.0)} for each in good]
    return [replace(some, labels=each) for each in labels], {(): beliefs, ("haiku",): np.full((n, 3), 0.5)}


@pytest.mark.parametrize("odds", [1.5, 6.0, 20.0])
def test_the_odds_ratio_is_found_where_there_are_enough_pairs(odds: float) -> None:
    rows, beliefs = tied_rows(odds, 4_000)
    assert odds_ratios(rows, beliefs, TIERS).unread == pytest.approx(odds, rel=0.4)


def test_few_pairs_change_little() -> None:
    rows, beliefs = tied_rows(20.0, 5)
    assert ODDS_RATIO / 2 < odds_ratios(rows, beliefs, TIERS).unread < 2 * ODDS_RATIO
    assert odds_ratios([], beliefs, TIERS).read == pytest.approx(ODDS_RATIO, rel=0.02)
