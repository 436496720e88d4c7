from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.store import Recorded, StoreError
from tests.support.nights import START_S, FixedLearner, Log, World
from training.dataset import Dataset
from training.nightly import CannotFit, NightSettings, run_night
from training.registry import LockHeld, Registry
from training.results import NIGHT_FILE, Night, load_night

REPOSITORY = Path(__file__).parents[2]
NOW_S = START_S + 86_400.0
RECORDS = World(feedback=1.0, caught=1.0, start="sonnet").log(2000, seed=5)


def night(root: Path, records: list[Recorded] = RECORDS, learner: FixedLearner | None = None, **settings: int) -> Night:
    return run_night(
        Log(records), Registry(root), learner or FixedLearner(), NightSettings(seed=3, **settings), now_s=NOW_S
    )


def test_a_good_model_is_published_with_its_story(tmp_path: Path) -> None:
    done = night(tmp_path)
    registry = Registry(tmp_path)
    assert (done.result, done.version, done.champion) == ("published", registry.current(), "")
    assert (done.data.requests, done.data.held_in, done.data.held_out) == (2000, 1400, 600)
    [entry] = registry.versions()
    assert entry.fingerprint == done.data.fingerprint
    assert done.evaluation is not None
    challenger = done.evaluation.of("challenger")[0]
    assert entry.metrics == {"quality": challenger.quality.value, "cost_usd": challenger.cost_usd.value}
    assert load_night(registry.path(done.version) / NIGHT_FILE) == done
    assert load_night(tmp_path / "last_night.json") == done


def test_the_same_outcomes_do_not_make_a_second_version(tmp_path: Path) -> None:
    learner = FixedLearner()
    first, second = night(tmp_path, learner=learner), night(tmp_path, learner=learner)
    assert (first.result, second.result, learner.fits) == ("published", "nothing_to_do", 1)
    assert second.reasons == (f"{first.version} was already trained from these outcomes, and it serves",)
    assert [entry.version for entry in Registry(tmp_path).versions()] == [first.version]
    assert second.evaluation == first.evaluation


def test_new_outcomes_or_new_feedback_make_a_new_night(tmp_path: Path) -> None:
    learner = FixedLearner()
    first = night(tmp_path, learner=learner)
    changed = [replace(RECORDS[0], feedback=None), *RECORDS[1:]]
    second = night(tmp_path, changed, learner)
    [reason] = second.reasons
    assert (reason.partition(":")[0], learner.fits) == ("not better than the champion", 2)
    assert second.version != first.version


def test_a_model_that_was_rolled_back_is_not_published_again_from_the_same_outcomes(tmp_path: Path) -> None:
    first = night(tmp_path, RECORDS[:1900], FixedLearner("careful"))
    second = night(tmp_path, RECORDS, FixedLearner("good"))
    assert second.champion == first.version
    Registry(tmp_path).rollback(now_s=NOW_S)
    third = night(tmp_path, RECORDS, FixedLearner("good"))
    assert third.result == "nothing_to_do"
    assert third.reasons[0].endswith(f"{first.version} serves instead of it")
    assert Registry(tmp_path).current() == first.version


def test_the_gate_keeps_a_bad_model_out_and_the_story_is_kept(tmp_path: Path) -> None:
    good = night(tmp_path)
    refused = night(tmp_path, RECORDS[:1990], FixedLearner("cheap"))
    assert refused.result == "refused"
    assert any("misses the target" in reason for reason in refused.reasons)
    assert any("worse than the champion" in reason for reason in refused.reasons)
    assert Registry(tmp_path).current() == good.version
    assert [entry.version for entry in Registry(tmp_path).versions()] == [good.version]
    assert load_night(tmp_path / "last_night.json") == refused


@pytest.mark.parametrize("n", [0, 1, 50, 600])
def test_too_little_data_is_refused_before_anything_is_fitted(tmp_path: Path, n: int) -> None:
    learner = FixedLearner()
    refused = night(tmp_path, RECORDS[:n], learner)
    assert (refused.result, learner.fits) == ("refused", 0)
    assert "too little data" in refused.reasons[0]
    assert Registry(tmp_path).current() is None


def test_one_class_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    good = [one for one in World(feedback=0.0).log(3000) if one.outcome.accepted and len(one.outcome.attempts) == 1]
    learner = FixedLearner()
    refused = night(tmp_path, good, learner)
    assert (learner.fits, refused.reasons) == (
        0,
        ("one class: every label is good, so there is nothing to tell apart",),
    )


def test_data_that_make_no_model_are_refused_with_the_reason(tmp_path: Path) -> None:
    def unable() -> None:
        raise CannotFit("too little data for opus: 40 good and 0 bad examples")

    refused = night(tmp_path, learner=FixedLearner(during=unable))
    assert (refused.result, refused.reasons, refused.evaluation) == (
        "refused",
        ("too little data for opus: 40 good and 0 bad examples",),
        None,
    )


def test_only_the_window_is_read(tmp_path: Path) -> None:
    old = [replace(one, outcome=replace(one.outcome, received_at_s=NOW_S - 9 * 86_400)) for one in RECORDS[:500]]
    assert night(tmp_path, [*old, *RECORDS[500:]], window_days=2).data.requests == 1500


def test_a_second_night_stops_at_the_lock_and_leaves_the_first_alone(tmp_path: Path) -> None:
    def interfere() -> None:
        with pytest.raises(LockHeld):
            night(tmp_path)

    assert night(tmp_path, learner=FixedLearner(during=interfere)).result == "published"


def test_a_rollback_during_the_night_wins(tmp_path: Path) -> None:
    versions = [
        night(tmp_path, RECORDS[:n], FixedLearner(name)).version for n, name in ((1800, "careful"), (1900, "middle"))
    ]
    registry = Registry(tmp_path)
    during = FixedLearner("good", during=lambda: registry.rollback(now_s=NOW_S) and None)
    refused = night(tmp_path, RECORDS, during)
    assert (refused.result, refused.reasons) == (
        "refused",
        (f"current is {versions[0]}, not {versions[1]}: the model was not judged against it",),
    )
    assert registry.current() == versions[0]


def test_a_night_that_breaks_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken() -> None:
        raise RuntimeError("numbers fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        night(tmp_path, learner=FixedLearner(during=broken))
    assert Registry(tmp_path).current() is None
    assert night(tmp_path).result == "published"


def test_a_champion_that_cannot_be_loaded_is_replaced_by_what_was_served(tmp_path: Path) -> None:
    class Forgetful(FixedLearner):
        def load(self, directory: Path, data: Dataset) -> None:
            return None

    first = night(tmp_path, RECORDS[:1900], FixedLearner("careful"))
    second = night(tmp_path, RECORDS, Forgetful())
    assert second.result == "published"
    assert second.evaluation is not None
    assert second.evaluation.of("champion") == []
    assert second.evaluation.notes == (
        f"the champion {first.version} cannot be loaded any more: compared with what was served instead",
    )


def test_a_store_that_fails_ends_the_night(tmp_path: Path) -> None:
    class Broken(Log):
        def read(self, *, since_s: float = 0.0, until_s: float = 0.0) -> Iterator[Recorded]:
            yield self.records[0]
            raise StoreError("read", "locked")

    with pytest.raises(StoreError):
        run_night(Broken(RECORDS), Registry(tmp_path), FixedLearner(), NightSettings(), now_s=NOW_S)
    assert Registry(tmp_path).current() is None


def test_killed_as_any_step_begins_current_is_the_old_version_or_the_new_one() -> None:
    driver = [sys.executable, "-m", "tests.training.night_kills"]
    done = subprocess.run(driver, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    steps = done.stdout.splitlines()
    assert {"read outcomes", "fit", "gate", "publish", "switch: rename", "switch: done", "report"} <= set(steps)
