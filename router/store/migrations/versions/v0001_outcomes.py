"""Outcomes, the cost of each reply, retained text and feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "outcome",
        sa.Column("request_id", _ID, primary_key=True),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("received_at_s", sa.Double, nullable=False),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("start_tier", sa.Text, nullable=False),
        sa.Column("resolved_tier", sa.Text, nullable=False),
        sa.Column("accepted", sa.SmallInteger, nullable=False),
        sa.Column("escalated", sa.SmallInteger, nullable=False),
        sa.Column("misrouted", sa.SmallInteger, nullable=False),
        sa.Column("start_judged", sa.SmallInteger, nullable=False),
        sa.Column("start_rejected", sa.SmallInteger, nullable=False),
        sa.Column("attempt_count", sa.Integer, nullable=False),
        sa.Column("failure_count", sa.Integer, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sa.Column("top_tier_cost_usd", sa.Double, nullable=False),
        sa.Column("features_version", sa.Text, nullable=False),
        sa.Column("format", sa.SmallInteger, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("decision", sa.Text, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("request_features", sa.LargeBinary, nullable=False),
        sa.Column("reply_features", sa.LargeBinary, nullable=False),
    )
    op.create_index("outcome_received", "outcome", ["received_at_s"])
    op.create_table(
        "reply_cost",
        sa.Column("request_id", _ID, sa.ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.SmallInteger, primary_key=True),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("cost_usd", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "retained_text",
        sa.Column("request_id", _ID, sa.ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("received_at_s", sa.Double, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.Column("prompt_json", sa.Text, nullable=False),
        sa.Column("reply_json", sa.Text, nullable=False),
    )
    op.create_index("retained_text_age", "retained_text", ["workload", "received_at_s"])
    op.create_table(
        "feedback",
        sa.Column("request_id", _ID, sa.ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("good", sa.SmallInteger, nullable=False),
        sa.Column("sufficient_tier", sa.Text, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("reported_at_s", sa.Double, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
