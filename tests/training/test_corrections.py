"""The chain rule's worth, corrected by what the log shows: only where it is wrong, and where it is seen to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import chain_worth
from router.scoring import Tied, worth_inputs
from tests.support.nights import TIERS, World
from training.corrections import MIN_ROWS, Logged, chain_worths, learn_corrections, read_log
from training.dataset import read_dataset
from training.rows import Label, Source

COSTS = np.array([0.001, 0.010, 0.020])
MISTAKE_USD = np.array([0.1, 0.5])
shares = st.floats(0.01, 0.99)


@given(st.tuples(shares, shares, shares), st.floats(0.0, 1.0), st.floats(1.0, 30.0), st.sampled_from([0.02, 0.1, 1.0]))
def test_many_worths_at_once_are_as_one_by_one(
    p: tuple[float, float, float], caught: float, odds: float, mistake_usd: float
) -> None:
    [many] = chain_worths(
        range(3), np.array([p]), COSTS[None, :], mistake_usd=mistake_usd, caught=np.array([caught]), odds_ratio=odds
    )
    one = chain_worth(
        TIERS,
        dict(zip(TIERS, p, strict=True)),
        dict(zip(TIERS, COSTS.tolist(), strict=True)),
        mistake_cost_usd=mistake_usd,
        caught=caught,
        odds_ratio=odds,
    )
    assert many == pytest.approx(one, abs=1e-9)


def log(n: int, *, seed: int, sonnet: float = 0.0) -> Logged:
    """Half started at haiku, half at sonnet. What haiku's reply tells of it is nearly always true; what is bad goes on.

    `sonnet` is how much likelier it is good after a bad haiku than is believed.
    """
    rng = np.random.default_rng(seed)
    before = np.column_stack([rng.uniform(0.4, 0.8, n), rng.uniform(0.8, 0.95, n), np.full(n, 0.96)])
    at_haiku = rng.random(n) < 0.5
    good = rng.random((n, 3)) < before
    read = before.copy()
    read[:, 0] = np.where(good[:, 0], 0.95, 0.05)
    good[:, 0] = np.where(rng.random(n) < 0.95, good[:, 0], ~good[:, 0])
    on = at_haiku & (read[:, 0] < 0.5)
    good[:, 1] = np.where(on, rng.random(n) < np.clip(before[:, 1] + sonnet, 0, 1), good[:, 1])
    unseen = np.full((n, 3), np.nan)
    both = read.copy()
    both[:, 1] = np.where(good[:, 1], 0.98, 0.3)
    alone = before.copy()
    alone[:, 1] = np.where(good[:, 1], 0.98, 0.3)
    taken = {((), "haiku"): at_haiku * 2.0, ((), "sonnet"): ~at_haiku * 2.0, ((), "opus"): np.zeros(n)}
    taken |= {(("haiku",), "sonnet"): on * 1.0, (("haiku",), "opus"): np.zeros(n), (("sonnet",), "opus"): np.zeros(n)}
    taken |= {(("haiku", "sonnet"), "opus"): np.zeros(n)}
    beliefs = {
        (): before,
        ("haiku",): np.where(at_haiku[:, None], read, unseen),
        ("sonnet",): np.where(at_haiku[:, None], unseen, alone),
        ("opus",): unseen,
        ("haiku", "sonnet"): np.where(on[:, None], both, unseen),
        ("haiku", "opus"): unseen,
        ("sonnet", "opus"): unseen,
        TIERS: unseen,
    }
    labels = np.where([[True, True, False]], good.astype(float), np.nan)
    return Logged(
        TIERS, beliefs, np.tile(COSTS, (n, 1)), taken, labels, np.ones((n, 3)), np.full(n, 0.95), np.zeros((n, 1))
    )


def test_a_tier_that_does_worse_after_another_than_believed_is_worth_less_there() -> None:
    found = log(2_000, seed=0, sonnet=-0.35)
    corrections = learn_corrections(found, MISTAKE_USD, odds_ratio=1.0)
    inputs = worth_inputs(np.array([[0.05, 0.9, 0.96]]), np.zeros((1, 1)))
    off = (inputs @ corrections[("haiku",), "sonnet"].T)[0]
    true = -0.35 * (1 - 0.95 * (0.96 - 0.020 / MISTAKE_USD))  # what opus does not make up for
    assert off == pytest.approx(true, abs=0.04)
    assert (off < -0.015).all()
    assert (("haiku",), "opus") not in corrections, "that step was never taken: the rule stands"


def test_where_the_rule_is_right_it_is_hardly_ever_corrected() -> None:
    kept = [
        (("haiku",), "sonnet") in learn_corrections(log(600, seed=seed), MISTAKE_USD[:1], odds_ratio=1.0)
        for seed in range(20)
    ]
    assert sum(kept) <= 4


def test_too_few_requests_correct_nothing() -> None:
    assert learn_corrections(log(MIN_ROWS, seed=1, sonnet=-0.5), MISTAKE_USD, odds_ratio=1.0) == {}


# --- reading a log ---------------------------------------------------------------------------


ROWS = read_dataset(World(explore=0.4, start="haiku", caught=0.8, feedback=0.5).log(300, seed=2)).rows


def read(rows: tuple = ROWS) -> Logged:
    n = len(rows)
    beliefs = {(): np.tile([0.6, 0.8, 0.9], (n, 1)), **{(tier,): np.tile([0.7, 0.85, 0.95], (n, 1)) for tier in TIERS}}
    return read_log(
        rows, beliefs, np.tile(COSTS, (n, 1)),
        tiers=TIERS, caught=np.full(n, 0.5), tied=Tied(3.0, 3.0), onehot=np.zeros((n, 1)),
    )  # fmt: skip


def test_a_row_counts_where_the_log_took_the_step_and_a_drawn_start_for_what_it_stands() -> None:
    found = read()
    for number, row in enumerate(ROWS):
        path = [step.tier for step in row.steps]
        assert [tier for tier in TIERS if found.taken[(), tier][number] > 0] == path[:1]
        assert found.taken[(), path[0]][number] == pytest.approx(1 / row.propensity)
        assert (found.taken[("haiku",), "sonnet"][number] > 0) == (path[:2] == ["haiku", "sonnet"])
        assert np.isfinite(found.beliefs[("haiku",)][number]).all() == (path[0] == "haiku")


def test_a_rejected_reply_is_worth_nothing_and_makes_the_next_tier_doubtful() -> None:
    found = read()
    rejected = np.array([row.start == "haiku" and row.steps[0].rejected == "free" for row in ROWS])
    accepted = np.array([row.start == "haiku" and not row.steps[0].rejected for row in ROWS])
    assert rejected.any()
    assert (found.beliefs[("haiku",)][rejected, 0] == 0.0).all()
    assert (found.beliefs[("haiku",)][rejected, 1] < 0.85).all()
    assert found.beliefs[("haiku",)][accepted] == pytest.approx(np.tile([0.7, 0.85, 0.95], (accepted.sum(), 1)))


def test_an_audit_takes_a_step_that_the_chain_did_not() -> None:
    row = next(row for row in ROWS if len(row.steps) == 1 and row.steps[0].tier == "haiku" and row.accepted)
    label = Label(False, Source.AUDIT, accepted=True, propensity=0.2)
    audited = replace(row, labels={"haiku": label}, audit_replies={"sonnet": row.steps[0].reply_features})
    found = read((audited, row))
    assert found.taken[("haiku",), "sonnet"].tolist() == [5.0, 0.0]
