"""SQLite: one file, one host, any number of processes on it.

WAL with `synchronous=NORMAL`: what is committed survives the death of the process at any point, and
power loss may cost the last commits before it, never the file's integrity.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import insert as _insert
from sqlalchemy.pool import ConnectionPoolEntry

from router.store import StoreError
from router.store.backend import Insert
from router.store.inserts import Insert as CompiledInsert

BUSY_TIMEOUT_MS = 2_000  # how long a writer waits for another process's transaction
SCRUB_TIMEOUT_MS = 100  # how long writers may wait behind a checkpoint that waits for readers
LOG_PAGES = 8_192  # 32 MB: the write-ahead log's usual greatest length
_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "foreign_keys=ON",
    "secure_delete=ON",  # deleted text is overwritten, not merely unlinked
    "temp_store=MEMORY",  # no copies of rows in temporary files
    # `upkeep` moves the log into the database; a commit does it only, and stops for the disk, beyond this.
    f"wal_autocheckpoint={LOG_PAGES}",
    f"journal_size_limit={LOG_PAGES * 4096}",
)


def open_engine(url: URL) -> Engine:
    """The engine for `url`; the file is made, readable by its owner only, where there is none.

    Raises StoreError with code `path` when no file can be read and written there.
    """
    path = Path(url.database or "")
    if not url.database or url.database == ":memory:":
        raise StoreError("path", "a file is needed: sqlite:///folder/file.db")
    _make_file(path)

    def remake(*_: Any) -> None:
        _make_file(path)  # the operator may have moved a damaged one away

    # hide_parameters: no row in an exception. The pool is per process; a store has three threads at most.
    engine = create_engine(url, hide_parameters=True, pool_size=4, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})
    event.listen(engine, "do_connect", remake)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


def _make_file(path: Path) -> None:
    """Make the file where there is none, so that what is wrong with the path is said in words.

    One that is there is never opened: closing it would drop every POSIX lock that this process holds on it
    (sqlite.org/howtocorrupt.html, 2.2), and another process could then damage it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            if not path.is_file():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            if not os.access(path, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return
        with suppress(FileExistsError):  # another process was quicker
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        where = "" if error.filename in (None, str(path), path) else f" ({error.filename})"
        raise StoreError("path", f"{path}: {error.strerror or type(error).__name__}{where}") from None


def _configure(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Transactions are begun by `_begin`, not guessed by the driver.
    connection.isolation_level = None
    # A damaged cell must reach the codec, which refuses its row alone, not fail the whole read.
    connection.text_factory = _lenient_text
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _lenient_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _begin(connection: Connection) -> None:
    # A writer takes the lock at once: a read that becomes a write can be refused without waiting.
    writes = connection.get_execution_options().get("writes", False)
    connection.connection.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def upkeep(engine: Engine) -> None:
    """Move what is committed from the write-ahead log into the database; holds up neither readers nor writers."""
    raw = engine.raw_connection()
    try:
        raw.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        raw.close()


def scrub(engine: Engine) -> None:
    """Move everything out of the write-ahead log and empty it, so that deleted text is nowhere.

    Raises StoreError with code `retention_incomplete` while a reader holds an older state.
    """
    upkeep(engine)  # most of the work without holding up anybody, then the rest under the lock
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout={SCRUB_TIMEOUT_MS}")
        try:
            (busy, *_rest) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() or (1,)
        finally:
            cursor.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    finally:
        raw.close()
    if busy:
        raise StoreError("retention_incomplete", "a reader holds an older state of the file")


def error_code(error: BaseException | None) -> str:
    """SQLite's own name of what went wrong, without its prefix: `busy`, `full`, `corrupt`, `ioerr_write`."""
    name: Any = getattr(error, "sqlite_errorname", None)
    return str(name or type(error).__name__).removeprefix("SQLITE_").lower()


def unstorable(error: BaseException | None) -> bool:
    """Whether it is the value's fault."""
    return isinstance(error, sqlite3.DataError | sqlite3.IntegrityError)


def reopen(code: str) -> bool:
    """Whether the file may be another one by the next try: one that cannot be read is to be moved away."""
    return code.startswith(("corrupt", "notadb", "ioerr", "cantopen", "readonly"))


def lock_schema(_connection: Connection) -> None:
    """A transaction that writes has the lock already."""


def insert(table: Table, engine: Engine) -> Insert:
    """What inserts the rows that are not there."""
    return CompiledInsert(_insert(table).on_conflict_do_nothing(), engine)


DriverError = sqlite3.Error
