"""What is true of the SQLite store alone: its files, their damage, and what is wrong with a path."""

from __future__ import annotations

import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from router.outcome import Feedback, RetainedText
from router.store import StoreError, sqlite
from router.store.schema import HEAD, metadata
from router.store.sql import SqlStore
from tests.support import outcomes as make

CANARY = "canary-51c9e0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "folder" / "outcomes.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{path}")
    yield opened
    opened.close()


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


# --- files and paths -------------------------------------------------------------------------


def test_only_the_owner_may_read_the_files(store: SqlStore, path: Path) -> None:
    store.write([make.outcome()])
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("outcomes.db", "outcomes.db-wal", "outcomes.db-shm"), 0o600)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_path_that_will_not_do_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad, said in (
        (tmp_path, "directory"),
        (tmp_path / "file" / "below.db", f"File exists ({tmp_path / 'file'})"),
        (Path("/proc/no"), "/proc"),
    ):
        with pytest.raises(StoreError, match=str(bad)) as raised:
            SqlStore(f"sqlite:///{bad}")
        assert raised.value.code == "path"
        assert said in str(raised.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://host/db", "nonsense", ""])
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        SqlStore(url)
    assert raised.value.code in {"url", "path"}


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "letters.txt"
    file.write_bytes(b"dear diary " * 1000)
    with pytest.raises(StoreError) as raised:
        SqlStore(f"sqlite:///{file}")
    assert raised.value.code == "notadb"
    assert file.read_bytes() == b"dear diary " * 1000


def test_a_schema_of_the_future_is_refused(store: SqlStore, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError) as raised:
        SqlStore(f"sqlite:///{path}")
    assert raised.value.code == "schema"


# --- the schema ------------------------------------------------------------------------------


def test_the_migrations_lead_to_the_schema(store: SqlStore, path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, metadata) == []
        for table in metadata.sorted_tables:
            found = sqlalchemy.inspect(connection).get_columns(table.name)
            assert [column["name"] for column in found] == [column.name for column in table.columns]
    engine.dispose()


def test_opening_at_head_does_not_import_alembic(store: SqlStore, path: Path) -> None:
    code = f"import sys, router.store.sql as s; s.SqlStore('sqlite:///{path}'); print('alembic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_two_processes_may_make_the_schema_at_once(path: Path) -> None:
    code = f"from router.store.sql import SqlStore; SqlStore('sqlite:///{path}').ping()"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
    problems = [process.communicate()[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], problems


# --- text ------------------------------------------------------------------------------------


def retained(n: int, *, size: int = 1) -> RetainedText:
    return RetainedText(f'{{"prompt":"{CANARY}{n} ' + "x" * size + '"}', f'{{"reply":"{CANARY}{n}"}}')


def test_reply_text_is_in_no_file(store: SqlStore, path: Path) -> None:
    store.write([make.outcome(attempts=[make.attempt(result=make.reply(text=CANARY))])])
    assert CANARY.encode() not in bytes_on_disk(path)


def test_expired_text_is_in_no_file(store: SqlStore, path: Path) -> None:
    store.write([make.outcome(n, received_at_s=0.0, retained=retained(n, size=n * 400)) for n in range(1, 40)])
    assert CANARY.encode() in bytes_on_disk(path)
    assert store.enforce_retention(now_s=10.0, max_age_s={}) == 39
    assert CANARY.encode() not in bytes_on_disk(path)


def test_text_that_a_reader_still_holds_goes_with_the_next_call(
    store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "SCRUB_TIMEOUT_MS", 0)
    store.write([make.outcome(1, received_at_s=0.0, retained=retained(1))])
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM outcome").fetchall()
    with pytest.raises(StoreError) as raised:
        store.enforce_retention(now_s=10.0, max_age_s={})
    assert raised.value.code == "retention_incomplete"
    reader.close()
    assert store.enforce_retention(now_s=10.0, max_age_s={}) == 0
    assert CANARY.encode() not in bytes_on_disk(path)


def test_no_error_holds_data(store: SqlStore, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE outcome")
    connection.close()
    with pytest.raises(StoreError) as raised:
        store.write([make.outcome(workload=CANARY, retained=retained(1))])
    assert CANARY not in str(raised.value)
    assert raised.value.__suppress_context__


# --- damage ----------------------------------------------------------------------------------

ROWS = 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copied pair of files, as a killed process leaves them: rows in the database and rows in its log."""
    folder = tmp_path_factory.mktemp("sound")
    store = SqlStore(f"sqlite:///{folder}/live.db")
    store.write([_written(n) for n in range(1, ROWS // 2 + 1)])
    sqlite.scrub(store._engine)
    for n in range(ROWS // 2 + 1, ROWS + 1):
        store.write([_written(n)])
        store.report(Feedback(make.request_id(n), good=n % 2 == 0, reason="r" * n), window_s=1e9)
        store.write_audits([make.audit(n)])
    shutil.copy(folder / "live.db", folder / "sound.db")
    shutil.copy(folder / "live.db-wal", folder / "sound.db-wal")
    store.close()
    return folder / "sound.db"


def _written(n: int) -> make.Outcome:
    return make.outcome(n, attempts=make.escalated_attempts(), labels={"n": "x" * n}, retained=retained(n))


def read_damaged(database: bytes, log: bytes, folder: Path) -> tuple[list[str], int, str]:
    """The ids read, the rows refused and the error's code; every row read is checked against what was written.

    Damage may hide a row, its feedback or its text, as if they had never come or were deleted; it may change none.
    """
    path = folder / "damaged.db"
    for suffix, content in (("", database), ("-wal", log)):
        path.with_name(path.name + suffix).write_bytes(content)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    ids, code, store = [], "", None
    try:
        store = SqlStore(f"sqlite:///{path}")
        for recorded in store.read():
            n = int(recorded.outcome.request_id, 16)
            wrote = make.comparable(_written(n))
            assert make.comparable(recorded.outcome) in (wrote, replace(wrote, retained=None)), "a wrong row"
            if recorded.feedback is not None:
                assert recorded.feedback == Feedback(make.request_id(n), good=n % 2 == 0, reason="r" * n)
            assert recorded.audits in ((), (make.audit(n),))
            ids.append(recorded.outcome.request_id)
    except StoreError as error:
        code = error.code
    refused = store.corrupt_rows if store else 0
    if store:
        store.close()
    assert ids == sorted(set(ids)), "a row twice"
    return ids, refused, code


def test_the_sound_pair_is_read_whole(sound: Path, tmp_path: Path) -> None:
    ids, refused, code = read_damaged(sound.read_bytes(), Path(f"{sound}-wal").read_bytes(), tmp_path)
    assert (len(ids), refused, code) == (ROWS, 0, "")


def test_a_torn_log_gives_a_prefix(sound: Path, tmp_path: Path) -> None:
    database, log = sound.read_bytes(), Path(f"{sound}-wal").read_bytes()
    lengths = []
    for size in range(0, len(log), 4096 + 512):
        ids, refused, code = read_damaged(database, log[:size], tmp_path)
        assert (refused, code) == (0, "")
        assert ids == [make.request_id(n) for n in range(1, len(ids) + 1)]
        lengths.append(len(ids))
    assert lengths == sorted(lengths)
    assert lengths[0] == ROWS // 2


def test_a_torn_tail_gives_right_rows_or_an_error(sound: Path, tmp_path: Path) -> None:
    database = sound.read_bytes()
    for size in range(0, len(database), 4096 + 512):
        ids, refused, code = read_damaged(database[:size], b"", tmp_path)
        assert len(ids) < ROWS // 2 or size >= len(database) - 8192 or refused or code


def test_flipped_bits_never_give_a_wrong_row(sound: Path, tmp_path: Path) -> None:
    rng = random.Random(20_260_101)
    database, log = sound.read_bytes(), Path(f"{sound}-wal").read_bytes()
    noticed = 0
    for _ in range(150):
        content, where = bytearray(database), rng.randrange(len(database))
        content[where] ^= 1 << rng.randrange(8)
        ids, refused, code = read_damaged(bytes(content), b"", tmp_path)
        noticed += len(ids) < ROWS // 2 or refused > 0 or code != ""
        torn, where = bytearray(log), rng.randrange(len(log))
        torn[where] ^= 1 << rng.randrange(8)
        read_damaged(database, bytes(torn), tmp_path)
    assert noticed > 50


def _damage_cells(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "outcome SET cost_usd = cost_usd * 2",
        "outcome SET workload = CAST(x'fffe' AS TEXT)",
        "outcome SET request_features = 'text now'",
        "outcome SET request_features = 5",
        "outcome SET reply_features = x''",
        "outcome SET attempts = '[]'",
        "outcome SET decision = 'no json'",
        "outcome SET received_at_s = 'text now'",
        "outcome SET format = 2",
        "outcome SET checksum = 'text now'",
        "outcome SET accepted = x'01'",
        "feedback SET good = 1 - good",
        "retained_text SET reply_json = '{}'",
        "audit SET verdict = 'bad'",
        "audit SET propensity = 0.5",
        "audit SET tier = 'sonnet'",
    ],
)
def test_a_damaged_cell_costs_its_row_and_is_counted(store: SqlStore, path: Path, change: str) -> None:
    store.write([_written(n) for n in range(1, 6)])
    store.report(Feedback(make.request_id(3), good=True), window_s=1e9)
    store.write_audits([make.audit(3)])
    _damage_cells(path, f"UPDATE {change} WHERE request_id = '{make.request_id(3)}'")
    assert [int(r.outcome.request_id, 16) for r in store.read()] == [1, 2, 4, 5]
    assert store.corrupt_rows == 1


@pytest.mark.parametrize("damaged", [(3,), (2, 3), (3, 4, 5), (9, 10), (10, 11), (11,), (1,), (1, 6, 11)])
def test_damage_at_the_edge_of_a_chunk_is_counted_once(
    store: SqlStore, path: Path, damaged: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.store.sql.READ_CHUNK", 5)
    store.write([_written(n) for n in range(1, 12)])
    ids = ",".join(f"'{make.request_id(n)}'" for n in damaged)
    _damage_cells(path, f"UPDATE outcome SET status = 'x' WHERE request_id IN ({ids})")  # noqa: S608
    assert [int(r.outcome.request_id, 16) for r in store.read()] == [n for n in range(1, 12) if n not in damaged]
    assert store.corrupt_rows == len(damaged)


def test_a_whole_chunk_of_damage_ends_the_reading(store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.store.sql.READ_CHUNK", 5)
    store.write([_written(n) for n in range(1, 12)])
    _damage_cells(path, f"UPDATE outcome SET status = 'x' WHERE request_id > '{make.request_id(3)}'")  # noqa: S608
    reader = store.read()
    assert [int(next(reader).outcome.request_id, 16) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(StoreError) as raised:
        next(reader)
    assert raised.value.code == "corrupt"


# --- trouble ---------------------------------------------------------------------------------


def test_a_locked_database_is_busy_not_broken(store: SqlStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PRAGMAS", ("busy_timeout=0",))
    other = SqlStore(f"sqlite:///{path}")
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    for attempt in (other.ping, lambda: other.write([make.outcome()])):
        with pytest.raises(StoreError) as raised:
            attempt()
        assert raised.value.code == "busy"
    locker.execute("ROLLBACK")
    locker.close()
    other.write([make.outcome()])
    assert len(list(store.read())) == 1
    other.close()


FULL_DISK = """
import resource, sys
from router.store import StoreError, Unstorable
from router.store.sql import SqlStore
from tests.support.outcomes import typical

store = SqlStore(sys.argv[1])
store.write([typical(1)])
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
written, codes = [1], set()
for n in range(2, 200):
    try:
        store.write([typical(n)])
        written.append(n)
    except StoreError as error:
        assert not isinstance(error, Unstorable)
        codes.add(error.code)
        try:
            store.ping()
        except StoreError:
            codes.add("ping")
assert codes, "the limit was never met"
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
store.write([typical(1000)])
store.ping()
assert {int(r.outcome.request_id, 16) for r in store.read()} == {*written, 1000}
assert store.corrupt_rows == 0
print(*sorted(codes))
"""


def test_a_full_disk_is_met_with_errors_and_got_over(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, f"sqlite:///{path}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "ping" in done.stdout


def test_a_second_connection_drops_no_lock_of_the_first(tmp_path: Path) -> None:
    """Closing any descriptor of the file drops every POSIX lock that the process holds on it."""
    url = f"sqlite:///{tmp_path}/outcomes.db"
    store = SqlStore(url)
    store.write([make.outcome(1)])
    opened: list[str] = []

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name == "open" and str(args[0]).endswith("outcomes.db"):
            opened.append(name)

    sys.addaudithook(hook)
    again = SqlStore(url)
    again.write([make.outcome(2)])
    with ThreadPoolExecutor(3) as pool:  # each on a connection of its own
        list(pool.map(lambda n: store.write([make.outcome(n)]), range(3, 9)))
    again.close()
    store.close()
    assert opened == []
