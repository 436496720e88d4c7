"""Brings a schema to head with alembic. Imported only when it is not there."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from router.store import StoreError


def upgrade(connection: Connection) -> None:
    """Apply, inside the connection's transaction, every migration that is missing.

    Raises StoreError with code `schema` when the schema is one that this version does not know.
    """
    config = Config()
    config.set_main_option("script_location", "router.store:migrations")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise StoreError("schema", "made by a newer version of tierwise, or not a store of tierwise's") from None
