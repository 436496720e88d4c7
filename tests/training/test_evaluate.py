from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback import cascade
from tests.support import nights
from tests.support.nights import COST_USD, GOOD, TIERS, ByWorkload, World
from training.dataset import read_dataset
from training.evaluate import evaluate, oracle_terms, terms
from training.follow import Constant, Means, Plan, follow
from training.offpolicy import Terms, effective_size, estimates, figure, point, resample
from training.results import Evaluation, PolicyResult
from training.rows import Label, Row, Source, Step

CHAIN = Plan("chain", TIERS)
DIRECT = Plan("direct", TIERS)


def step(tier: str = "haiku", rejected: str = "", *, check_usd: float = 0.0, ends: bool = False) -> Step:
    return Step(tier, rejected, ends, COST_USD[tier], check_usd, None)


def row(*steps: Step, labels: dict[str, bool] | None = None, propensity: float = 1.0, cost_usd: float = 0.5) -> Row:
    start = steps[0].tier if steps else "haiku"
    return Row(
        request_id="1",
        workload="w",
        group="g",
        received_at_s=0.0,
        features=_FEATURES,
        start=start,
        direct=False,
        propensities={start: propensity},
        expected_cost_usd=COST_USD,
        steps=steps,
        resolved=steps[-1].tier if steps else "",
        accepted=bool(steps) and not steps[-1].rejected,
        labels={tier: Label(good, Source.VERDICT) for tier, good in (labels or {}).items()},
        cost_usd=cost_usd,
        top_tier_cost_usd=0.02,
        simulated=False,
    )


_FEATURES = read_dataset(World().log(1)).rows[0].features
NO_MEANS = Means([])


class Going(ByWorkload):
    """Keeps a reply unless a check rejected it or its tier is named in `p`, then asks for what `to` says."""

    def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
        last = replies[-1]
        return cascade.Ask(self.to) if last.rejected or last.tier in self.p else cascade.Keep(last.tier)

    to = ""


class SkippingTo(Going):
    to = "opus"


PASSES = Going({})
STOPS_HAIKU = Going({}, {"haiku": 0.0})


# --- following a policy along the log --------------------------------------------------------


def test_an_accepted_first_reply_ends_the_chain() -> None:
    got = follow(PASSES, CHAIN, row(step(check_usd=0.1), labels={"haiku": True}), NO_MEANS)
    assert (got.quality, got.cost_usd, got.imputed) == (1.0, pytest.approx(0.101), False)


def test_what_a_free_check_rejected_goes_on_for_every_policy() -> None:
    logged = row(step(rejected="free"), step("sonnet"), labels={"haiku": False, "sonnet": True})
    for plan in (CHAIN, DIRECT):
        got = follow(PASSES, plan, logged, NO_MEANS)
        assert (got.quality, got.cost_usd) == (1.0, pytest.approx(0.011))


def test_a_direct_start_skips_paid_checks_and_their_rejections() -> None:
    logged = row(step(rejected="paid", check_usd=0.1), step("sonnet"), labels={"haiku": False, "sonnet": True})
    direct, chain = (follow(PASSES, plan, logged, NO_MEANS) for plan in (DIRECT, CHAIN))
    assert (direct.quality, direct.cost_usd) == (0.0, pytest.approx(0.001))
    assert (chain.quality, chain.cost_usd) == (1.0, pytest.approx(0.111))


def test_a_policy_judges_by_its_own_scorer_not_by_the_one_that_served() -> None:
    logged = row(step(rejected="learned"), step("sonnet"), labels={"haiku": False, "sonnet": True})
    passes, stops = (follow(policy, CHAIN, logged, NO_MEANS) for policy in (PASSES, STOPS_HAIKU))
    assert (passes.quality, passes.cost_usd) == (0.0, pytest.approx(0.001))
    assert (stops.quality, stops.cost_usd) == (1.0, pytest.approx(0.011))


def test_a_policy_may_skip_a_tier_that_the_log_did_not() -> None:
    logged = row(step(rejected="learned"), step("sonnet"), labels={"haiku": False, "sonnet": True})
    got = follow(SkippingTo({}, {"haiku": 0.0}), CHAIN, logged, NO_MEANS)
    assert got.imputed
    straight = row(step(rejected="learned"), step("opus"), labels={"haiku": False, "opus": True})
    got = follow(SkippingTo({}, {"haiku": 0.0}), CHAIN, straight, NO_MEANS)
    assert (got.quality, got.cost_usd, got.imputed) == (1.0, pytest.approx(0.021), False)


def test_a_policy_may_give_up_after_a_rejection() -> None:
    class GivesUp(Going):
        def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
            return cascade.Keep(replies[-1].tier, accepted=False, why="not_worth_going_on")

    logged = row(step(rejected="free"), step("sonnet"), labels={"haiku": False, "sonnet": True})
    got = follow(GivesUp({}), CHAIN, logged, NO_MEANS)
    assert (got.quality, got.cost_usd, got.imputed) == (0.0, pytest.approx(0.001), False)


def test_a_policy_may_return_to_an_earlier_reply() -> None:
    class ThenBack(Going):
        def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
            return cascade.Ask("sonnet") if len(replies) == 1 else cascade.Keep("haiku")

    logged = row(step(rejected="learned"), step("sonnet"), labels={"haiku": True, "sonnet": False})
    got = follow(ThenBack({}), CHAIN, logged, NO_MEANS)
    assert (got.quality, got.cost_usd) == (1.0, pytest.approx(0.011))


def test_where_the_log_stopped_the_next_tier_is_imputed() -> None:
    escalated = [row(step(rejected="free"), step("sonnet"), labels={"sonnet": good}) for good in (True, True, False)]
    means = Means(escalated * 100)
    got = follow(STOPS_HAIKU, CHAIN, row(step(), labels={"haiku": False}), means)
    assert got.imputed
    assert got.quality == pytest.approx(2 / 3, abs=0.01)
    assert got.cost_usd == pytest.approx(0.011, rel=0.01)


def test_a_constant_takes_the_reply_as_it_is() -> None:
    logged = row(step(rejected="free", check_usd=0.1), step("sonnet"), labels={"haiku": False, "sonnet": True})
    got = follow(Constant("haiku"), Plan("only", ("haiku",)), logged, NO_MEANS)
    assert (got.quality, got.cost_usd) == (0.0, pytest.approx(0.001))


def test_a_reply_handed_back_ends_the_chain_without_a_label() -> None:
    got = follow(PASSES, CHAIN, row(step(rejected="free", ends=True)), NO_MEANS)
    assert (got.quality, got.imputed) == (None, False)


def test_after_the_last_tier_the_reply_that_was_handed_over_counts() -> None:
    steps = [step(tier, "free") for tier in TIERS]
    logged = row(*steps, labels=dict.fromkeys(TIERS, False))
    assert follow(PASSES, CHAIN, logged, NO_MEANS).quality == 0.0


def test_a_request_that_no_tier_answered_has_its_cost_and_no_quality() -> None:
    got = follow(PASSES, CHAIN, row(cost_usd=0.25), NO_MEANS)
    assert (got.quality, got.cost_usd) == (None, 0.25)


# --- the estimators --------------------------------------------------------------------------


def test_the_estimators_on_an_example_worked_by_hand() -> None:
    rows = [
        row(step("haiku"), labels={"haiku": True}, propensity=0.5),
        row(step("haiku"), labels={"haiku": False}, propensity=0.25),
        row(step("sonnet"), labels={"sonnet": True}, propensity=0.5),
        row(step("haiku"), propensity=0.5),
    ]
    got = point(terms(Constant("haiku"), [{Plan("only", ("haiku",)): 1.0}] * 4, rows, NO_MEANS, [{}] * 4))
    assert got.quality_ips[0] == pytest.approx(2 / (2 + 4))
    # q̂ is ½ everywhere: ½ + (2·½ − 4·½) / 6.
    assert got.quality[0] == pytest.approx(0.5 + (2 * 0.5 - 4 * 0.5) / 6)
    assert got.cost_ips[0] == pytest.approx(0.001)


def test_without_requests_started_alike_only_the_guess_is_left() -> None:
    rows = [row(step("haiku"), labels={"haiku": True})] * 3
    got = point(terms(Constant("opus"), [{Plan("only", ("opus",)): 1.0}] * 3, rows, NO_MEANS, [{}] * 3))
    assert got.quality[0] == pytest.approx(0.5)
    assert math.isnan(got.quality_ips[0])


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.05, 1.0)), min_size=1, max_size=40),
    st.floats(0.0, 1.0),
)
def test_estimates_of_shares_stay_shares_and_a_perfect_guess_is_kept(
    logged: list[tuple[bool, float]], constant: float
) -> None:
    weight = np.array([1 / p for _, p in logged])
    seen = np.array([float(good) for good, _ in logged])
    zero, ones = np.zeros(len(logged)), np.ones(len(logged))
    plain = Terms(zero, zero, weight, weight, weight * seen, zero, weight, zero, zero)
    assert 0.0 <= point(plain).quality_ips[0] <= 1.0 + 1e-12
    sure = Terms(constant * ones, ones, weight, weight, weight * constant, zero, weight, zero, zero)
    assert point(sure).quality[0] == pytest.approx(constant)


def test_resampling_is_seeded_paired_and_honest_about_no_data() -> None:
    zero, ones = np.zeros(50), np.ones(50)
    seen = (np.arange(50) % 3 == 0).astype(float)
    logged = Terms(zero, zero, ones, ones, seen, seen, ones, ones, zero)
    first, again = (resample({"a": logged, "b": logged}, seed=7, resamples=200) for _ in range(2))
    assert np.array_equal(first["a"].quality, again["a"].quality)
    assert np.array_equal(first["a"].quality, first["b"].quality)
    whole = figure(first["a"].quality)
    assert whole.value == pytest.approx(seen.mean())
    assert whole.low < whole.value < whole.high
    assert whole.sigma == pytest.approx(math.sqrt(seen.mean() * (1 - seen.mean()) / 50), rel=0.25)
    nothing = figure(estimates(np.zeros((5, 10)) + np.eye(10)[0]).quality_ips)
    assert math.isnan(nothing.value)
    assert resample({}, seed=1) == {}


@given(st.lists(st.floats(0.001, 100.0), min_size=1, max_size=50))
def test_the_effective_size_is_between_one_and_n(weights: list[float]) -> None:
    assert 1.0 - 1e-9 <= effective_size(np.array(weights)) <= len(weights) + 1e-9


def test_the_oracle_is_read_where_the_log_shows_it() -> None:
    rows = [
        row(step("haiku"), labels={"haiku": True}),
        row(step("haiku", "free"), step("sonnet"), labels={"haiku": False, "sonnet": True}),
        row(step("haiku", "free"), step("sonnet"), labels={"haiku": False}),  # nobody says of sonnet
        row(step("sonnet"), labels={"sonnet": True}),  # nobody asked haiku
        row(*(step(tier, "free") for tier in TIERS), labels=dict.fromkeys(TIERS, False)),
    ]
    got = point(oracle_terms(rows, TIERS, NO_MEANS))
    assert got.quality[0] == pytest.approx(2 / 3)
    assert got.cost[0] == pytest.approx((0.001 + 0.010 + 0.001) / 3)


# --- the whole -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured() -> Evaluation:
    held_in, held_out = read_dataset(World(feedback=1.0).log(5000, seed=3)).split(0.4)
    return evaluate(GOOD, ByWorkload(GOOD.plans), held_in, held_out, seed=1)


def _truth(policy: ByWorkload) -> tuple[float, float]:
    """What the policy comes to when it serves: its own starts, no exploration, every label true."""
    qualities, costs = [], []
    for start in TIERS:
        for one in read_dataset(World(start=start, explore=0.0, feedback=1.0).log(6000, seed=11)).rows:
            if policy.plans[one.workload].tiers[0] == start:
                qualities.append(one.labels[one.resolved].good)
                costs.append(one.cost_usd)
    return float(np.mean(qualities)), float(np.mean(costs))


def _result(evaluation: Evaluation, name: str) -> PolicyResult:
    return next(each for each in evaluation.results if each.name == name)


def test_the_log_of_another_policy_tells_what_this_one_would_achieve(measured: Evaluation) -> None:
    quality, cost = _truth(GOOD)
    challenger = _result(measured, "challenger")
    assert abs(challenger.quality.value - quality) < 3 * challenger.quality.sigma
    assert abs(challenger.cost_usd.value - cost) < 3 * challenger.cost_usd.sigma
    assert abs(challenger.quality_ips.value - quality) < 3 * challenger.quality_ips.sigma
    assert challenger.quality.low < challenger.quality.value < challenger.quality.high


@pytest.mark.parametrize("tier", TIERS)
def test_constant_tiers_are_measured_from_what_was_explored(measured: Evaluation, tier: str) -> None:
    rng = np.random.default_rng(5)
    truth = np.mean(
        [
            nights.p_good(tier, float(np.clip(rng.normal(mean, 0.08), 0, 1)))
            for mean in nights.DIFFICULTY.values()
            for _ in range(3000)
        ]
    )
    constant = _result(measured, f"always {tier}")
    assert abs(constant.quality.value - truth) < 3 * constant.quality.sigma + 0.002
    assert constant.cost_usd.value == pytest.approx(COST_USD[tier])


def test_the_shuffle_costs_the_same_and_knows_less(measured: Evaluation) -> None:
    shuffle, challenger = measured.of("shuffle")[0], measured.of("challenger")[0]
    assert shuffle.cost_usd.value == pytest.approx(challenger.cost_usd.value, rel=0.01)
    assert shuffle.quality.value < challenger.quality.low


def test_the_oracle_is_best_and_the_twin_of_the_challenger_is_no_different(measured: Evaluation) -> None:
    oracle, challenger = measured.of("oracle")[0], measured.of("challenger")[0]
    assert oracle.quality.value >= challenger.quality.value
    assert oracle.cost_usd.value < challenger.cost_usd.value
    [twin] = [each for each in measured.differences if each.kind == "champion"]
    assert (twin.quality.value, twin.quality.sigma, twin.cost_usd.value) == (0.0, 0.0, 0.0)


def test_every_policy_is_there_once_with_its_counts(measured: Evaluation) -> None:
    assert [each.kind for each in measured.results] == [
        "logged", "challenger", "champion", "constant", "constant", "constant", "shuffle", "oracle",
    ]  # fmt: skip
    assert (measured.n, measured.labelled) == (2000, 2000)
    assert _result(measured, "as served").support == 2000
    starts = sum(_result(measured, f"always {tier}").support for tier in TIERS)
    assert starts == 2000
    assert sum(measured.of("challenger")[0].mix.values()) == pytest.approx(1.0)


def test_calibration_sees_whether_probabilities_are_right(measured: Evaluation) -> None:
    haiku = next(each for each in measured.calibration if each.tier == "haiku")
    assert sum(each.n for each in haiku.bins) == haiku.n
    assert haiku.brier < haiku.constant_brier
    assert haiku.ece < 0.1
    assert all(each.low <= each.good <= each.high for each in haiku.bins)


def test_escalation_is_counted_by_workload_and_start_tier(measured: Evaluation) -> None:
    held_out = read_dataset(World(feedback=1.0).log(5000, seed=3)).split(0.4)[1].rows
    for each in measured.escalation:
        those = [one for one in held_out if (one.workload, one.start) == (each.workload, each.start)]
        assert each.n == len(those)
        assert each.rejected == sum(len(one.steps) > 1 or bool(one.steps[0].rejected) for one in those)
        assert each.low <= each.rate <= each.high
    lines = {(each.workload, each.start): each.break_even for each in measured.escalation}
    assert lines["easy", "haiku"] == pytest.approx(0.9)
    assert lines["easy", "opus"] is None


def test_twenty_good_replies_are_no_proof_of_perfection() -> None:
    held_in, held_out = read_dataset(World(caught=1.0, feedback=1.0, explore=0.1).log(1000, seed=2)).split(0.4)
    opus = _result(evaluate(GOOD, None, held_in, held_out, seed=0), "always opus")
    assert (opus.support < 40, opus.quality.value > 0.97) == (True, True)
    assert opus.quality.low < 0.95
    assert opus.quality.sigma > 0.01


def test_no_held_out_requests_measure_nothing() -> None:
    data = read_dataset(World().log(10))
    empty = evaluate(GOOD, None, data, replace(data, rows=()), seed=0)
    assert (empty.n, empty.results) == (0, ())
    assert "nothing was measured" in empty.notes[-1]


def test_a_tier_that_never_replied_is_left_out_and_said() -> None:
    held_in, held_out = read_dataset(World(explore=0.0, start="sonnet").log(200)).split(0.5)
    got = evaluate(GOOD, None, held_in, held_out, seed=0)
    assert [each.name for each in got.of("constant")] == ["always sonnet", "always opus"]
    assert got.notes == ("haiku never replied: not compared",)


def test_the_same_seed_gives_the_same_evaluation() -> None:
    held_in, held_out = read_dataset(World().log(300)).split(0.5)
    assert evaluate(GOOD, None, held_in, held_out, seed=4) == evaluate(GOOD, None, held_in, held_out, seed=4)
