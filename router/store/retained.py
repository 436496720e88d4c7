"""Retained texts that have come of age: which there are, and their deletion in small transactions."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, and_, delete, select

from router.store.schema import retained_text as table

DELETE_CHUNK = 200  # texts deleted in one transaction: writers wait for no more than that


def workloads(connection: Connection) -> Sequence[str]:
    """Those with a retained text."""
    return connection.execute(select(table.c.workload).distinct()).scalars().all()


def delete_until(writes: Engine, workload: str, until_s: float) -> int:
    """Delete the workload's texts received until then; how many."""
    expired = (
        select(table.c.request_id)
        .where(and_(table.c.workload == workload, table.c.received_at_s <= until_s))
        .limit(DELETE_CHUNK)
    )
    deleted = 0
    while True:
        with writes.begin() as connection:
            count = connection.execute(delete(table).where(table.c.request_id.in_(expired))).rowcount
        deleted += count
        if count < DELETE_CHUNK:
            return deleted
