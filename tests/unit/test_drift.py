"""What raises an alarm, what it suspends, and what ends it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fallback.types import Accept, CheckReport, Purpose, Reject, Remedy, Verdict
from router.alarms import Alarm, Stream
from router.certificate import Certificate
from router.drift import Drift
from router.outcome import Decision, Mode, Outcome
from router.scoring import RouterModel
from router.sequential import DriftSettings
from tests.support import outcomes as make
from tests.support.certificates import certificate, certified, infeasible, not_certified
from tests.support.small_models import small_model

PROMISED: dict[str, Certificate] = {"triage": certificate(haiku=certified(0.7))}
MODEL = replace(small_model("v1"), certificates=PROMISED)


class Watch:
    """A Drift, what it told, and requests to show it."""

    def __init__(self, model: RouterModel = MODEL, seed: int = 0, **settings: float) -> None:
        self.told: list[Alarm] = []
        self.drift = Drift(DriftSettings(**settings), self.told.append, max_workloads=2)
        self.drift.use(model)
        self.rng = np.random.default_rng(seed)
        self.n = 0

    def show(
        self,
        *,
        workload: str = "triage",
        believed: float = 0.9,
        verdict: Verdict | None = None,
        score: float | None = 0.9,
        model_id: str = "claude-haiku",
        version: str = "v1",
        tier: str = "haiku",
    ) -> Outcome:
        self.n += 1
        made = outcome(self.n, workload, tier, believed, verdict or Accept(), score, model_id, version)
        self.drift.observe(made)
        return made

    def reject(self, times: int, rate: float, **how: float) -> None:
        for _ in range(times):
            bad = self.rng.random() < rate
            self.show(verdict=Reject("wrong") if bad else Accept(), **how)  # type: ignore[arg-type]

    def judge(self, times: int, rate: float, **how: float) -> None:
        for _ in range(times):
            made = self.show(**how)  # type: ignore[arg-type]
            self.drift.judged(made.request_id, good=bool(self.rng.random() >= rate), at_s=made.received_at_s)

    def suspended(self, *, promised: bool = True, workload: str = "triage") -> set[str]:
        return set(self.drift.suspended(workload, promised=promised))


def outcome(
    n: int,
    workload: str,
    tier: str,
    believed: float,
    verdict: Verdict,
    score: float | None,
    model_id: str,
    version: str,
) -> Outcome:
    checks = [CheckReport("verifier", "1", verdict)]
    passed = isinstance(verdict, Accept)
    if passed and score is not None:
        checks.append(CheckReport("scorer", version, Accept(), score))
    result = replace(make.reply(tier), model=model_id)
    attempts = [replace(make.attempt(tier, result=result), checks=tuple(checks))]
    if not passed:
        attempts.append(make.attempt("opus", purpose=Purpose.ESCALATION))
    probabilities = {"haiku": believed, "sonnet": believed, "opus": 0.95}
    decision = Decision(Mode.CHAIN, make.TIERS[make.TIERS.index(tier) :], "r", probabilities, model_version=version)
    made = make.outcome(n, workload=workload, attempts=attempts, received_at_s=1_000.0 + n)
    return replace(made, decision=decision)


# --- raised ----------------------------------------------------------------------------------


def test_more_rejections_than_the_model_believes_alarm_once_and_suspend_the_tier() -> None:
    watch = Watch()
    watch.reject(1_000, 0.1)
    assert watch.told == []
    watch.reject(300, 0.35)
    [alarm] = watch.told
    assert (alarm.workload, alarm.tier, alarm.stream, alarm.cleared) == ("triage", "haiku", Stream.CHECKS, False)
    assert 2_000.0 < alarm.at_s < 2_200.0
    assert watch.suspended() == watch.suspended(promised=False) == {"haiku"}
    words = watch.drift.suspended("triage", promised=True)["haiku"]
    assert words.startswith("checks reject replies more often than the model believes (")
    assert watch.suspended(workload="other") == set()


def test_harder_requests_are_no_drift() -> None:
    watch = Watch()
    watch.reject(500, 0.1)
    watch.reject(2_000, 0.5, believed=0.5, score=0.5)
    assert watch.told == []


def test_bad_judgements_of_accepted_replies_alarm() -> None:
    watch = Watch()
    watch.judge(500, 0.1)
    assert watch.told == []
    watch.judge(300, 0.35)
    assert [alarm.stream for alarm in watch.told] == [Stream.TRUTH]


def test_a_scorer_that_begins_to_doubt_suspends_only_where_something_is_promised() -> None:
    watch = Watch()
    for _ in range(500):
        watch.show(score=0.9)
    for _ in range(300):
        watch.show(score=0.6)
    assert [alarm.stream for alarm in watch.told] == [Stream.DOUBT]
    assert watch.suspended(promised=True) == {"haiku"}
    assert watch.suspended(promised=False) == set()


def test_what_the_model_was_off_by_when_it_was_new_is_no_drift() -> None:
    off = replace(MODEL, expected={"triage": {"haiku": {"checks": 3.0}}})
    watch, naive = Watch(off), Watch()
    for each in (watch, naive):
        each.reject(500, 0.3)
    assert watch.told == []
    assert [alarm.stream for alarm in naive.told] == [Stream.CHECKS]


def test_another_model_id_in_the_replies_suspends_what_is_certified_of_that_tier() -> None:
    watch = Watch()
    watch.show()
    watch.show(workload="free")
    watch.show(model_id="claude-haiku-20270101")
    [alarm] = watch.told
    assert (alarm.workload, alarm.tier, alarm.stream) == ("triage", "haiku", Stream.MODEL)
    assert watch.suspended() == {"haiku"}
    assert watch.suspended(promised=False) == set()
    watch.show(model_id="claude-haiku-20270101")
    assert len(watch.told) == 1


def test_a_truncated_or_unjudged_reply_says_nothing_of_quality() -> None:
    watch = Watch()
    for _ in range(2_000):
        watch.show(verdict=Reject("truncated", Remedy.RAISE_LIMIT))
    assert watch.told == []


def test_outcomes_of_another_model_version_say_nothing() -> None:
    watch = Watch()
    for _ in range(500):
        made = watch.show(verdict=Reject("wrong"), version="v0")
        watch.drift.judged(made.request_id, good=False, at_s=0.0)
    assert watch.told == []


def test_a_judgement_counts_once_and_only_of_a_reply_that_was_seen() -> None:
    watch = Watch()
    for _ in range(500):
        watch.drift.judged("nobody", good=False, at_s=0.0)
    made = watch.show()
    for _ in range(500):
        watch.drift.judged(made.request_id, good=False, at_s=0.0)
    assert watch.told == []


# --- ended -----------------------------------------------------------------------------------


def alarmed() -> Watch:
    watch = Watch()
    watch.reject(300, 0.6)
    assert watch.suspended() == {"haiku"}
    return watch


def test_newer_evidence_that_the_tier_is_good_again_clears_the_alarm() -> None:
    watch = alarmed()
    watch.reject(100, 0.6)
    assert watch.suspended() == {"haiku"}
    watch.reject(500, 0.05)
    assert watch.suspended() == set()
    assert [alarm.cleared for alarm in watch.told] == [False, True]
    watch.reject(300, 0.6)
    assert watch.suspended() == {"haiku"}


@pytest.mark.parametrize(
    ("tier", "ended"),
    [
        (replace(certified(0.8), since_s=5_000.0), True),
        (replace(infeasible(), since_s=5_000.0), True),  # the certificate itself bars it
        (replace(certified(0.8), since_s=1_001.0), False),  # its evidence is from before
        (replace(not_certified(3, 86), since_s=5_000.0), False),
    ],
)
def test_a_certificate_made_of_newer_outcomes_ends_it(tier: object, *, ended: bool) -> None:
    watch = alarmed()
    watch.drift.use(replace(MODEL, version="v2", certificates={"triage": certificate(haiku=tier)}))  # type: ignore[arg-type]
    assert watch.suspended() == (set() if ended else {"haiku"})
    assert watch.told[-1].cleared is ended


def test_certifying_the_same_weights_anew_forgets_nothing() -> None:
    watch = Watch()
    for n in range(60):
        watch.drift.use(replace(MODEL, version=f"v1.c{n}"))
        watch.reject(5, 0.35, version=f"v1.c{n}")  # type: ignore[arg-type]
    assert watch.suspended() == {"haiku"}


def test_where_nothing_is_promised_a_model_that_learned_from_it_ends_it() -> None:
    for until, ended in ((make.request_id(1), False), (make.request_id(10_000), True)):
        watch = Watch(replace(MODEL, certificates={}))
        watch.reject(300, 0.6)
        watch.drift.use(replace(MODEL, version="v2", certificates={}, fitted_until=until))
        assert watch.suspended() == (set() if ended else {"haiku"})


def test_a_changed_model_id_is_cleared_by_truth_alone() -> None:
    watch = Watch()
    watch.show()
    watch.show(model_id="newer")
    watch.reject(500, 0.02, model_id="newer")  # type: ignore[arg-type]
    assert watch.suspended() == {"haiku"}
    watch.judge(500, 0.05, model_id="newer")  # type: ignore[arg-type]
    assert watch.suspended() == set()
    assert (watch.told[-1].stream, watch.told[-1].cleared) == (Stream.MODEL, True)


def test_a_restart_begins_with_the_alarms_that_stood() -> None:
    watch, before = Watch(), alarmed().drift.alarms()
    watch.drift.restore(before)
    assert watch.drift.alarms() == before
    assert watch.suspended() == {"haiku"}
    assert watch.told == []
    watch.reject(500, 0.05)
    assert watch.suspended() == set()


def test_what_one_replica_raises_and_clears_holds_at_the_others() -> None:
    first, other = alarmed(), Watch()
    assert other.drift.hear(first.told) == first.told
    assert other.drift.hear(first.told) == []
    assert (other.suspended(), other.told) == ({"haiku"}, [])
    first.reject(500, 0.05)
    assert first.told[-1].cleared
    assert other.drift.hear(first.told) == [first.told[-1]]
    assert (other.suspended(), other.told) == (set(), [])
    assert first.drift.hear(first.told) == []  # its own words are no news


def test_a_replica_that_follows_can_itself_find_the_tier_good_again() -> None:
    first, other = alarmed(), Watch()
    other.drift.hear(first.told)
    other.reject(500, 0.05)
    assert other.told[-1].cleared
    assert first.drift.hear([*first.told, *other.told]) == [other.told[-1]]
    assert first.suspended() == set()


def test_an_earlier_word_that_all_is_well_does_not_clear_a_later_alarm() -> None:
    first = alarmed()
    [raised] = first.told
    earlier = replace(raised, at_s=raised.at_s - 1.0, cleared=True)
    assert first.drift.hear([raised, earlier]) == []
    assert first.suspended() == {"haiku"}


def test_only_so_many_workloads_are_watched() -> None:
    watch = alarmed()
    for workload in ("a", "b", "c"):
        watch.show(workload=workload)
    assert watch.suspended() == set()
    assert watch.drift.alarms() == []


def test_nothing_is_watched_without_a_model() -> None:
    watch = Watch()
    watch.drift.use(None)
    watch.reject(500, 0.9)
    assert watch.told == []
