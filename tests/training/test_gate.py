from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.gate import Passed, Refused, enough_data, judge
from training.results import Data, Difference, Evaluation, Figure, Kind, PolicyResult

SIGMA = 0.01


def figure(value: float, sigma: float = SIGMA) -> Figure:
    return Figure(value, value - 1.96 * sigma, value + 1.96 * sigma, sigma)


def result(name: str, kind: Kind, quality: float, cost: float) -> PolicyResult:
    return PolicyResult(
        name, kind, figure(quality), figure(cost, 0.1), figure(quality), figure(cost, 0.1), 100, 100.0, 0.0
    )


def evaluation(
    challenger: tuple[float, float] = (0.96, 3.0),
    champion: tuple[float, float] | None = (0.96, 4.0),
    haiku: tuple[float, float] = (0.60, 1.0),
    sonnet: tuple[float, float] = (0.90, 10.0),
    opus: tuple[float, float] = (0.97, 20.0),
    served: tuple[float, float] = (0.95, 5.0),
) -> Evaluation:
    """(quality, cost) of each; every difference has a standard error of one point and 0.1 dollars."""
    others = [
        result("as served", "logged", *served),
        *([result("champion", "champion", *champion)] if champion else []),
        result("always haiku", "constant", *haiku),
        result("always sonnet", "constant", *sonnet),
        result("always opus", "constant", *opus),
    ]
    differences = tuple(
        Difference(
            each.name,
            each.kind,
            figure(challenger[0] - each.quality.value),
            figure(challenger[1] - each.cost_usd.value, 0.1),
        )
        for each in others
    )
    results = (result("challenger", "challenger", *challenger), *others)
    return Evaluation(1000, 1000, results, differences, (), ())


DATA = Data(
    requests=3000,
    labelled=2500,
    held_in=2000,
    held_in_labelled=1800,
    held_out=1000,
    first_request_s=0.0,
    last_request_s=1.0,
    labels={"haiku": {"verdict good": 900, "verdict bad": 700}, "opus": {"feedback good": 100}},
    good_share={"haiku": 0.56, "opus": 1.0},
    skipped={},
    simulated=False,
    fingerprint="f",
)


def refusal(verdict: Passed | Refused) -> str:
    assert isinstance(verdict, Refused)
    return " | ".join(verdict.reasons)


def test_a_better_model_passes_and_the_praise_says_than_what() -> None:
    verdict = judge(evaluation(), DATA, target=0.99)
    assert isinstance(verdict, Passed)
    assert verdict.reasons == (
        "always haiku misses the target quality (60.0% < 96.0%)",
        "always sonnet misses the target quality (90.0% < 96.0%)",
        "saves 85% against always opus at the target quality",
        "costs 25% less than the champion at no lower quality",
    )


# --- data ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("labelled", "passes"), [(499, False), (500, True)])
def test_five_hundred_labelled_held_in_requests_are_needed(labelled: int, *, passes: bool) -> None:
    verdict = enough_data(replace(DATA, held_in_labelled=labelled))
    assert isinstance(verdict, Passed) is passes
    if not passes:
        assert refusal(verdict) == "too little data: 499 labelled requests to learn from, 500 are needed"


def test_one_class_is_refused() -> None:
    one = replace(DATA, labels={"haiku": {"verdict good": 900, "verdict bad": 0}, "opus": {"feedback good": 9}})
    assert refusal(enough_data(one)) == "one class: every label is good, so there is nothing to tell apart"


def test_nothing_at_all_is_refused_with_both_reasons() -> None:
    nothing = replace(DATA, held_in_labelled=0, held_out=0, labels={"haiku": {}})
    assert "too little data: 0" in refusal(enough_data(nothing))
    assert "no requests are held out" in refusal(judge(evaluation(), nothing, target=0.99))


# --- constants -------------------------------------------------------------------------------


def test_a_cheaper_constant_tier_that_reaches_the_target_wins() -> None:
    said = refusal(judge(evaluation(sonnet=(0.965, 2.0)), DATA, target=0.99))
    assert said == (
        "not better than always sonnet, which reaches the target quality (96.5%) and costs "
        "$2000.000 per 1,000 requests against $3000.000 per 1,000 requests"
    )


def test_a_cheaper_constant_tier_that_misses_the_target_does_not_matter() -> None:
    assert isinstance(judge(evaluation(haiku=(0.90, 0.1)), DATA, target=0.99), Passed)


@pytest.mark.parametrize(("quality", "passes"), [(0.951, True), (0.949, False)])
def test_quality_may_miss_the_target_by_one_standard_error(quality: float, *, passes: bool) -> None:
    # Target 0.97 · 0.99 = 0.9603, standard error 0.01.
    verdict = judge(evaluation(challenger=(quality, 3.0), champion=(0.95, 4.0)), DATA, target=0.99)
    assert isinstance(verdict, Passed) is passes
    if not passes:
        assert "quality 94.9% misses the target of 96.0% (99% of always opus's 97.0%)" in refusal(verdict)


def test_without_constant_tiers_there_is_nothing_to_show_it_against() -> None:
    bare = evaluation()
    bare = replace(bare, results=tuple(each for each in bare.results if each.kind != "constant"))
    assert "no constant tier could be measured" in refusal(judge(bare, DATA, target=0.99))


# --- incumbent -------------------------------------------------------------------------------


@pytest.mark.parametrize(("champion", "passes"), [((0.969, 4.0), True), ((0.971, 4.0), False)])
def test_worse_than_the_champion_by_more_than_one_standard_error_is_refused(
    champion: tuple[float, float], *, passes: bool
) -> None:
    verdict = judge(evaluation(champion=champion), DATA, target=0.99)
    assert isinstance(verdict, Passed) is passes
    if not passes:
        assert refusal(verdict) == "worse than the champion: quality -1.1 points, more than one standard error (1.0)"


def test_dearer_and_not_better_is_refused() -> None:
    said = refusal(judge(evaluation(champion=(0.96, 2.5)), DATA, target=0.99))
    assert said == (
        "not better than the champion: quality +0.0 points (standard error 1.0), cost +20.0 % (4.0), "
        "so it is not shown to be better or cheaper"
    )


def test_dearer_but_better_passes() -> None:
    assert isinstance(judge(evaluation(champion=(0.94, 2.5)), DATA, target=0.99), Passed)


def test_the_same_again_is_not_better() -> None:
    said = refusal(judge(evaluation(champion=(0.96, 3.0)), DATA, target=0.99))
    assert said == (
        "not better than the champion: quality +0.0 points (standard error 1.0), cost +0.0 % (3.3), "
        "so it is not shown to be better or cheaper"
    )


@pytest.mark.parametrize(("cost", "passes"), [(3.83, True), (3.85, False)])
def test_cheaper_must_be_shown(cost: float, *, passes: bool) -> None:
    verdict = judge(evaluation(challenger=(0.96, cost), champion=(0.96, 4.0)), DATA, target=0.99)
    assert isinstance(verdict, Passed) is passes


def test_a_constant_tier_known_from_a_handful_of_requests_has_no_veto_and_that_is_said() -> None:
    thin = evaluation(sonnet=(0.99, 2.0))
    thin = replace(
        thin, results=tuple(replace(each, effective=10.0) if each.kind == "constant" else each for each in thin.results)
    )
    verdict = judge(thin, DATA, target=0.95)
    assert isinstance(verdict, Passed)
    assert (
        "always sonnet is known too little to compare with: 10 effective requests, 30 are needed"
    ) in verdict.reasons


def test_a_constant_tier_that_reaches_the_target_wins_unless_the_challenger_is_shown_to_be_cheaper() -> None:
    assert isinstance(judge(evaluation(sonnet=(0.965, 3.11)), DATA, target=0.99), Passed)
    assert "always sonnet" in refusal(judge(evaluation(sonnet=(0.965, 3.09)), DATA, target=0.99))


def test_before_the_first_model_what_was_served_is_the_incumbent() -> None:
    verdict = judge(evaluation(champion=None, served=(0.99, 5.0)), DATA, target=0.99)
    assert refusal(verdict).startswith("worse than what was served")
    assert isinstance(judge(evaluation(champion=None), DATA, target=0.99), Passed)


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "passes"), [(0.60, True), (0.90, False), (0.20, False)])
def test_a_jump_in_the_share_of_good_labels_asks_for_a_look(before: float, *, passes: bool) -> None:
    verdict = judge(evaluation(), DATA, target=0.99, champion_good_share={"haiku": before, "gone": 0.1})
    assert isinstance(verdict, Passed) is passes
    if not passes:
        assert f"moved from {before:.0%} to 56%" in refusal(verdict)


def test_few_labels_may_jump() -> None:
    few = replace(DATA, labels={**DATA.labels, "opus": {"feedback good": 4}})
    assert isinstance(judge(evaluation(), few, target=0.99, champion_good_share={"opus": 0.8}), Passed)


# --- always ----------------------------------------------------------------------------------

_share, _cost = st.floats(0.0, 1.0), st.floats(0.1, 30.0)
_pair = st.tuples(_share, _cost)


def test_what_could_not_be_measured_is_refused() -> None:
    assert "could not be measured" in refusal(judge(evaluation(challenger=(math.nan, 3.0)), DATA, target=0.99))


@given(_pair, _pair, _pair, _pair, st.floats(0.5, 1.0))
def test_what_passes_is_never_worse_than_a_constant_tier_or_the_champion(
    challenger: tuple[float, float],
    champion: tuple[float, float],
    sonnet: tuple[float, float],
    opus: tuple[float, float],
    target: float,
) -> None:
    verdict = judge(evaluation(challenger, champion, sonnet=sonnet, opus=opus), DATA, target=target)
    assert verdict.reasons
    if isinstance(verdict, Passed):
        floor = target * max(sonnet[0], opus[0], 0.60)
        assert challenger[0] >= floor - SIGMA - 1e-9
        assert challenger[0] >= champion[0] - SIGMA - 1e-9
        assert challenger[1] < champion[1] or challenger[0] > champion[0]
        assert all(challenger[1] < cost for quality, cost in (sonnet, opus) if quality >= floor)
