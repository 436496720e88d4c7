"""PostgreSQL: one server, any number of replicas.

The driver is pg8000: synchronous, as the recorder's threads want it, pure Python and BSD (ADR 0012). Statements
are bounded on the server, connections by the kernel: a server that vanishes is noticed within ten seconds, one that
hangs within `_SOCKET_S`.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pg8000.dbapi
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, text

from router.store import StoreError
from router.store.backend import Insert

_CONNECT_S: Final = 5.0
_VANISHED_MS: Final = 10_000
_SOCKET_S: Final = 40.0  # longer than any statement
# Sent at the start of every connection.
_SETTINGS: Final = {
    "statement_timeout": "30000",
    "lock_timeout": "5000",
    "idle_in_transaction_session_timeout": "60000",
    "timezone": "UTC",
}
_SCHEMA_LOCK: Final = 0x7469_6572  # any number that no other program of the database takes
_OPTIONS: Final = {"host", "sslmode", "sslrootcert"}

# SQLSTATE, or its class, to a word. The rest is the code itself.
_WORDS: Final = {
    "08": "unreachable",
    "28": "credentials",
    "3D": "no_such_database",
    "42501": "permission",
    "53100": "full",
    "53": "busy",
    "55P03": "busy",
    "40": "conflict",
    "57014": "slow",
    "57": "unreachable",
    "25006": "read_only",
    "XX": "corrupt",
}
_VALUES: Final = ("22", "23")  # classes: data exception, integrity constraint violation


def open_engine(url: URL) -> Engine:
    """The engine for `url`: `postgresql://user@host:5432/database?sslmode=verify-full`; nothing connects yet.

    A host that is a folder, as in `?host=/run/postgresql`, is a Unix socket. User and password may be left to
    PGUSER and PGPASSWORD. Raises StoreError with code `url` for what it does not understand.
    """
    if unknown := sorted(set(url.query) - _OPTIONS):
        raise StoreError("url", f"unknown option {unknown[0]}; there are {', '.join(sorted(_OPTIONS))}")
    user = url.username or os.environ.get("PGUSER")
    if not user or not url.database:
        raise StoreError("url", "a user and a database are needed: postgresql://user@host/database")
    host, port = str(url.query.get("host") or url.host or "localhost"), url.port or 5432
    tls = _tls(str(url.query.get("sslmode", "prefer")), str(url.query.get("sslrootcert", "")))
    password = url.password or os.environ.get("PGPASSWORD")

    def connect() -> Any:
        made = _socket(host, port)
        try:
            return pg8000.dbapi.connect(
                user,
                host=host,
                database=url.database,
                password=password,
                ssl_context=False if host.startswith("/") else tls,
                application_name="tierwise",
                startup_params=dict(_SETTINGS),
                sock=made,
            )
        except BaseException:
            made.close()
            raise

    # hide_parameters: no row in an exception. The pool is per process; a store has three threads at most.
    engine = create_engine(
        "postgresql+pg8000://",
        creator=connect,
        hide_parameters=True,
        pool_size=4,
        max_overflow=0,
        pool_timeout=_CONNECT_S,
        pool_pre_ping=True,  # a server that was restarted costs a reconnection, not a group
        pool_recycle=1_800,
    )
    engine.dialect.do_close = _close  # type: ignore[method-assign, assignment]
    engine.dialect.do_terminate = _close  # type: ignore[method-assign, assignment]
    event.listen(engine, "handle_error", _lost)
    event.listen(engine, "before_cursor_execute", _encodable)
    return engine


def _encodable(_connection: Any, _cursor: Any, _statement: str, values: Sequence[Any], *_: Any) -> None:
    """ValueError for half a character: the driver would notice in the middle of a message to the server."""
    for value in values:
        if isinstance(value, str):
            value.encode("utf-8")


def _tls(mode: str, root: str) -> ssl.SSLContext | bool | None:
    """pg8000's word for libpq's: False never, None where the server has it, True without looking at the certificate."""
    match mode:
        case "disable":
            return False
        case "prefer":
            return None
        case "require":
            return True
        case "verify-ca" | "verify-full":
            try:
                context = ssl.create_default_context(cafile=root or None)
            except OSError as error:
                raise StoreError("url", f"sslrootcert: {root}: {error.strerror or 'not a certificate'}") from None
            context.check_hostname = mode == "verify-full"
            return context
        case _:
            raise StoreError("url", "sslmode is one of disable, prefer, require, verify-ca, verify-full")


def _socket(host: str, port: int) -> socket.socket:
    try:
        if host.startswith("/"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(_CONNECT_S)
            made.connect(str(Path(host) / f".s.PGSQL.{port}"))
        else:
            made = socket.create_connection((host, port), _CONNECT_S)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a group waits for acknowledgements
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _VANISHED_MS)
    except OSError as error:
        raise pg8000.dbapi.InterfaceError(f"network error: {type(error).__name__}") from None
    made.settimeout(_SOCKET_S)
    return made


def _close(connection: Any) -> None:
    """Close it, also when the server no longer hears the farewell: the driver would leave the socket open then."""
    ends = (connection._sock, connection._usock)  # noqa: SLF001
    with suppress(pg8000.dbapi.Error, OSError):
        connection.close()
    for end in ends:
        with suppress(OSError, ValueError):
            if end is not None:
                end.close()


def _lost(context: Any) -> None:
    """A connection on which the network failed, in words the dialect does not know, is not used again."""
    error = context.original_exception
    if isinstance(error, pg8000.dbapi.InterfaceError | OSError) or _state(error)[:2] in ("08", "57"):
        context.is_disconnect = True


def lock_schema(connection: Connection) -> None:
    """Wait until nobody else migrates; let go at the transaction's end."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text("SET LOCAL lock_timeout = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


def insert(table: Table, _engine: Engine) -> Insert:
    """What inserts the rows that are not there: one short statement, with all of them as one JSON value.

    With a parameter a cell the statement has kilobytes, and the driver, pure Python, goes through it letter by letter.
    """
    names = ", ".join(table.columns.keys())
    statement = text(
        f"INSERT INTO {table.name} ({names}) SELECT {names} "  # noqa: S608 - the schema's own names
        f"FROM json_populate_recordset(CAST(NULL AS {table.name}), CAST(:rows AS json)) ON CONFLICT DO NOTHING"
    )

    def run(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        return connection.execute(statement, {"rows": _dumps(rows)}).rowcount

    return run


def _cell(cell: Any) -> str:
    """Bytes as PostgreSQL reads them, the one type of cell that JSON does not know."""
    return f"\\x{cell.hex()}"


_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_cell).encode


def upkeep(_engine: Engine) -> None:
    """Autovacuum's affair."""


def scrub(_engine: Engine) -> None:
    """Deleted text is in no query; autovacuum frees its pages, and the server's log is the operator's affair."""


def error_code(error: BaseException | None) -> str:
    """A word for the SQLSTATE, the SQLSTATE itself, or `unreachable` where the server said nothing."""
    state = _state(error)
    if not state:
        return (
            "unreachable" if isinstance(error, pg8000.dbapi.InterfaceError | OSError) else type(error).__name__.lower()
        )
    return _WORDS.get(state) or _WORDS.get(state[:2]) or state.lower()


def unstorable(error: BaseException | None) -> bool:
    """Whether it is the value's fault."""
    return _state(error)[:2] in _VALUES


def reopen(_code: str) -> bool:
    """The pool replaces connections by itself."""
    return False


def _state(error: BaseException | None) -> str:
    """The five characters by which the server says what is wrong; empty where it is not the server's word."""
    said = error.args[0] if error is not None and error.args else None
    return str(said.get("C", "")) if isinstance(said, dict) else ""


DriverError = (pg8000.dbapi.Error, OSError)
