"""What every store must do. Another store is one line in STORES."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event

from fallback.errors import Overloaded
from fallback.types import Purpose, Reject
from router.alarms import Alarm, Stream, standing_alarms
from router.outcome import Audit, AuditMethod, AuditVerdict, Feedback, Mode, Outcome, RetainedText
from router.store import FeedbackStatus, Store, StoreError, Unstorable, retained, sql
from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.support import postgres

Open = Callable[[], Store]  # each call opens the same place again


class OnPostgres:
    """One database for all tests of this process; a folder that was not seen before finds it empty."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._url = ""
        self._folder: Path | None = None

    def __call__(self, folder: Path) -> Store:
        if not postgres.dsn():
            pytest.skip(f"no PostgreSQL: make test-postgres, or {postgres.VARIABLE}")
        if not self._url:
            self._url = self._stack.enter_context(postgres.database(f"tierwise_test_{os.getpid()}"))
            atexit.register(self._stack.close)
        store = SqlStore(self._url)
        if folder != self._folder:
            self._folder = folder
            with store._writes.begin() as connection:
                connection.exec_driver_sql("TRUNCATE outcome, alarm CASCADE")
        return store


STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqlStore(f"sqlite:///{folder}/outcomes.db"),
    "postgresql": OnPostgres(),
}
EVERY_STORE = pytest.mark.parametrize("kind", STORES)


@pytest.fixture(params=STORES)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    opened: list[Store] = []

    def open_again() -> Store:
        opened.append(STORES[request.param](tmp_path))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(reopen: Open) -> Store:
    return reopen()


def stored(store: Store, **bounds: float) -> list[Outcome]:
    return [make.comparable(recorded.outcome) for recorded in store.read(**bounds)]


# --- writing and reading ---------------------------------------------------------------------


@EVERY_STORE
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.lists(make.outcomes(), max_size=4, unique_by=lambda outcome: outcome.request_id))
def test_what_is_written_is_read(kind: str, tmp_path_factory: pytest.TempPathFactory, batch: list[Outcome]) -> None:
    store = STORES[kind](tmp_path_factory.mktemp("store"))
    try:
        store.write(batch)
        expected = sorted((make.comparable(one) for one in batch), key=lambda one: one.request_id)
        assert stored(store) == expected
        assert store.corrupt_rows == 0
    finally:
        store.close()


def test_reply_content_is_not_kept(store: Store) -> None:
    store.write([make.outcome(attempts=[make.attempt(result=make.reply(text="secret"))])])
    (recorded,) = store.read()
    assert "secret" not in str(recorded) + repr(recorded.outcome.attempts[0].result.content)  # type: ignore[union-attr]


def test_an_id_seen_before_is_left_as_it_was(store: Store) -> None:
    first = make.outcome(1, workload="first", attempts=[make.attempt()])
    second = make.outcome(1, workload="second", attempts=make.escalated_attempts(), retained=RetainedText("{}", "{}"))
    store.write([first])
    store.write([second, make.outcome(2), second])
    assert [one.workload for one in stored(store)] == ["first", "triage"]
    assert next(store.read()).outcome.retained is None
    assert store.stats()[0].attempt_cost_usd == {"haiku": 0.001}


def test_a_batch_that_names_an_id_twice_keeps_the_first(store: Store) -> None:
    store.write([make.outcome(1, workload="a"), make.outcome(1, workload="b")])
    assert [one.workload for one in stored(store)] == ["a"]


@pytest.mark.parametrize("known", [1, 64])
def test_known_ids_cost_a_group_a_few_statements_more_not_one_each(store: Store, known: int) -> None:
    group = [make.outcome(n, attempts=[make.attempt()]) for n in range(1, 65)]
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        store.write(group[:known])
        alone = len(statements)
        store.write(group)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert alone == 2  # outcomes and their replies' costs
    assert len(statements) - alone == (1 + 1 + 2 if known < 64 else 1 + 1)
    assert [int(one.request_id, 16) for one in stored(store)] == list(range(1, 65))


def test_nothing_is_written_of_a_batch_that_cannot_be(store: Store) -> None:
    with pytest.raises(Unstorable):
        store.write([make.outcome(1), replace(make.outcome(2), cost_usd=float("nan"))])
    with pytest.raises(Unstorable):
        store.write([make.outcome(1), make.outcome(2, workload="lone surrogate \ud800")])
    assert stored(store) == []
    store.write([])
    store.write([make.outcome(1)])
    assert len(stored(store)) == 1


def test_another_opening_sees_what_was_committed(reopen: Open) -> None:
    first, second = reopen(), reopen()
    first.write([make.outcome(1)])
    assert len(stored(second)) == 1
    first.close()
    second.write([make.outcome(2)])
    assert len(stored(reopen())) == 2


def test_reading_is_by_id_in_bounded_chunks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "READ_CHUNK", 7)
    order = [n * 37 % 50 for n in range(50)]
    store.write([make.outcome(n + 1, received_at_s=1000.0 - n) for n in order])
    reader = store.read()
    first = next(reader)
    store.write([make.outcome(99)])  # a reader half-way holds nothing: the store can be written and read
    assert [r.outcome.request_id for r in [first, *reader]] == [make.request_id(n) for n in [*range(1, 51), 99]]


def test_reading_is_bounded_in_time_of_receipt(store: Store) -> None:
    store.write([make.outcome(n, received_at_s=float(n)) for n in range(1, 6)])
    assert [one.received_at_s for one in stored(store, since_s=2.0, until_s=4.0)] == [2.0, 3.0]


def test_writers_in_several_threads_lose_nothing(reopen: Open) -> None:
    stores = [reopen(), reopen()]
    problems: list[Exception] = []

    def write(worker: int) -> None:
        try:
            for n in range(25):
                one = worker * 100 + n + 1
                stores[worker % 2].write([make.outcome(one)])
                stores[worker % 2].report(Feedback(make.request_id(one), good=True), window_s=1e9)
        except StoreError as error:
            problems.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert sum(recorded.feedback is not None for recorded in stores[0].read()) == 100


# --- feedback --------------------------------------------------------------------------------


def judgement(n: int = 1, *, good: bool = False, at_s: float = 1_000_100.0) -> Feedback:
    return Feedback(make.request_id(n), good=good, sufficient_tier="opus", score=0.25, reason="r", reported_at_s=at_s)


def test_feedback_is_recorded_then_replaced(store: Store) -> None:
    store.write([make.outcome(1)])
    assert store.report(judgement(good=False), window_s=200.0) is FeedbackStatus.RECORDED
    assert store.report(judgement(good=False), window_s=200.0) is FeedbackStatus.REPEATED
    assert store.report(judgement(good=True), window_s=200.0) is FeedbackStatus.REPEATED
    (recorded,) = store.read()
    assert recorded.feedback == judgement(good=True)


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (judgement(2), FeedbackStatus.UNKNOWN),
        (judgement(1, at_s=1_000_000.0 + 200.5), FeedbackStatus.EXPIRED),
        (judgement(3), FeedbackStatus.NO_REPLY),
        (Feedback("' OR 1=1 --\x00", good=True), FeedbackStatus.UNKNOWN),
    ],
)
def test_feedback_that_cannot_count_changes_nothing(store: Store, report: Feedback, status: FeedbackStatus) -> None:
    store.write([make.outcome(1), make.outcome(3, attempts=[make.attempt(result=Overloaded())])])
    assert store.report(report, window_s=200.0) is status
    assert all(recorded.feedback is None for recorded in store.read())


def test_feedback_that_cannot_be_stored_says_so(store: Store) -> None:
    store.write([make.outcome(1)])
    with pytest.raises(Unstorable):
        store.report(replace(judgement(), score=float("nan")), window_s=1e9)


# --- audits ----------------------------------------------------------------------------------


@EVERY_STORE
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=st.lists(make.audits, max_size=4, unique_by=lambda one: (one.request_id, one.tier)))
def test_audits_are_read_as_they_were_written(
    kind: str, tmp_path_factory: pytest.TempPathFactory, made: list[Audit]
) -> None:
    store = STORES[kind](tmp_path_factory.mktemp("store"))
    try:
        ids = {one.request_id for one in made}
        store.write([replace(make.outcome(1), request_id=one) for one in ids])
        store.write_audits(made)
        found = [one for recorded in store.read() for one in recorded.audits]
        assert found == sorted(made, key=lambda one: (one.request_id, one.tier))
        assert store.corrupt_rows == 0
    finally:
        store.close()


def test_alarms_are_read_in_the_order_in_which_they_happened(store: Store) -> None:
    raised = Alarm("triage", "haiku", Stream.CHECKS, 10.0, make.request_id(3), "v1", 80, 31.0, 12.5)
    other = Alarm("triage", "sonnet", Stream.MODEL, 5.0, make.request_id(1), "v1")
    cleared = replace(raised, at_s=20.0, request_id=make.request_id(9), cleared=True)
    store.write_alarms([cleared, raised])
    store.write_alarms([other, raised])
    store.write_alarms([])
    assert store.alarms() == [other, raised, cleared]
    assert standing_alarms(store.alarms()) == [other]
    assert store.alarms(since_s=15.0) == [cleared]


def test_nothing_is_written_of_alarms_of_which_one_cannot_be(store: Store) -> None:
    good = Alarm("triage", "haiku", Stream.CHECKS, 10.0, make.request_id(3), "v1")
    with pytest.raises(Unstorable):
        store.write_alarms([good, replace(good, at_s=float("nan"))])
    assert store.alarms() == []


def test_an_audit_and_feedback_stand_side_by_side(store: Store) -> None:
    store.write([make.outcome(1)])
    store.write_audits([make.audit(1)])
    assert store.report(judgement(1), window_s=1e9) is FeedbackStatus.RECORDED
    store.write_audits([make.audit(1, tier="sonnet", accepted=False)])
    assert store.report(judgement(1, good=True), window_s=1e9) is FeedbackStatus.REPEATED
    [recorded] = store.read()
    assert recorded.feedback == judgement(1, good=True)
    assert [one.tier for one in recorded.audits] == ["haiku", "sonnet"]


def test_the_first_audit_of_a_reply_stands(store: Store) -> None:
    store.write([make.outcome(1)])
    store.write_audits([make.audit(1, verdict=AuditVerdict.BAD)])
    store.write_audits([make.audit(1, cost_usd=9.0), make.audit(1, tier="opus")])
    store.write_audits([])
    [recorded] = store.read()
    assert recorded.audits == (make.audit(1, verdict=AuditVerdict.BAD), make.audit(1, tier="opus"))


@pytest.mark.parametrize("bad", [make.audit(2), make.audit(1, propensity=0.0), make.audit(1, cost_usd=float("nan"))])
def test_nothing_is_written_of_audits_of_which_one_cannot_be(store: Store, bad: Audit) -> None:
    store.write([make.outcome(1)])
    with pytest.raises(Unstorable):
        store.write_audits([make.audit(1, tier="opus"), bad])
    assert [one.audits for one in store.read()] == [()]


def test_the_spend_of_audits_is_by_workload_and_by_when_they_were_made(store: Store) -> None:
    store.write([make.outcome(n) for n in (1, 2, 3)])
    made = [make.audit(n, cost_usd=2.0**n, audited_at_s=float(n)) for n in (1, 2)]
    store.write_audits([*made, make.audit(3, workload="another", cost_usd=0.5, audited_at_s=3.0)])
    assert store.audit_spend_usd(since_s=2.0) == {"triage": 4.0, "another": 0.5}
    assert store.audit_spend_usd(since_s=9.0) == {}


def test_audits_are_tallied_with_what_they_stand_for(store: Store) -> None:
    store.write([make.outcome(n, received_at_s=float(n)) for n in range(1, 7)])
    bad = AuditVerdict.BAD
    store.write_audits(
        [
            make.audit(1),  # received before the period
            make.audit(2, propensity=0.5),
            make.audit(3, propensity=0.25),
            make.audit(4, propensity=0.25, verdict=bad),
            make.audit(5, propensity=1.0, accepted=False, method=AuditMethod.ANSWERS),
        ]
    )
    [triage] = store.stats(since_s=2.0)
    assert sorted((t.accepted, t.verdict.value, t.count, t.weight, t.weight_squared) for t in triage.audits) == [
        (False, "good", 1, 1.0, 1.0),
        (True, "bad", 1, 4.0, 16.0),
        (True, "good", 2, 6.0, 20.0),
    ]
    assert sum(tally.cost_usd for tally in triage.audits) == pytest.approx(0.08)


# --- statistics ------------------------------------------------------------------------------


def test_statistics_of_nothing(store: Store) -> None:
    assert store.stats() == []


def test_statistics_by_workload(store: Store) -> None:
    failed = make.attempt(result=Overloaded(), cost_usd=0.0)
    retried = make.attempt(purpose=Purpose.RETRY, cost_usd=0.003)
    store.write(
        [
            make.outcome(1, attempts=[make.attempt(cost_usd=0.001)]),
            make.outcome(2, attempts=[failed, retried]),
            make.outcome(3, attempts=make.escalated_attempts()),
            make.outcome(4, attempts=make.escalated_attempts(), mode=Mode.DIRECT),
            make.outcome(5, attempts=[make.attempt("sonnet")], mode=Mode.DIRECT),
            make.outcome(6, attempts=[make.attempt("opus", verdict=Reject("bad"), cost_usd=0.5)]),
            make.outcome(7, attempts=[failed], status="UNAVAILABLE"),
            make.outcome(8, workload="another", attempts=[]),
            make.outcome(9, received_at_s=5.0),
        ]
    )
    for n, good in ((1, True), (3, False), (4, False)):
        store.report(judgement(n, good=good), window_s=1e9)
    another, triage = store.stats(since_s=10.0)
    assert (another.workload, another.requests, another.no_reply, another.attempts) == ("another", 1, 1, 0)
    assert (triage.workload, triage.requests, triage.unaccepted, triage.no_reply) == ("triage", 7, 1, 1)
    assert triage.resolved == {"haiku": 2, "sonnet": 3}
    assert (triage.escalated, triage.direct, triage.misroutes) == (2, 2, 1)
    assert (triage.attempts, triage.failures) == (10, 2)
    assert triage.first_judged == {"haiku": 3, "opus": 1}
    assert triage.first_rejected == {"haiku": 1, "opus": 1}
    assert triage.attempt_cost_usd == pytest.approx({"haiku": 0.006 / 4, "sonnet": 0.041 / 3, "opus": 0.5})
    assert triage.cost_usd == pytest.approx(0.001 + 0.003 + 0.021 * 2 + 0.001 + 0.5)
    assert triage.top_tier_cost_usd == pytest.approx(7 * 0.04)
    assert (triage.feedback_good, triage.feedback_bad) == (1, 2)
    assert store.stats()[1].requests == 8


# --- retention, upkeep -----------------------------------------------------------------------


def test_retained_text_goes_at_its_workloads_age(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retained, "DELETE_CHUNK", 2)
    text = RetainedText('{"prompt":1}', '{"reply":1}')
    old, young = 1_000.0, 1_900.0
    store.write(
        [make.outcome(n, workload="a", received_at_s=old, retained=text) for n in range(1, 6)]
        + [make.outcome(6, workload="a", received_at_s=young, retained=text)]
        + [make.outcome(7, workload="b", received_at_s=old, retained=text)]
        + [make.outcome(8, workload="unnamed", received_at_s=young, retained=text)]
    )
    limits = {"a": 500.0, "b": 5_000.0}
    assert store.enforce_retention(now_s=2_000.0, max_age_s=limits, default_max_age_s=500.0) == 5
    kept = {r.outcome.request_id for r in store.read() if r.outcome.retained == text}
    assert kept == {make.request_id(n) for n in (6, 7, 8)}
    assert store.enforce_retention(now_s=2_000.0, max_age_s=limits) == 1  # unnamed keeps none by default
    assert store.enforce_retention(now_s=2_000.0, max_age_s=limits) == 0
    assert len(stored(store)) == 8  # the outcomes themselves stay


def test_upkeep_changes_nothing_that_is_read(store: Store) -> None:
    store.upkeep()
    store.write([make.outcome(1)])
    store.upkeep()
    assert len(stored(store)) == 1


def test_ping_and_close(store: Store) -> None:
    store.ping()
    store.close()
    store.close()
