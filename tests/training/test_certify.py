"""The promise of a certificate, by simulation: it holds where data are independent and alike, and fails where not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from router.certificate import State, Threshold
from training.certify import GRID, certify, equally_weighted, examples_needed, upper_bound

DRAWS = 2_000
DELTA = 0.1
# With a true violation share of exactly δ, more than this many happen once in 10,000 runs of the test.
MOST_VIOLATIONS = int(binom.ppf(0.9999, DRAWS, DELTA))


class World:
    """Scores on (0, 1) and the chance that a reply of such a score is bad, which is not what the scorer thinks."""

    def __init__(self, *, harm: float = 1.0) -> None:
        self.harm = harm
        grid = np.random.default_rng(99).beta(3.0, 1.0, 200_000)
        self.population, self.chance = grid, self.risk(grid)

    def risk(self, score: np.ndarray) -> np.ndarray:
        return np.minimum(1.0, self.harm * 0.45 * (1.0 - score))

    def true_risk(self, threshold: float) -> float:
        return float(self.chance[self.population >= threshold].mean())

    def draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        score = rng.beta(3.0, 1.0, n)
        return score, (rng.random(n) < self.risk(score)).astype(float)


WORLD = World()
TRUE_RISK = {value: WORLD.true_risk(value) for value in GRID}


def violations(certified: list[Threshold], risks: dict[float, float], alpha: float) -> int:
    return sum(each.state is State.CERTIFIED and risks[each.value] > alpha for each in certified)


@pytest.mark.parametrize("alpha", [0.04, 0.06, 0.10])
def test_at_most_delta_of_the_certificates_are_wrong(alpha: float) -> None:
    rng = np.random.default_rng(1)
    certified = []
    for _ in range(DRAWS):
        score, bad = WORLD.draw(1_200, rng)
        certified.append(certify(score, bad, np.ones(1_200), alpha=alpha, delta=DELTA))
    assert violations(certified, TRUE_RISK, alpha) <= MOST_VIOLATIONS
    assert sum(each.state is State.CERTIFIED for each in certified) > 0.5 * DRAWS  # it says yes, and not to nothing


def test_a_risk_just_above_what_is_allowed_at_every_threshold_passes_no_more_often_than_delta() -> None:
    """The hardest case for many thresholds: whichever passes is wrong."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(DRAWS):
        score, bad = rng.beta(3.0, 1.0, 1_200), (rng.random(1_200) < 0.0601).astype(float)
        wrong += certify(score, bad, np.ones(1_200), alpha=0.06, delta=DELTA).state is State.CERTIFIED
    assert 0.02 * DRAWS < wrong <= MOST_VIOLATIONS


def test_the_promise_holds_for_weighted_examples_of_another_distribution() -> None:
    """Easy requests are logged five times as often as they come: only their weights put that right."""
    rng = np.random.default_rng(2)
    weighted, naive = [], []
    for _ in range(DRAWS):
        score, bad = WORLD.draw(3_000, rng)
        logged = np.where(score > 0.8, 1.0, 0.2)
        chosen = rng.random(3_000) < logged
        score, bad, weight = score[chosen], bad[chosen], 1.0 / logged[chosen]
        seed = int(rng.integers(1 << 30))
        weighted.append(certify(score, bad, weight, alpha=0.09, delta=DELTA, seed=seed))
        naive.append(certify(score, bad, np.ones(len(score)), alpha=0.09, delta=DELTA, seed=seed))
    assert violations(weighted, TRUE_RISK, 0.09) <= MOST_VIOLATIONS
    assert sum(each.state is State.CERTIFIED for each in weighted) > 0.5 * DRAWS
    assert violations(naive, TRUE_RISK, 0.09) > 3 * MOST_VIOLATIONS


def test_the_promise_breaks_when_what_is_served_is_not_what_was_judged() -> None:
    """A model update makes replies of the same score bad twice as often: that is what drift detection is for."""
    rng, after = np.random.default_rng(3), World(harm=2.0)
    risks = {value: after.true_risk(value) for value in GRID}
    certified = []
    for _ in range(DRAWS):
        score, bad = WORLD.draw(1_200, rng)
        certified.append(certify(score, bad, np.ones(1_200), alpha=0.06, delta=DELTA))
    assert violations(certified, risks, 0.06) > 3 * MOST_VIOLATIONS


def test_more_evidence_certifies_more() -> None:
    rng = np.random.default_rng(4)
    shares = []
    for n in (200, 800, 3_200):
        found = [certify(*WORLD.draw(n, rng), np.ones(n), alpha=0.06, delta=0.05) for _ in range(100)]
        accepted = [np.mean(WORLD.population >= f.value) if f.state is State.CERTIFIED else 0.0 for f in found]
        shares.append(float(np.mean(accepted)))
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]


# --- exact counts ----------------------------------------------------------------------------


def test_a_faultless_record_of_just_enough_examples_is_certified_and_one_less_is_not() -> None:
    needed = examples_needed(0.05, 0.05 / 4)
    assert needed == 86
    for n, state in ((needed, State.CERTIFIED), (needed - 1, State.NOT_CERTIFIED)):
        found = certify(np.full(n, 0.99), np.zeros(n), np.ones(n), alpha=0.05, delta=0.05)
        assert (found.state, found.n, found.bad, found.needed) == (state, n, 0, needed)


def test_bad_replies_of_every_score_are_infeasible() -> None:
    score, bad = np.linspace(0, 1, 1_000), np.tile([0.0, 0.0, 1.0, 0.0], 250)
    found = certify(score, bad, np.ones(1_000), alpha=0.05, delta=0.05)
    assert found.state is State.INFEASIBLE
    assert found.at_least == float("inf")
    assert 0.25 < found.bound < 0.28


def test_a_record_that_is_good_but_too_short_says_how_long_it_has_to_be() -> None:
    bad = np.zeros(120)
    bad[:3] = 1.0  # 2.5 %: good enough, if it goes on like that
    found = certify(np.full(120, 0.99), bad, np.ones(120), alpha=0.05, delta=0.05)
    assert found.state is State.NOT_CERTIFIED
    assert 250 < found.needed < 600
    longer = np.tile(bad, 5)
    assert certify(np.full(600, 0.99), longer, np.ones(600), alpha=0.05, delta=0.05).state is State.CERTIFIED


def test_without_examples_nothing_is_certified() -> None:
    none = np.zeros(0)
    assert certify(none, none, none, alpha=0.05, delta=0.05) == Threshold(State.NOT_CERTIFIED, 0.0, 0, 0, 86, 1.0)


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_promises_of_nothing_or_everything_are_refused(alpha: float, delta: float) -> None:
    with pytest.raises(ValueError, match="alpha and delta"):
        certify(np.ones(1), np.ones(1), np.ones(1), alpha=alpha, delta=delta)


@given(n=st.integers(1, 300), share=st.floats(0, 1), delta=st.floats(0.001, 0.5))
def test_the_bound_is_where_so_few_bad_ones_have_probability_delta(n: int, share: float, delta: float) -> None:
    bad = min(n - 1, int(share * n))
    bound = upper_bound(bad, n, delta)
    assert bad / n <= bound <= 1.0 or delta > 0.4
    assert binom.cdf(bad, n, bound) == pytest.approx(delta, rel=1e-6)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=50), st.floats(0.1, 10.0))
def test_the_scale_of_the_weights_does_not_matter(weights: list[float], scale: float) -> None:
    one, other = np.array(weights), scale * np.array(weights)
    assert equally_weighted(one, 7)[one.argmax()]
    ratio = np.abs(one / one.max() - other / other.max())
    assert ratio.max() < 1e-12
