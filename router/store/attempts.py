"""Attempt ⇄ JSON object: what a chain did, without a word of what was said. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from fallback.errors import Failure
from fallback.types import (
    Accept,
    Attempt,
    CheckReport,
    Purpose,
    Reject,
    Remedy,
    Reply,
    StopReason,
    Unjudged,
    Usage,
    Verdict,
)
from router.outcome import Agreement

JsonObject = dict[str, Any]


def _failure_kinds(base: type[Failure]) -> dict[str, type[Failure]]:
    kinds = {base.kind: base}
    for child in base.__subclasses__():
        # An abstract branch inherits its parent's kind; the parent keeps it.
        kinds = _failure_kinds(child) | kinds
    return kinds


_FAILURES = _failure_kinds(Failure)


def _encode_result(result: Reply | Failure) -> JsonObject:
    if isinstance(result, Failure):
        if result.kind not in _FAILURES:
            raise ValueError("a kind of Failure that fallback.errors does not have")
        hint = result.retry_after_s
        return {
            "failure": result.kind,
            "error_type": result.error_type,
            "http_status": result.http_status,
            # The upstream's hint, which may be any nonsense: what is no number is not kept.
            "retry_after_s": hint if hint is not None and math.isfinite(hint) else None,
            "upstream_request_id": result.upstream_request_id,
        }
    usage = result.usage
    return {
        "stop_reason": result.stop_reason.value,
        "model": result.model,
        "upstream_id": result.upstream_id,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_write_5m_tokens": usage.cache_write_5m_tokens,
        "cache_write_1h_tokens": usage.cache_write_1h_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
    }


def _decode_result(row: JsonObject) -> Reply | Failure:
    if "failure" in row:
        return _FAILURES[row["failure"]](
            row["error_type"],
            http_status=row["http_status"],
            retry_after_s=row["retry_after_s"],
            upstream_request_id=row["upstream_request_id"],
        )
    usage = Usage(
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cache_write_5m_tokens=row["cache_write_5m_tokens"],
        cache_write_1h_tokens=row["cache_write_1h_tokens"],
        cache_read_tokens=row["cache_read_tokens"],
    )
    return Reply(
        content=(),
        stop_reason=StopReason(row["stop_reason"]),
        usage=usage,
        model=row["model"],
        upstream_id=row["upstream_id"],
    )


def _encode_verdict(verdict: Verdict) -> list[str]:
    match verdict:
        case Accept():
            return ["accept"]
        case Reject(reason=reason, remedy=remedy, otherwise=otherwise, to=to):
            return ["reject", reason, remedy.value, otherwise.value, to]
        case Unjudged(cause=cause):
            return ["unjudged", cause]


def _decode_verdict(parts: list[str]) -> Verdict:
    match parts:
        case ["accept"]:
            return Accept()
        case ["reject", reason, remedy, otherwise, to]:
            return Reject(reason, Remedy(remedy), Remedy(otherwise), to)
        case ["unjudged", cause]:
            return Unjudged(cause)
        case _:
            raise ValueError("not a verdict")


def encode_attempts(attempts: Sequence[Attempt], agreements: Iterable[Agreement]) -> list[JsonObject]:
    """All attempts, each with how its reply agrees with those before it. Raises ValueError as `encode_attempt`."""
    rows = [encode_attempt(attempt) for attempt in attempts]
    for each in agreements:
        rows[each.second].setdefault("agrees", []).append([each.first, each.same, each.alike])
    return rows


def decode_attempts(rows: Sequence[JsonObject]) -> tuple[tuple[Attempt, ...], tuple[Agreement, ...]]:
    """What was encoded; a row from before agreements were recorded has none. Raises as `decode_attempt`."""
    agreements = tuple(
        Agreement(first, second, same, alike)
        for second, row in enumerate(rows)
        for first, same, alike in row.get("agrees", ())
    )
    return tuple(map(decode_attempt, rows)), agreements


def encode_attempt(attempt: Attempt) -> JsonObject:
    """The JSON object of one attempt. Raises ValueError for a Failure outside the tree."""
    return {
        "tier": attempt.tier,
        "model": attempt.model,
        "endpoint": attempt.endpoint,
        "purpose": attempt.purpose.value,
        "started_s": attempt.started_s,
        "duration_s": attempt.duration_s,
        "cost_usd": attempt.cost_usd,
        "result": _encode_result(attempt.result),
        "checks": [_encode_report(report) for report in attempt.checks],
    }


def _encode_report(report: CheckReport) -> JsonObject:
    row: JsonObject = {
        "check": report.check,
        "version": report.version,
        "verdict": _encode_verdict(report.verdict),
        "score": report.score,
        "cost_usd": report.cost_usd,
        "started_s": report.started_s,
        "duration_s": report.duration_s,
    }
    if report.calls:  # absent in most reports, and in rows written before there were any
        row["calls"] = report.calls
    if report.overruled:
        row["overruled"] = True
    return row


def decode_attempt(row: JsonObject) -> Attempt:
    """The attempt, its reply without content. Raises KeyError, TypeError or ValueError for anything else."""
    return Attempt(
        tier=row["tier"],
        model=row["model"],
        endpoint=row["endpoint"],
        purpose=Purpose(row["purpose"]),
        result=_decode_result(row["result"]),
        started_s=row["started_s"],
        duration_s=row["duration_s"],
        cost_usd=row["cost_usd"],
        checks=tuple(
            CheckReport(
                check=report["check"],
                version=report["version"],
                verdict=_decode_verdict(report["verdict"]),
                score=report["score"],
                cost_usd=report["cost_usd"],
                started_s=report["started_s"],
                duration_s=report["duration_s"],
                calls=report.get("calls", 0),
                overruled=report.get("overruled", False),
            )
            for report in row["checks"]
        ),
    )
