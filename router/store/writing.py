"""Outcomes into their tables: a group in one transaction, each with what belongs to it, and none twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, Engine, bindparam, select

from router.store import StoreError
from router.store.backend import Backend
from router.store.codec import Encoded
from router.store.schema import outcome, reply_cost, retained_text

_ROUNDS: Final = 8  # each leaves out what others committed since the one before
_KNOWN = select(outcome.c.request_id).where(outcome.c.request_id.in_(bindparam("ids", expanding=True)))


class OutcomeWriter:
    """Writes groups of outcomes by way of `writes`, an engine whose transactions take their turn to write."""

    def __init__(self, backend: Backend, writes: Engine) -> None:
        self._writes = writes
        self._insert_outcomes, self._insert_costs, self._insert_texts = (
            backend.insert(table, writes) for table in (outcome, reply_cost, retained_text)
        )

    def write(self, rows: Sequence[Encoded]) -> None:
        """Commit those with a new id, all in one transaction. Raises StoreError `conflict` while others race for them.

        A group with known ones is nothing rare: a write that was given up because it took too long is committed all
        the same, and the same outcomes come again from the journal. They cost a group two statements more, not a
        statement each.
        """
        for _ in range(_ROUNDS):
            if not rows or self._write_new(rows):
                return
            rows = self._unknown(rows)
        raise StoreError("conflict")

    def _write_new(self, rows: Sequence[Encoded]) -> bool:
        """Write rows that are all new; False, with nothing written, when one was there already."""
        with self._writes.connect() as connection, connection.begin() as transaction:
            if not self._insert(connection, rows):
                transaction.rollback()
                return False
        return True

    def _insert(self, connection: Connection, rows: Sequence[Encoded]) -> bool:
        """Insert outcomes and, when all of them were new, what belongs to them; whether they were."""
        if self._insert_outcomes(connection, [row.outcome for row in rows]) != len(rows):
            return False
        if costs := [cost for row in rows for cost in row.reply_costs]:
            self._insert_costs(connection, costs)
        if texts := [row.retained for row in rows if row.retained is not None]:
            self._insert_texts(connection, texts)
        return True

    def _unknown(self, rows: Sequence[Encoded]) -> list[Encoded]:
        """The rows whose id nobody wrote yet, the first one of each."""
        first: dict[str, Encoded] = {}
        for row in rows:
            first.setdefault(row.outcome["request_id"], row)
        with self._writes.connect() as connection:
            known = set(connection.execute(_KNOWN, {"ids": list(first)}).scalars())
        return [row for id_, row in first.items() if id_ not in known]
