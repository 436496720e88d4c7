"""The serving model certified anew: another version of the same weights, published and taken back like any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router.alarms import Alarm, Stream
from tests.support.certificates import certificate, certified, infeasible
from tests.support.nights import START_S, FixedLearner, Log, World
from training.nightly import NightSettings, run_night
from training.recertify import Recertified, recertify, too_old
from training.registry import Registry
from training.results import NIGHT_FILE, load_night

NOW_S = START_S + 86_400.0
RECORDS = World(feedback=1.0, caught=1.0, start="sonnet").log(1500, seed=5)
FIRST = {"easy": certificate(haiku=certified(0.8))}
SECOND = {"easy": certificate(haiku=infeasible())}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """After a first night that certified FIRST."""
    made = Registry(tmp_path)
    done = run_night(Log(RECORDS), made, FixedLearner(certificates=FIRST), NightSettings(seed=3), now_s=NOW_S)
    assert (done.result, done.certificates) == ("published", FIRST)
    return made


def certify(registry: Registry, learner: FixedLearner) -> Recertified:
    return recertify(Log(RECORDS), registry, learner, now_s=NOW_S)


def test_another_finding_is_published_as_a_version_of_the_same_model(registry: Registry) -> None:
    first = registry.current()
    done = certify(registry, FixedLearner(certificates=SECOND))
    assert (done.result, done.previous, done.certificates) == ("published", first, SECOND)
    assert registry.current() == done.version
    assert done.version.startswith(f"{first}.c")
    [before, after] = registry.versions()
    assert (after.version, after.champion, after.metrics) == (done.version, first, before.metrics)
    saved = load_night(registry.path(done.version) / NIGHT_FILE)
    assert (saved.version, saved.certificates) == (done.version, SECOND)
    assert registry.rollback(now_s=NOW_S) == (done.version, first)


def test_the_same_finding_changes_nothing(registry: Registry) -> None:
    before = registry.current()
    assert certify(registry, FixedLearner(certificates=FIRST)).result == "unchanged"
    assert registry.current() == before


def test_what_is_certified_twice_keeps_one_name(registry: Registry) -> None:
    first = registry.current()
    second = certify(registry, FixedLearner(certificates=SECOND)).version
    third = certify(registry, FixedLearner(certificates=FIRST)).version
    assert {second.partition(".c")[0], third.partition(".c")[0]} == {first}
    assert len({first, second, third}) == 3


def test_without_a_model_or_a_promise_there_is_nothing_to_certify(tmp_path: Path) -> None:
    assert certify(Registry(tmp_path), FixedLearner()).result == "no_model"
    made = Registry(tmp_path)
    run_night(Log(RECORDS), made, FixedLearner(), NightSettings(seed=3), now_s=NOW_S)
    assert certify(made, FixedLearner()).result == "no_promise"


def test_a_refused_night_certifies_the_champion_anew(registry: Registry) -> None:
    first = registry.current()
    changed = [replace(RECORDS[0], feedback=None), *RECORDS[1:]]
    night = run_night(Log(changed), registry, FixedLearner(certificates=SECOND), NightSettings(seed=3), now_s=NOW_S)
    assert (night.result, night.certificates) == ("refused", SECOND)
    assert night.recertified == registry.current()
    assert str(night.recertified).startswith(f"{first}.c")


def test_evidence_begins_after_the_last_alarm_raised_or_cleared() -> None:
    raised = Alarm("easy", "haiku", Stream.CHECKS, 50.0, "r", "v1")
    other = replace(raised, workload="hard", at_s=70.0)
    assert too_old([raised, replace(raised, at_s=90.0, cleared=True), other]) == {
        ("easy", "haiku"): 90.0,
        ("hard", "haiku"): 70.0,
    }


def test_the_learner_hears_of_alarms(registry: Registry) -> None:
    heard: list[object] = []

    class Listening(FixedLearner):
        def certify(self, *arguments, since_s, **more):  # type: ignore[no-untyped-def]
            heard.append(dict(since_s))
            return FixedLearner.certify(self, *arguments, since_s=since_s, **more)

    log = Log(RECORDS, [Alarm("easy", "haiku", Stream.TRUTH, NOW_S - 60.0, "r", "v1")])
    recertify(log, registry, Listening(certificates=FIRST), now_s=NOW_S)
    assert heard == [{("easy", "haiku"): NOW_S - 60.0}]
