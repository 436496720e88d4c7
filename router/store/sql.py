"""The store on an SQL database: one code path; what differs between databases is a `Backend` module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import make_url, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from router.alarms import Alarm
from router.outcome import Audit, Feedback, Outcome
from router.store import (
    FeedbackStatus,
    Recorded,
    StoreError,
    Unstorable,
    WorkloadStats,
    alarms,
    audits,
    codec,
    queries,
    retained,
    sqlite,
)
from router.store.backend import Backend
from router.store.schema import HEAD, alarm, audit, feedback
from router.store.writing import OutcomeWriter

READ_CHUNK = 200  # rows in memory, and in one read transaction, at a time
_FOR_GOOD: Final = ("url", "path", "schema")  # what trying again does not help


def backend_of(name: str) -> Backend:
    """The module of a database, imported only where it is used. KeyError for one that there is not."""
    match name:
        case "sqlite":
            return sqlite
        case "postgresql":
            from router.store import postgres

            return postgres
        case _:
            raise KeyError(name)


class SqlStore:
    """Outcomes in an SQL database; meets `router.store.Store`.

    `url` is `sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/database`. Opening makes
    the schema or brings it to head. Raises StoreError where that cannot be done, naming the path or setting; a
    `patient` one, only where trying again would not help: else the first call that finds it well does it.
    """

    def __init__(self, url: str, *, patient: bool = False) -> None:
        try:
            parsed = make_url(url)
            self._backend = backend_of(parsed.get_backend_name())
        except (ArgumentError, KeyError):
            raise StoreError("url", "expected sqlite:///… or postgresql://…") from None
        self._engine = self._backend.open_engine(parsed)
        self._writes = self._engine.execution_options(writes=True)
        self._outcomes = OutcomeWriter(self._backend, self._writes)
        self._insert_audit, self._insert_alarm = (self._backend.insert(table, self._engine) for table in (audit, alarm))
        self._corrupt_rows = self._corrupt_alarms = 0
        self._at_head = False
        try:
            with self._errors():
                pass
        except StoreError as error:
            if not patient or error.code in _FOR_GOOD:
                self.close()
                raise

    @property
    def corrupt_rows(self) -> int:
        """Rows that `read` and `alarms` refused since this store was opened."""
        return self._corrupt_rows + self._corrupt_alarms

    # --- writing -----------------------------------------------------------------------------

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Commit all in one transaction; ids seen before stay as they were.

        Raises Unstorable when one can never be stored (nothing is written), StoreError when not now.
        """
        if not outcomes:
            return
        with self._errors():
            self._outcomes.write([codec.encode(one) for one in outcomes])

    def report(self, feedback_: Feedback, *, window_s: float) -> FeedbackStatus:
        """Commit a judgement of an outcome received at most `window_s` before it. Raises StoreError."""
        with self._errors():
            row = codec.encode_feedback(feedback_)
            if "\x00" in feedback_.request_id:
                return FeedbackStatus.UNKNOWN  # not every database can look for it
            with self._writes.begin() as connection:
                known = connection.execute(queries.ABOUT_OUTCOME, {"id": feedback_.request_id}).one_or_none()
                if known is None:
                    return FeedbackStatus.UNKNOWN
                if known.resolved_tier == "":
                    return FeedbackStatus.NO_REPLY
                if feedback_.reported_at_s - known.received_at_s > window_s:
                    return FeedbackStatus.EXPIRED
                if known.reported:
                    connection.execute(
                        update(feedback).where(feedback.c.request_id == feedback_.request_id).values(row)
                    )
                    return FeedbackStatus.REPEATED
                connection.execute(feedback.insert(), row)
                return FeedbackStatus.RECORDED

    def write_audits(self, audits_: Sequence[Audit]) -> None:
        """Commit all in one transaction. Raises Unstorable for one without an outcome, StoreError when not now."""
        if not audits_:
            return
        with self._errors():
            rows = [audits.encode(one) for one in audits_]
            with self._writes.begin() as connection:
                self._insert_audit(connection, rows)

    def write_alarms(self, alarms_: Sequence[Alarm]) -> None:
        """Commit all in one transaction; those there already stay. Raises StoreError."""
        if not alarms_:
            return
        with self._errors():
            rows = [alarms.encode(one) for one in alarms_]
            with self._writes.begin() as connection:
                self._insert_alarm(connection, rows)

    # --- reading -----------------------------------------------------------------------------

    def alarms(self, *, since_s: float = 0.0) -> list[Alarm]:
        """Alarms raised and cleared since then, in the order in which they happened. Raises StoreError."""
        with self._errors(), self._engine.connect() as connection:
            found, corrupt = alarms.read(connection, since_s)
        self._corrupt_alarms = max(self._corrupt_alarms, corrupt)  # the same ones are read again and again
        return found

    def workload_of(self, request_id: str) -> str:
        """The workload of an outcome; empty for an unknown id. Raises StoreError."""
        with self._errors(), self._engine.connect() as connection:
            known = connection.execute(queries.ABOUT_OUTCOME, {"id": request_id}).one_or_none()
        return str(known.workload) if known is not None else ""

    def read(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[Recorded]:
        """Outcomes received in [since_s, until_s), by request id, in chunks. Raises StoreError.

        Each chunk is a transaction of its own, so that a slow reader holds up no checkpoint.
        """
        after = ""
        while True:
            with self._errors(), self._engine.connect() as connection:
                rows = connection.execute(
                    queries.CHUNK, {"after": after, "since": since_s, "until": until_s, "limit": READ_CHUNK}
                ).all()
                found = [_decode(tuple(row)) for row in rows]
                # Sound ids only: a damaged one could be anything, and the driver refuse it.
                ids = [one.outcome.request_id for one in found if one is not None]
                audited = audits.of_requests(connection, ids)
            found = [one and _audited(one, audited.get(one.outcome.request_id, ())) for one in found]
            whole = len(rows) < READ_CHUNK
            # The next chunk starts after the last good id: a damaged id would skip what lies between.
            # The damaged rows behind it are met, and counted, again there.
            good = [i for i, one in enumerate(found) if one is not None]
            if not whole and not good:
                raise StoreError("corrupt", f"{READ_CHUNK} rows in a row cannot be read")
            met = found if whole else found[: good[-1] + 1]
            for one in met:
                if one is None or one.outcome.request_id <= after:
                    self._corrupt_rows += 1
                    continue
                after = one.outcome.request_id
                yield one
            if whole:
                return

    def stats(self, *, since_s: float = 0.0) -> list[WorkloadStats]:
        """The numbers of every workload with a request since `since_s`, by name. Raises StoreError."""
        with self._errors(), self._engine.connect() as connection:
            return queries.stats(connection, since_s)

    def audit_spend_usd(self, *, since_s: float) -> Mapping[str, float]:
        """What audits made since then cost, by workload. Raises StoreError."""
        with self._errors(), self._engine.connect() as connection:
            return audits.spent_usd(connection, since_s)

    # --- upkeep ------------------------------------------------------------------------------

    def enforce_retention(self, *, now_s: float, max_age_s: Mapping[str, float], default_max_age_s: float = 0.0) -> int:
        """Delete retained text as old as its workload's limit, also from the log and free pages."""
        with self._errors():
            with self._engine.connect() as connection:
                workloads = retained.workloads(connection)
            deleted = sum(
                retained.delete_until(self._writes, workload, now_s - max_age_s.get(workload, default_max_age_s))
                for workload in workloads
            )
            self._backend.scrub(self._engine)
        return deleted

    def upkeep(self) -> None:
        """Move the log into the database beside the writes. Raises StoreError."""
        with self._errors():
            self._backend.upkeep(self._engine)

    def ping(self) -> None:
        """A committed write that changes nothing. Raises StoreError."""
        with self._errors(), self._writes.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def close(self) -> None:
        """Close every connection; idempotent."""
        with self._translated():
            self._engine.dispose()

    def _migrate(self) -> None:
        """Bring the schema to head; one cheap query when it is there."""
        try:
            with self._engine.connect() as connection:
                version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError:
            version = None  # no such table: a new database, or one that the migration will find broken
        if version != HEAD:
            from router.store.migrate import upgrade

            with self._writes.begin() as connection:
                self._backend.lock_schema(connection)
                upgrade(connection)
        self._at_head = True

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """The store, with its schema at head, and what goes wrong as StoreError."""
        try:
            with self._translated():
                if not self._at_head:
                    self._migrate()
                yield
        except StoreError as error:
            if self._backend.reopen(error.code):
                self._at_head = False
                self._engine.dispose()
            raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLAlchemy's and the driver's errors as StoreError: a code, nothing of the data."""
        try:
            yield
        except DBAPIError as error:
            kind = Unstorable if self._backend.unstorable(error.orig) else StoreError
            raise kind(self._backend.error_code(error.orig)) from None
        except PoolTimeout:
            raise StoreError("busy") from None
        except SQLAlchemyError as error:
            raise StoreError(type(error).__name__.lower()) from None
        except self._backend.DriverError as error:
            raise StoreError(self._backend.error_code(error)) from None
        except (ValueError, OverflowError):
            raise Unstorable("value") from None


def _decode(row: Sequence[Any]) -> Recorded | None:
    """One row of `queries.CHUNK`, or None where it is not as it was written."""
    story, judgement, kept = queries.split(row)
    try:
        return Recorded(codec.decode(story, kept), None if judgement is None else codec.decode_feedback(judgement))
    except codec.CorruptRow:
        return None


def _audited(one: Recorded, rows: Sequence[codec.Row]) -> Recorded | None:
    """With its audits, or None where one of them is not as it was written."""
    try:
        return replace(one, audits=tuple(map(audits.decode, rows))) if rows else one
    except codec.CorruptRow:
        return None
