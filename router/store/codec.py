"""Outcome ⇄ row. Pure.

Reply content is never stored. Every row carries a CRC-32 of all its other columns: a row that is not
as it was written is refused when it is read (`CorruptRow`), so that damage on disk never becomes a
wrong training example. (A flipped bit, or any burst of up to 32 bits, never passes; random garbage
passes once in four thousand million times.)
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fallback.errors import Failure
from fallback.types import Attempt, Remedy, Reply, Unjudged
from router.outcome import Decision, Feedback, Mode, Outcome, Passage, RetainedText, passages
from router.store import schema
from router.store.attempts import decode_attempts, encode_attempts

FORMAT = 1  # of the JSON and of reply_features; a reader refuses a format that it does not know

Row = dict[str, Any]
_LENGTH = struct.Struct("<i")
_ABSENT = -1
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class CorruptRow(Exception):
    """The row is not one that `encode` wrote. Says nothing of its content."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One outcome as rows: its own, one per reply for the costs, and the retained text if any."""

    outcome: Row
    reply_costs: list[Row]
    retained: Row | None


# --- checksums -------------------------------------------------------------------------------

_BLOBS = ("request_features", "reply_features")
_SCALARS = tuple(c.name for c in schema.outcome.columns if c.name not in (*_BLOBS, "checksum"))
_RETAINED = tuple(c.name for c in schema.retained_text.columns if c.name != "checksum")
_FEEDBACK = tuple(c.name for c in schema.feedback.columns if c.name != "checksum")


def checksum(row: Row, names: Sequence[str]) -> int:
    """CRC-32 of these columns."""
    # ascii() rather than repr(): what counts as printable changes between Python versions.
    return zlib.crc32(ascii([row[name] for name in names]).encode("ascii"))


def _outcome_checksum(row: Row) -> int:
    crc = checksum(row, _SCALARS)
    for name in _BLOBS:
        crc = zlib.crc32(row[name], zlib.crc32(_LENGTH.pack(len(row[name])), crc))
    return crc


def finite(value: float) -> float:
    """The float to store. Raises ValueError for NaN and infinity; -0.0 becomes 0.0, as in SQLite."""
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return float(value) + 0.0


# --- decision and features --------------------------------------------------------------------


def _encode_decision(decision: Decision) -> Row:
    return {
        "mode": decision.mode.value,
        "tiers": decision.tiers,
        "reason": decision.reason,
        "probabilities": dict(decision.probabilities),
        "propensities": dict(decision.propensities),
        "expected_cost_usd": dict(decision.expected_cost_usd),
        "mistake_cost_usd": finite(decision.mistake_cost_usd),
        "model_version": decision.model_version,
        "explored": decision.explored,
        "expected_time_s": dict(decision.expected_time_s),
        "expected_time_sd_s": dict(decision.expected_time_sd_s),
    }


def _decode_decision(row: Row) -> Decision:
    return Decision(**{**row, "mode": Mode(row["mode"]), "tiers": tuple(row["tiers"])})


def _pack_features(vectors: Sequence[bytes | None]) -> bytes:
    parts = []
    for vector in vectors:
        parts += [_LENGTH.pack(_ABSENT)] if vector is None else [_LENGTH.pack(len(vector)), vector]
    return b"".join(parts)


def _unpack_features(packed: bytes) -> tuple[bytes | None, ...]:
    vectors: list[bytes | None] = []
    at = 0
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size
        vectors.append(None if length == _ABSENT else packed[at : at + length])
        at += max(length, 0)
    return tuple(vectors)


def _start_verdict(outcome: Outcome) -> tuple[bool, bool]:
    """Whether the start tier's last reply was judged, and whether it was rejected for a higher tier."""
    start = outcome.decision.start_tier if outcome.decision.tiers else ""
    replies = [a for a in outcome.attempts if a.tier == start and isinstance(a.result, Reply)]
    if not replies:
        return False, False
    judged = any(not isinstance(report.verdict, Unjudged) for report in replies[-1].checks)
    rejection = replies[-1].rejection
    return judged, rejection is not None and rejection.remedy is not Remedy.HAND_BACK


def _reply_cost(request_id: str, position: int, attempt: Attempt, passage: Passage | None) -> Row:
    check_usd, check_s = attempt.checks_usd, attempt.checks_s
    assert isinstance(attempt.result, Reply)
    return {
        "request_id": request_id,
        "position": position,
        "tier": attempt.tier,
        "cost_usd": finite(attempt.cost_usd + check_usd),
        "check_usd": finite(check_usd),
        "duration_s": finite(attempt.duration_s + check_s),
        "check_s": finite(check_s),
        "output_tokens": float(attempt.result.usage.output_tokens),
        "followed": None if passage is None else passage.after,
        "rejected": None if passage is None else int(passage.rejected),
    }


def encode(outcome: Outcome) -> Encoded:
    """The rows of one outcome. Raises ValueError for what cannot be stored (a cost that is NaN)."""
    judged, rejected = _start_verdict(outcome)
    received_at_s = finite(outcome.received_at_s)
    row: Row = {
        "request_id": outcome.request_id,
        "workload": outcome.workload,
        "received_at_s": received_at_s,
        "duration_s": finite(outcome.duration_s),
        "status": outcome.status,
        "mode": outcome.decision.mode.value,
        "start_tier": outcome.decision.tiers[0] if outcome.decision.tiers else "",
        "resolved_tier": outcome.resolved_tier,
        "accepted": int(outcome.accepted),
        "escalated": int(outcome.escalated),
        "misrouted": int(bool(outcome.decision.tiers) and outcome.misrouted),
        "start_judged": int(judged),
        "start_rejected": int(rejected),
        "attempt_count": len(outcome.attempts),
        "failure_count": sum(isinstance(attempt.result, Failure) for attempt in outcome.attempts),
        "cost_usd": finite(outcome.cost_usd),
        "top_tier_cost_usd": finite(outcome.top_tier_cost_usd),
        "features_version": outcome.features_version,
        "format": FORMAT,
        "labels": _dumps(dict(outcome.labels)),
        "reasons": _dumps(outcome.reasons),
        "decision": _dumps(_encode_decision(outcome.decision)),
        "attempts": _dumps(encode_attempts(outcome.attempts, outcome.agreements)),
        "request_features": outcome.request_features,
        "reply_features": _pack_features(outcome.reply_features),
    }
    row["checksum"] = _outcome_checksum(row)
    passed = {passage.position: passage for passage in passages(outcome)}
    costs = [
        _reply_cost(outcome.request_id, position, attempt, passed.get(position))
        for position, attempt in enumerate(outcome.attempts)
        if isinstance(attempt.result, Reply)
    ]
    retained: Row | None = None
    if outcome.retained is not None:
        retained = {
            "request_id": outcome.request_id,
            "workload": outcome.workload,
            "received_at_s": received_at_s,
            "prompt_json": outcome.retained.prompt_json,
            "reply_json": outcome.retained.reply_json,
        }
        retained["checksum"] = checksum(retained, _RETAINED)
    return Encoded(row, costs, retained)


def decode(row: Row, retained: Row | None) -> Outcome:
    """The outcome that was encoded, without reply content. Raises CorruptRow for anything else."""
    try:
        if row["checksum"] != _outcome_checksum(row) or row["format"] != FORMAT:
            raise CorruptRow
        if retained is not None and retained["checksum"] != checksum(retained, _RETAINED):
            raise CorruptRow
        attempts, agreements = decode_attempts(json.loads(row["attempts"]))
        return Outcome(
            request_id=row["request_id"],
            workload=row["workload"],
            received_at_s=row["received_at_s"],
            duration_s=row["duration_s"],
            status=row["status"],
            decision=_decode_decision(json.loads(row["decision"])),
            attempts=attempts,
            resolved_tier=row["resolved_tier"],
            accepted=bool(row["accepted"]),
            reasons=tuple(json.loads(row["reasons"])),
            cost_usd=row["cost_usd"],
            top_tier_cost_usd=row["top_tier_cost_usd"],
            features_version=row["features_version"],
            request_features=row["request_features"],
            reply_features=_unpack_features(row["reply_features"]),
            labels=json.loads(row["labels"]),
            agreements=agreements,
            retained=RetainedText(retained["prompt_json"], retained["reply_json"]) if retained else None,
        )
    except (KeyError, TypeError, ValueError, struct.error):
        raise CorruptRow from None  # the cause could quote the row


def encode_feedback(feedback: Feedback) -> Row:
    """The row of one report. Raises ValueError for what cannot be stored."""
    row: Row = {
        "request_id": feedback.request_id,
        "good": int(feedback.good),
        "sufficient_tier": feedback.sufficient_tier,
        "score": None if feedback.score is None else finite(feedback.score),
        "reason": feedback.reason,
        "reported_at_s": finite(feedback.reported_at_s),
    }
    row["checksum"] = checksum(row, _FEEDBACK)
    return row


def decode_feedback(row: Row) -> Feedback:
    """The report that was encoded. Raises CorruptRow for anything else."""
    try:
        fields = dict(row)
        if fields.pop("checksum") != checksum(fields, _FEEDBACK):
            raise CorruptRow
        return Feedback(**{**fields, "good": bool(fields["good"])})
    except (KeyError, TypeError):
        raise CorruptRow from None
