"""The statements that read, and how their rows become values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from router.outcome import Mode
from router.store import ReplyMeans, WorkloadStats, audits
from router.store.codec import Row
from router.store.schema import feedback, outcome, reply_cost, retained_text

ABOUT_OUTCOME = (
    select(
        outcome.c.received_at_s,
        outcome.c.workload,
        outcome.c.resolved_tier,
        feedback.c.request_id.is_not(None).label("reported"),
    )
    .select_from(outcome.outerjoin(feedback))
    .where(outcome.c.request_id == bindparam("id"))
)

# `+ 0.0` keeps the index on received_at_s out of it: rows come in the order of their id, and sorting
# all of them again for every chunk would make reading quadratic.
CHUNK = (
    select(outcome, feedback, retained_text)
    .select_from(
        outcome.outerjoin(feedback).outerjoin(retained_text, retained_text.c.request_id == outcome.c.request_id)
    )
    .where(outcome.c.request_id > bindparam("after"))
    .where(outcome.c.received_at_s + 0.0 >= bindparam("since"))
    .where(outcome.c.received_at_s + 0.0 < bindparam("until"))
    .order_by(outcome.c.request_id)
    .limit(bindparam("limit"))
)
_OUTCOME = tuple(outcome.columns.keys())
_FEEDBACK = tuple(feedback.columns.keys())
_RETAINED = tuple(retained_text.columns.keys())


def split(row: Sequence[Any]) -> tuple[Row, Row | None, Row | None]:
    """A row of CHUNK as the rows of outcome, feedback and retained_text; None where there is none."""
    to_feedback = len(_OUTCOME)
    to_retained = to_feedback + len(_FEEDBACK)
    story = dict(zip(_OUTCOME, row[:to_feedback], strict=True))
    judgement = dict(zip(_FEEDBACK, row[to_feedback:to_retained], strict=True))
    kept = dict(zip(_RETAINED, row[to_retained:], strict=True))
    return (
        story,
        judgement if any(value is not None for value in judgement.values()) else None,
        kept if any(value is not None for value in kept.values()) else None,
    )


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """How many rows of a group meet the condition."""
    return func.count().filter(condition)


def _totals(since_s: float) -> Select[Any]:
    o = outcome.c
    return (
        select(
            o.workload,
            func.count().label("requests"),
            _count((o.resolved_tier != "") & (o.accepted == 0)).label("unaccepted"),
            _count(o.resolved_tier == "").label("no_reply"),
            func.sum(o.escalated).label("escalated"),
            _count(o.mode == Mode.DIRECT.value).label("direct"),
            func.sum(o.misrouted).label("misroutes"),
            func.sum(o.attempt_count).label("attempts"),
            func.sum(o.failure_count).label("failures"),
            func.sum(o.cost_usd).label("cost_usd"),
            func.sum(o.top_tier_cost_usd).label("top_tier_cost_usd"),
            _count(feedback.c.good == 1).label("feedback_good"),
            _count(feedback.c.good == 0).label("feedback_bad"),
        )
        .select_from(outcome.outerjoin(feedback))
        .where(o.received_at_s >= since_s)
        .group_by(o.workload)
    )


def _by_tier(connection: Connection, statement: Select[Any]) -> dict[str, dict[str, Any]]:
    """Rows of (workload, tier, value) as workload → tier → value."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for workload, tier, value in connection.execute(statement):
        found[workload][tier] = value
    return found


def _reply_means(connection: Connection, recent: ColumnElement[bool]) -> dict[str, dict[str, ReplyMeans]]:
    """By workload and tier: means, of the replies that have them."""
    r = reply_cost.c
    statement = (
        select(
            outcome.c.workload,
            r.tier,
            func.count(),
            func.avg(r.check_usd),
            func.avg(r.duration_s),
            func.avg(r.duration_s * r.duration_s),
            func.avg(r.check_s),
            func.avg(r.output_tokens),
        )
        .select_from(outcome.join(reply_cost))
        .where(recent & r.duration_s.is_not(None))
        .group_by(outcome.c.workload, r.tier)
    )
    found: dict[str, dict[str, ReplyMeans]] = defaultdict(dict)
    for workload, tier, *means in connection.execute(statement):
        found[workload][tier] = ReplyMeans(means[0], *map(float, means[1:]))
    return found


def _passages(connection: Connection, recent: ColumnElement[bool]) -> dict[str, dict[tuple[str, str], tuple[int, int]]]:
    """By workload and (tier before, tier): (judged, rejected)."""
    r = reply_cost.c
    statement = (
        select(outcome.c.workload, r.followed, r.tier, func.count(), func.sum(r.rejected))
        .select_from(outcome.join(reply_cost))
        .where(recent & r.rejected.is_not(None))
        .group_by(outcome.c.workload, r.followed, r.tier)
    )
    found: dict[str, dict[tuple[str, str], tuple[int, int]]] = defaultdict(dict)
    for workload, before, tier, judged, rejected in connection.execute(statement):
        found[workload][before, tier] = judged, rejected
    return found


def stats(connection: Connection, since_s: float) -> list[WorkloadStats]:
    """The numbers of every workload with a request since `since_s`, by name."""
    o, recent = outcome.c, outcome.c.received_at_s >= since_s
    accepted = recent & (o.accepted == 1) & (o.resolved_tier != "")
    chains = recent & (o.mode == Mode.CHAIN.value) & (o.start_judged == 1)
    resolved = _by_tier(
        connection,
        select(o.workload, o.resolved_tier, func.count()).where(accepted).group_by(o.workload, o.resolved_tier),
    )
    judged = _by_tier(
        connection,
        select(o.workload, o.start_tier, func.count()).where(chains).group_by(o.workload, o.start_tier),
    )
    rejected = _by_tier(
        connection,
        select(o.workload, o.start_tier, func.sum(o.start_rejected)).where(chains).group_by(o.workload, o.start_tier),
    )
    costs = _by_tier(
        connection,
        select(o.workload, reply_cost.c.tier, func.avg(reply_cost.c.cost_usd))
        .select_from(outcome.join(reply_cost))
        .where(recent)
        .group_by(o.workload, reply_cost.c.tier),
    )
    audited = audits.tallies(connection, since_s)
    means = _reply_means(connection, recent)
    passed = _passages(connection, recent)
    return [
        WorkloadStats(
            **row,
            resolved=resolved.get(row["workload"], {}),
            first_judged=judged.get(row["workload"], {}),
            first_rejected=rejected.get(row["workload"], {}),
            attempt_cost_usd=costs.get(row["workload"], {}),
            reply_means=means.get(row["workload"], {}),
            passages=passed.get(row["workload"], {}),
            audits=audited.get(row["workload"], ()),
        )
        # Sorted here, because databases sort words by their language.
        for row in sorted(connection.execute(_totals(since_s)).mappings(), key=lambda row: str(row["workload"]))
    ]
