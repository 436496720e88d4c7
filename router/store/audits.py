"""Audit ⇄ row, and the statements about audits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, func, select

from router.outcome import Audit, AuditMethod, AuditVerdict
from router.store import AuditTally
from router.store.codec import CorruptRow, Row, checksum, finite
from router.store.schema import audit, outcome

_COLUMNS = tuple(column.name for column in audit.columns if column.name != "checksum")
OF_REQUESTS = select(audit).where(audit.c.request_id.in_(bindparam("ids", expanding=True))).order_by(audit.c.tier)


def encode(one: Audit) -> Row:
    """The row of one audit. Raises ValueError for what cannot be stored."""
    if not 0.0 < one.propensity <= 1.0:
        raise ValueError("not a probability")
    row: Row = {
        "request_id": one.request_id,
        "tier": one.tier,
        "workload": one.workload,
        "accepted": int(one.accepted),
        "auditor_tier": one.auditor_tier,
        "verdict": one.verdict.value,
        "auditor_verdict": one.auditor_verdict.value,
        "method": one.method.value,
        "propensity": finite(one.propensity),
        "attempts": one.attempts,
        "cost_usd": finite(one.cost_usd),
        "audited_at_s": finite(one.audited_at_s),
        "reply_features": one.reply_features,
    }
    row["checksum"] = checksum(row, _COLUMNS)
    return row


def decode(row: Row) -> Audit:
    """The audit that was encoded. Raises CorruptRow for anything else."""
    try:
        fields = dict(row)
        if fields.pop("checksum") != checksum(fields, _COLUMNS):
            raise CorruptRow
        return Audit(
            **{
                **fields,
                "accepted": bool(fields["accepted"]),
                "verdict": AuditVerdict(fields["verdict"]),
                "auditor_verdict": AuditVerdict(fields["auditor_verdict"]),
                "method": AuditMethod(fields["method"]),
            }
        )
    except (KeyError, TypeError, ValueError):
        raise CorruptRow from None


def of_requests(connection: Connection, ids: Iterable[str]) -> Mapping[str, list[Row]]:
    """The rows of these requests' audits, by request."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in connection.execute(OF_REQUESTS, {"ids": list(ids)}).mappings():
        found[row["request_id"]].append(dict(row))
    return found


def tallies(connection: Connection, since_s: float) -> Mapping[str, tuple[AuditTally, ...]]:
    """By workload, of requests received since then."""
    a = audit.c
    groups = (a.workload, a.tier, a.accepted, a.method, a.verdict)
    statement = (
        select(
            *groups,
            func.count().label("count"),
            func.sum(1.0 / a.propensity).label("weight"),
            func.sum(1.0 / (a.propensity * a.propensity)).label("weight_squared"),
            func.sum(a.cost_usd).label("cost_usd"),
        )
        .select_from(audit.join(outcome))
        .where(outcome.c.received_at_s >= since_s)
        .group_by(*groups)
        .order_by(*groups)
    )
    found: dict[str, list[AuditTally]] = defaultdict(list)
    for row in connection.execute(statement).mappings():
        fields = {key: value for key, value in row.items() if key != "workload"}
        given = {"accepted": bool(row["accepted"]), "method": AuditMethod(row["method"])}
        found[row["workload"]].append(AuditTally(**{**fields, **given, "verdict": AuditVerdict(row["verdict"])}))
    return {workload: tuple(rows) for workload, rows in found.items()}


def spent_usd(connection: Connection, since_s: float) -> dict[str, float]:
    """What the audits since then cost, by workload."""
    a = audit.c
    statement = select(a.workload, func.sum(a.cost_usd)).where(a.audited_at_s >= since_s).group_by(a.workload)
    return {workload: float(usd) for workload, usd in connection.execute(statement)}
