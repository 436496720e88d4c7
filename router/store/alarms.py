"""Alarm ⇄ row. A log: raised and cleared alarms each are a row, and none is changed."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, select

from router.alarms import Alarm, Stream
from router.store.codec import CorruptRow, Row, checksum, finite
from router.store.schema import alarm

_COLUMNS = tuple(column.name for column in alarm.columns if column.name != "checksum")


def encode(one: Alarm) -> Row:
    """The row of one alarm. Raises ValueError for what cannot be stored."""
    row: Row = asdict(one) | {
        "stream": one.stream.value,
        "at_s": finite(one.at_s),
        "observed": finite(one.observed),
        "expected": finite(one.expected),
        "cleared": int(one.cleared),
    }
    row["checksum"] = checksum(row, _COLUMNS)
    return row


def decode(row: Row) -> Alarm:
    """The alarm that was encoded. Raises CorruptRow for anything else."""
    try:
        fields = dict(row)
        if fields.pop("checksum") != checksum(fields, _COLUMNS):
            raise CorruptRow
        return Alarm(**{**fields, "stream": Stream(fields["stream"]), "cleared": bool(fields["cleared"])})
    except (KeyError, TypeError, ValueError):
        raise CorruptRow from None


def read(connection: Connection, since_s: float) -> tuple[list[Alarm], int]:
    """The alarms since then, in the order in which they happened, and how many rows are not as they were written."""
    a = alarm.c
    statement = select(alarm).where(a.at_s >= since_s).order_by(a.at_s, a.request_id, a.cleared)
    found, corrupt = [], 0
    for row in connection.execute(statement).mappings():
        try:
            found.append(decode(dict(row)))
        except CorruptRow:
            corrupt += 1
    return found, corrupt
