"""What each reply took, what its checks took and cost, and how it was judged after which one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; unknown (null) for replies before."""
    for name in ("check_usd", "duration_s", "check_s", "output_tokens"):
        op.add_column("reply_cost", sa.Column(name, sa.Double))
    op.add_column("reply_cost", sa.Column("followed", sa.Text))
    op.add_column("reply_cost", sa.Column("rejected", sa.SmallInteger))
