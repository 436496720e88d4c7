"""What is true of the PostgreSQL store alone: connections that go, waits that end, replicas that start at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import make_url

from fallback.clock import SystemClock
from router.journal import Journal
from router.outcome import Feedback
from router.recorder import Recorder
from router.store import FeedbackStatus, StoreError, postgres
from router.store.schema import HEAD, metadata
from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.support.postgres import Proxy, database, dsn
from tests.unit.test_recorder import until

on_a_server = pytest.mark.skipif(not dsn(), reason="no PostgreSQL: make test-postgres, or TIERWISE_TEST_POSTGRES_DSN")


@pytest.fixture
def url() -> Iterator[str]:
    with database(f"tierwise_test_{os.getpid()}_own") as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    opened = SqlStore(url)
    yield opened
    opened.close()


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    made = Proxy(url)
    yield made
    made.close()


def admin(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(make_url(url).set(drivername="postgresql+pg8000"), poolclass=sqlalchemy.NullPool)


# --- URLs, without a server ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("postgresql://host/db", "user"),
        ("postgresql://u@host", "database"),
        ("postgresql://u:hunter2@host/db?sslmode=maybe", "sslmode is one of"),
        ("postgresql://u:hunter2@host/db?options=x", "unknown option options"),
        ("postgresql://u:hunter2@host/db?sslmode=verify-full&sslrootcert=/none.pem", "/none.pem: No such file"),
    ],
)
def test_a_url_that_will_not_do_is_refused_without_its_password(
    bad: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PGUSER", raising=False)
    with pytest.raises(StoreError, match=said) as raised:
        SqlStore(bad, patient=True)
    assert raised.value.code == "url"
    assert "hunter2" not in str(raised.value)


def test_a_server_that_is_not_there_is_unreachable_and_a_patient_store_waits_for_it() -> None:
    nowhere = "postgresql://u:hunter2@127.0.0.1:1/db"
    with pytest.raises(StoreError) as raised:
        SqlStore(nowhere)
    assert raised.value.code == "unreachable"
    assert "hunter2" not in str(raised.value)
    store = SqlStore(nowhere, patient=True)
    for attempt in (store.ping, store.stats, lambda: store.write([make.outcome()])):
        with pytest.raises(StoreError, match="unreachable"):
            attempt()
    store.close()


# --- on a server ---------------------------------------------------------------------------------


@on_a_server
def test_the_migrations_lead_to_the_schema(store: SqlStore, url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = admin(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, metadata) == []


@on_a_server
def test_replicas_that_start_at_once_make_one_schema(url: str) -> None:
    code = f"from router.store.sql import SqlStore; SqlStore({url!r}).ping()"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    problems = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * 4, problems


@on_a_server
@pytest.mark.parametrize(
    ("change", "code"),
    [({"username": "nobody_here"}, "credentials"), ({"database": "nothing_here"}, "no_such_database")],
)
def test_what_the_server_refuses_is_said_in_a_word(url: str, change: dict[str, str], code: str) -> None:
    with pytest.raises(StoreError) as raised:
        SqlStore(make_url(url).set(**change).render_as_string(hide_password=False))
    assert raised.value.code == code


@on_a_server
def test_a_connection_that_the_server_ended_costs_nothing(store: SqlStore, url: str) -> None:
    store.write([make.outcome(1)])
    with admin(url).connect() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'tierwise'"
        )
    store.write([make.outcome(2)])
    assert len(list(store.read())) == 2


@on_a_server
def test_waiting_for_a_lock_or_a_statement_ends(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres._SETTINGS, "lock_timeout", "50")
    store = SqlStore(url)
    engine = admin(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE outcome IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="busy"):
            store.write([make.outcome()])
    store.write([make.outcome()])
    store.close()
    monkeypatch.setitem(postgres._SETTINGS, "lock_timeout", "0")
    monkeypatch.setitem(postgres._SETTINGS, "statement_timeout", "50")
    store = SqlStore(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE outcome IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreError, match="slow"):
            store.write([make.outcome(2)])
    store.close()


@on_a_server
def test_a_server_that_hangs_is_given_up(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_SOCKET_S", 0.3)
    store = SqlStore(proxy.url)
    proxy.hang()
    started = time.monotonic()
    with pytest.raises(StoreError, match="unreachable"):
        store.write([make.outcome(1)])
    assert time.monotonic() - started < 20
    proxy.heal()
    store.write([make.outcome(1)])
    assert len(list(store.read())) == 1
    store.close()


@on_a_server
def test_replicas_that_write_the_same_ids_store_each_once(url: str) -> None:
    stores = [SqlStore(url) for _ in range(3)]
    problems: list[Exception] = []

    def write(store: SqlStore) -> None:
        for first in range(1, 200, 10):
            while True:
                try:
                    store.write([make.outcome(n) for n in range(first, first + 20)])
                    break
                except StoreError as error:
                    if error.code != "conflict":  # two that wait for each other: one is told to try again
                        problems.append(error)
                        return

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [int(one.outcome.request_id, 16) for one in stores[0].read()] == list(range(1, 211))
    for store in stores:
        store.close()


@on_a_server
def test_ids_are_ordered_by_byte_whatever_the_language(store: SqlStore, url: str) -> None:
    with admin(url).connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT count(*) FROM information_schema.columns WHERE column_name = 'request_id' AND collation_name = 'C'"
        ).scalar()
    assert found == 5
    assert store.report(Feedback("nul \x00", good=True), window_s=1.0) is FeedbackStatus.UNKNOWN


@on_a_server
@pytest.mark.parametrize("trouble", [Proxy.refuse, Proxy.hang])
async def test_the_recorder_gets_over_a_server_that_goes_and_comes_back(
    proxy: Proxy, tmp_path: Path, trouble: Callable[[Proxy], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_SOCKET_S", 1.0)
    store = SqlStore(proxy.url)
    journal = Journal(tmp_path / "journal", max_bytes=1 << 20)
    recorder = Recorder(store, SystemClock(), max_wait_s=5.0, journal=journal, patience_s=0.2)
    assert await recorder.record(make.outcome(1)) is True
    trouble(proxy)
    assert all([await recorder.record(make.outcome(n)) for n in range(2, 52)])
    assert not recorder.healthy
    proxy.heal()
    await until(lambda: recorder.healthy and not recorder.behind)
    assert await recorder.record(make.outcome(52)) is True
    await until(lambda: not recorder.behind)  # on a slow machine it may have gone by the journal
    assert [int(one.outcome.request_id, 16) for one in store.read()] == list(range(1, 53))
    assert await recorder.close(5.0) == 0
    store.close()
