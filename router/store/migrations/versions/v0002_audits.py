"""Audits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "audit",
        sa.Column("request_id", _ID, sa.ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tier", sa.Text, primary_key=True),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("accepted", sa.SmallInteger, nullable=False),
        sa.Column("auditor_tier", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("auditor_verdict", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("propensity", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("audited_at_s", sa.Double, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.Column("reply_features", sa.LargeBinary, nullable=False),
    )
    op.create_index("audit_at", "audit", ["audited_at_s"])
