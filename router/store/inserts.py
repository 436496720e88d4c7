"""Inserts of many rows, compiled once: compiling and binding at every call cost more than the inserting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ClauseElement, Connection, Engine


class Insert:
    """One insert statement for one engine. The rows' values must be such as the driver takes as they are."""

    def __init__(self, statement: ClauseElement, engine: Engine) -> None:
        compiled = statement.compile(engine)
        self._sql = str(compiled)
        self._order: Sequence[str] | None = getattr(compiled, "positiontup", None)  # None: parameters by name

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> int:
        """Insert the rows; how many of them were new."""
        order = self._order
        parameters: Any = rows if order is None else [tuple(map(row.__getitem__, order)) for row in rows]
        return connection.exec_driver_sql(self._sql, parameters, {"preserve_rowcount": True}).rowcount
