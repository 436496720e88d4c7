"""How the schema came to be, step by step (alembic). Read only when a store is not at head."""
