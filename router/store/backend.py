"""What a database's own module gives to `router.store.sql`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, Table


class Insert(Protocol):
    """Inserts rows; how many of them were new."""

    def __call__(self, connection: Connection, rows: Sequence[Mapping[str, Any]], /) -> int:
        """One call for all of them."""


class Backend(Protocol):
    """One module a database; adding one is its file and its line in `sql.backend_of`."""

    @property
    def DriverError(self) -> type[Exception] | tuple[type[Exception], ...]:  # noqa: N802 - a class, named as one
        """The base of what its driver raises."""

    def open_engine(self, url: URL) -> Engine:
        """An engine whose transactions with the option `writes` wait for their turn to write."""

    def lock_schema(self, connection: Connection) -> None:
        """Hold off other migrations until the transaction ends."""

    def insert(self, table: Table, engine: Engine) -> Insert:
        """What inserts the rows that are not there."""

    def upkeep(self, engine: Engine) -> None:
        """Do beside the writes what one of them would have to stop for otherwise."""

    def scrub(self, engine: Engine) -> None:
        """Remove what deleted rows left behind in the database's files."""

    def error_code(self, error: BaseException | None) -> str:
        """A short word for a driver's error."""

    def unstorable(self, error: BaseException | None) -> bool:
        """Whether a driver's error is the value's fault, and will be again."""

    def reopen(self, code: str) -> bool:
        """Whether, after such an error, the database is to be opened anew by the next call."""
