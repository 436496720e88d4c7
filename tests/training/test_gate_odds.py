"""How often the gate errs, over seeded days of the demo's size whose truth is known."""

from __future__ import annotations

import pytest

from tests.support.nights import CAREFUL, CHEAP, DIFFICULTY, MIDDLE, ByWorkload, World
from training.dataset import Dataset, read_dataset
from training.evaluate import evaluate
from training.follow import Plan
from training.gate import Passed, judge
from training.results import Data

DAYS, REQUESTS = 10, 1_600
# The checks miss a fifth of the bad replies, and half of the callers say what they got.
WORLD = World(explore=0.1, start="sonnet", caught=0.8, feedback=0.5)
UPSIDE_DOWN = ByWorkload(
    {
        "easy": Plan("chain", ("opus",)),
        "mixed": Plan("chain", ("haiku", "sonnet", "opus")),
        "hard": Plan("only", ("haiku",)),
    }
)
SAME = ByWorkload({workload: Plan("chain", ("sonnet", "opus")) for workload in DIFFICULTY})


@pytest.fixture(scope="module")
def days() -> list[Dataset]:
    return [read_dataset(WORLD.log(REQUESTS, seed=seed)) for seed in range(DAYS)]


def published(days: list[Dataset], challenger: ByWorkload, champion: ByWorkload | None = None) -> int:
    return sum(_passes(day, challenger, champion, seed) for seed, day in enumerate(days))


def _passes(day: Dataset, challenger: ByWorkload, champion: ByWorkload | None, seed: int) -> bool:
    held_in, held_out = day.split(0.3)
    data = Data(
        requests=len(day.rows),
        labelled=day.labelled,
        held_in=len(held_in.rows),
        held_in_labelled=held_in.labelled,
        held_out=len(held_out.rows),
        first_request_s=0.0,
        last_request_s=1.0,
        labels=day.label_counts(),
        good_share={},
        skipped={},
        simulated=True,
        fingerprint="",
    )
    evaluation = evaluate(challenger, champion, held_in, held_out, seed=seed)
    return isinstance(judge(evaluation, data, target=0.95), Passed)


def test_a_good_challenger_is_published(days: list[Dataset]) -> None:
    assert published(days, MIDDLE) >= 0.9 * DAYS


@pytest.mark.parametrize("bad", [CHEAP, UPSIDE_DOWN])
def test_a_bad_challenger_is_refused(days: list[Dataset], bad: ByWorkload) -> None:
    assert published(days, bad) <= 0.05 * DAYS


def test_an_equal_challenger_hardly_ever_replaces_what_serves(days: list[Dataset]) -> None:
    assert published(days, SAME) <= 0.1 * DAYS
    assert published(days, SAME, champion=CAREFUL) == 0
