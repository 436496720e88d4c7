"""Alarms of drift."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "alarm",
        sa.Column("workload", sa.Text, primary_key=True),
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("at_s", sa.Double, primary_key=True),
        sa.Column("cleared", sa.SmallInteger, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("observed", sa.Double, nullable=False),
        sa.Column("expected", sa.Double, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
