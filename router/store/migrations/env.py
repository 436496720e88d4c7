"""Run by alembic: migrates over the connection, and in the transaction, that the store hands it."""

from __future__ import annotations

from alembic import context

from router.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
