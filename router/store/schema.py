"""The tables, one schema for every SQL database. Changing them takes a migration (`migrations/versions`).

Narrow columns come first and wide ones last, so that a scan that needs only the first does not load
the rest. Truth values are 0 or 1 in small integers, because every database can sum those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

# The newest revision in `migrations/versions`: a test holds the two together, so that opening a
# store at head costs one query and no import of alembic.
HEAD = "0004"


class Bytes(LargeBinary):
    """Bytes as the driver gives them: a damaged cell must arrive as it is, not converted."""

    def bind_processor(self, dialect: Any) -> None:
        """Drivers take bytes as they are."""

    def result_processor(self, dialect: Any, coltype: Any) -> None:
        """Drivers give bytes as they are."""


# Ids are compared byte by byte, whatever the database's language: order of id is order of time.
Id = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

outcome = Table(
    "outcome",
    metadata,
    Column("request_id", Id, primary_key=True),
    Column("workload", Text, nullable=False),
    Column("received_at_s", Double, nullable=False),
    Column("duration_s", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("start_tier", Text, nullable=False),
    Column("resolved_tier", Text, nullable=False),
    Column("accepted", SmallInteger, nullable=False),
    Column("escalated", SmallInteger, nullable=False),
    Column("misrouted", SmallInteger, nullable=False),
    Column("start_judged", SmallInteger, nullable=False),
    Column("start_rejected", SmallInteger, nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("failure_count", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("top_tier_cost_usd", Double, nullable=False),
    Column("features_version", Text, nullable=False),
    Column("format", SmallInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("labels", Text, nullable=False),
    Column("reasons", Text, nullable=False),
    Column("decision", Text, nullable=False),
    Column("attempts", Text, nullable=False),
    Column("request_features", Bytes, nullable=False),
    Column("reply_features", Bytes, nullable=False),
    Index("outcome_received", "received_at_s"),
)

# What each reply and its checks cost and took, so that means per tier are one query; the truth is in outcome.attempts.
# `followed` and `rejected` are set where a chain without a model tells how often replies pass (`outcome.passages`).
reply_cost = Table(
    "reply_cost",
    metadata,
    Column("request_id", Id, ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
    Column("position", SmallInteger, primary_key=True),
    Column("tier", Text, nullable=False),
    Column("cost_usd", Double, nullable=False),  # with its checks
    Column("check_usd", Double),
    Column("duration_s", Double),  # with its checks
    Column("check_s", Double),
    Column("output_tokens", Double),
    Column("followed", Text),
    Column("rejected", SmallInteger),
    sqlite_with_rowid=False,
)

retained_text = Table(
    "retained_text",
    metadata,
    Column("request_id", Id, ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
    Column("workload", Text, nullable=False),
    Column("received_at_s", Double, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("prompt_json", Text, nullable=False),
    Column("reply_json", Text, nullable=False),
    Index("retained_text_age", "workload", "received_at_s"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("request_id", Id, ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
    Column("good", SmallInteger, nullable=False),
    Column("sufficient_tier", Text, nullable=False),
    Column("score", Double),
    Column("reason", Text, nullable=False),
    Column("reported_at_s", Double, nullable=False),
    Column("checksum", BigInteger, nullable=False),
)

# One row for each tier's reply that was audited; `attempts` and `cost_usd` are the audit's own, never the request's.
audit = Table(
    "audit",
    metadata,
    Column("request_id", Id, ForeignKey("outcome.request_id", ondelete="CASCADE"), primary_key=True),
    Column("tier", Text, primary_key=True),
    Column("workload", Text, nullable=False),
    Column("accepted", SmallInteger, nullable=False),
    Column("auditor_tier", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("auditor_verdict", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cost_usd", Double, nullable=False),
    Column("audited_at_s", Double, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("reply_features", Bytes, nullable=False),
    Index("audit_at", "audited_at_s"),
)

alarm = Table(
    "alarm",
    metadata,
    Column("workload", Text, primary_key=True),
    Column("tier", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("at_s", Double, primary_key=True),
    Column("cleared", SmallInteger, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("model_version", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("observed", Double, nullable=False),
    Column("expected", Double, nullable=False),
    Column("checksum", BigInteger, nullable=False),
)
