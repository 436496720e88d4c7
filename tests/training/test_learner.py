from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

from fallback import cascade
from router.model import load_model
from router.outcome import Agreement
from router.store import Recorded
from tests.support.nights import TIERS, World
from training.dataset import Dataset, read_dataset
from training.follow import Constant
from training.learner import OutcomeLearner, states_of, training_set
from training.nightly import CannotFit
from training.rows import Label, Source
from training.served import Served, Terms

# The check misses half of the bad replies, so the model has something to add.
WORLD = World(feedback=1.0, caught=0.5, explore=0.5, start="sonnet")
DATA = read_dataset(WORLD.log(600, seed=3))
LEARNER = OutcomeLearner(lambda _: Terms(TIERS))


def fit(data: Dataset, directory: Path) -> Served:
    policy = LEARNER.fit(data, directory, version="v1", seed=1, target=0.98, now_s=0.0, progress=lambda _: None)
    assert isinstance(policy, Served)
    return policy


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def policy(directory: Path) -> Served:
    return fit(DATA, directory)


# --- matrices --------------------------------------------------------------------------------


def test_a_label_counts_where_its_reply_is_there_to_be_read() -> None:
    made = training_set(DATA)
    for tier in TIERS:
        replied = np.array([any(step.tier == tier for step in row.steps) for row in DATA.rows])
        labelled = np.array([tier in row.labels for row in DATA.rows])
        assert np.array_equal(~np.isnan(made.labels[tier][: len(DATA.rows)]), replied & labelled)
    called_by_nobody = replace(DATA.rows[0], labels={"opus": Label(True, Source.FEEDBACK)}, steps=())
    assert np.isnan(training_set(Dataset((called_by_nobody, *DATA.rows[1:]))).labels["opus"][0])


def test_weights_are_the_data_sets() -> None:
    made = training_set(DATA)
    examples = DATA.examples("sonnet")
    assert np.array_equal(made.weights["sonnet"][examples.row], examples.weight)


def test_a_class_that_hardly_occurs_is_lent_examples_worth_one() -> None:
    made, n = training_set(DATA), len(DATA.rows)
    assert np.nansum(made.labels["opus"][:n] == 0) < 5  # the top tier is nearly always good
    assert np.nansum(made.labels["opus"][n:] == 0) >= 5
    assert made.weights["opus"][n:][made.labels["opus"][n:] == 0].sum() == pytest.approx(1.0)
    assert np.isnan(made.labels["haiku"][n:]).all()  # haiku has enough of both


def test_the_same_request_is_never_on_both_sides_of_a_fold() -> None:
    made = training_set(DATA)
    sent = [row.features.to_bytes() for row in DATA.rows]
    again = next(i for i in range(1, len(sent)) if sent[i] in sent[:i])
    assert made.groups[again] == made.groups[sent.index(sent[again])]


def test_a_handful_of_requests_may_be_split() -> None:
    few = Dataset(tuple(replace(row, features=DATA.rows[0].features) for row in DATA.rows[:100]))
    assert len(set(training_set(few).groups)) == 100


# --- agreement -------------------------------------------------------------------------------


def agreeing(records: Iterable[Recorded]) -> Iterator[Recorded]:
    """A log in which sonnet, where it is wrong, mostly says what a rejected haiku said before it."""
    rng = Random(5)
    for record in records:
        tiers = [attempt.tier for attempt in record.outcome.attempts]
        if tiers[:2] == ["haiku", "sonnet"]:
            wrong = len(tiers) > 2 or (record.feedback is not None and not record.feedback.good)
            same = rng.random() < (0.8 if wrong else 0.05)
            found = Agreement(0, 1, float(same), 1.0 if same else 0.3)
            record = replace(record, outcome=replace(record.outcome, agreements=(found,)))  # noqa: PLW2901
        yield record


AGREEING = read_dataset(agreeing(World(feedback=1.0, caught=0.9, explore=0.4, start="haiku").log(900, seed=4)))


def test_agreement_is_known_where_both_replied_and_it_was_recorded() -> None:
    agree = training_set(AGREEING).agree["haiku", "sonnet"]
    both = [{"haiku", "sonnet"} <= {step.tier for step in row.steps} for row in AGREEING.rows]
    assert np.array_equal(np.isfinite(agree).all(axis=1)[: len(both)], both)
    assert set(agree[: len(both)][both][:, 0]) == {0.0, 1.0}
    assert np.isnan(training_set(DATA).agree["haiku", "sonnet"]).all()


def test_states_of_two_replies_are_learned_where_enough_are_known() -> None:
    singles = [(), ("haiku",), ("sonnet",), ("opus",)]
    assert states_of(training_set(DATA)) == singles
    assert states_of(training_set(AGREEING)) == [*singles, ("haiku", "sonnet")]


def test_a_model_that_learned_what_agreement_means_serves_by_it(tmp_path: Path) -> None:
    served = fit(AGREEING, tmp_path)
    assert ("haiku", "sonnet") in load_model(tmp_path).stacks
    weaker = []
    for row in AGREEING.rows:
        if ("haiku", "sonnet") in row.agree and row.steps[1].reply_features is not None:
            accepted = [replace(step, rejected="") for step in row.steps[:2]]
            odds = []
            for told in ((1.0, 1.0), (0.0, 0.3)):
                asked = replace(row, agree={("haiku", "sonnet"): told})
                _, score = served.think(asked, served.plan(row), accepted)
                assert score is not None
                odds.append(score / (1.0 - score))
            weaker.append(odds[0] < odds[1] / 2)
    assert len(weaker) > 100
    assert all(weaker)


# --- fitting ---------------------------------------------------------------------------------


def test_a_tier_that_was_hardly_asked_makes_no_model_and_the_reason_names_it(tmp_path: Path) -> None:
    unasked = read_dataset(World(feedback=1.0, explore=0.0, caught=1.0).log(300))
    with pytest.raises(CannotFit, match="too little data for opus: "):
        fit(unasked, tmp_path)


def test_a_better_target_never_takes_mistakes_more_lightly(policy: Served) -> None:
    costs = policy.model.quality_costs_usd
    assert set(costs) == {"95", "97", "98", "99", "100"}
    ordered = [costs[name] for name in sorted(costs, key=float)]
    assert ordered == sorted(ordered)
    shown = LEARNER.thresholds(policy)
    assert [usd for name, usd in shown.items() if name.startswith("cost of a mistake")] == ordered


def test_what_was_measured_for_the_chain_rule_is_shown_and_read_back(policy: Served, directory: Path) -> None:
    model, read = policy.model, load_model(directory)
    assert set(model.caught) == {"hard", "mixed"}, "nobody looked into 20 accepted replies to easy ones"
    assert all(0.3 < share < 1.0 for share in model.caught.values())
    assert (read.caught, read.tied) == (model.caught, model.tied)
    shown = LEARNER.thresholds(policy)
    assert shown["share of bad replies that is noticed in hard"] == model.caught["hard"]
    assert shown["odds ratio of the next tier, after a bad reply"] == model.tied.unread


def test_without_evidence_the_chain_rule_stays_as_it_is(tmp_path: Path) -> None:
    untold = fit(read_dataset(World(feedback=0.0, caught=0.9, explore=0.5, start="sonnet").log(600, seed=3)), tmp_path)
    assert untold.model.caught == {}
    assert untold.model.caught_in("hard") == cascade.CAUGHT


def test_easy_requests_start_lower_than_hard_ones(policy: Served) -> None:
    def mean_rung(workload: str) -> float:
        rows = [row for row in DATA.rows if row.workload == workload]
        return float(np.mean([TIERS.index(policy.plan(row).tiers[0]) for row in rows]))

    assert mean_rung("easy") < mean_rung("hard")


def test_what_is_read_back_decides_alike(policy: Served, directory: Path) -> None:
    again = LEARNER.load(directory, DATA)
    assert again is not None
    for row in DATA.rows[:50]:
        assert again.plan(row) == policy.plan(row)
        assert again.probabilities(row) == policy.probabilities(row)
    assert load_model(directory).version == "v1"


def test_after_a_reply_it_decides_by_what_it_saw(policy: Served) -> None:
    said: dict[bool, list[bool]] = {True: [], False: []}
    for row in DATA.rows:
        if row.start == "haiku" and row.steps[0].tier == "haiku":
            step = policy.after(row, policy.plan(row), row.steps[:1])
            said[row.labels["haiku"].good].append(isinstance(step, cascade.Keep))
    assert np.mean(said[True]) > np.mean(said[False]) + 0.3


def test_a_reply_whose_features_are_lost_is_kept(policy: Served) -> None:
    row = DATA.rows[0]
    lost = replace(row.steps[0], reply_features=None)
    assert policy.after(row, policy.plan(row), [lost]) == cascade.Keep(lost.tier, 0.0)


def test_a_changed_model_is_no_champion_any_more(policy: Served, directory: Path, tmp_path: Path) -> None:
    for name in ("manifest.json", "weights.npz"):
        (tmp_path / name).write_bytes((directory / name).read_bytes())
    (tmp_path / "weights.npz").write_bytes(b"PK" + (directory / "weights.npz").read_bytes()[2:-1])
    assert LEARNER.load(tmp_path, DATA) is None


def test_only_models_have_thresholds() -> None:
    assert LEARNER.thresholds(Constant("opus")) == {}
