"""What two replies to the same request say about each other, and who decides it.

1. An audit verifier judges each reply by itself: it knows the truth both ways.
2. Replies with the same answer are equally good.
3. Of two others a judge says which is better; an accepted reply is bad where the dearer one is.
4. Else nobody knows. Saying "bad" would blame the cheaper reply for every question with several right answers,
   saying "good" would hide what audits are for.

The workload's own checks have no say on the audited reply: they accepted it, and would again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from fallback.answers import agreement, find_answer
from fallback.checks import Case, Check
from fallback.checks.degenerate import DegenerateCheck
from fallback.checks.form import FieldsCheck, LabelsCheck, RegexCheck
from fallback.checks.schema import JsonSchemaCheck, OutputSchemaCheck, ToolArgumentsCheck
from fallback.checks.stop_reason import StopReasonCheck
from fallback.types import Accept, Attempt, Reject, Reply, Request
from router.outcome import AuditMethod, AuditVerdict, Outcome

# What these reject lacks the form that was asked for: sending it on is right whatever the answer in it.
FORM = frozenset(
    check.name
    for check in (
        StopReasonCheck,
        DegenerateCheck,
        OutputSchemaCheck,
        ToolArgumentsCheck,
        JsonSchemaCheck,
        FieldsCheck,
        LabelsCheck,
        RegexCheck,
    )
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of the audited reply, by what, and of the auditor's own."""

    verdict: AuditVerdict
    method: AuditMethod
    auditor_verdict: AuditVerdict = AuditVerdict.UNKNOWN


NO_REPLY = Finding(AuditVerdict.UNKNOWN, AuditMethod.FAILURE)


class Judge(Protocol):
    """Says which of two replies is better."""

    async def prefers(self, request: Request, first: Reply, second: Reply) -> AuditVerdict:
        """GOOD where the first is at least as good, BAD where the second is better, UNKNOWN where it cannot tell."""


async def verified(verifier: Check, request: Request, reply: Reply, tier: str) -> AuditVerdict:
    """What an audit verifier says of one reply."""
    judgement = await verifier.judge(Case(request, reply, tier, (), math.inf))
    match judgement.verdict:
        case Accept():
            return AuditVerdict.GOOD
        case Reject():
            return AuditVerdict.BAD
        case _:
            return AuditVerdict.UNKNOWN


async def compared(request: Request, audited: Reply, other: Reply, judge: Judge | None) -> Finding:
    """What the other reply shows of the audited one."""
    method = AuditMethod.ANSWERS if judge is None else AuditMethod.JUDGE
    if same_answer(audited, other):
        return Finding(AuditVerdict.GOOD, method)
    if judge is None:
        return Finding(AuditVerdict.UNKNOWN, method)
    return Finding(await judge.prefers(request, audited, other), method)


def same_answer(one: Reply, other: Reply) -> bool:
    """Whether both say the same: the same tool calls, the same JSON, or the same answer in the text."""
    if one.tool_uses or other.tool_uses:
        return _calls(one) == _calls(other)
    first, second = _json(one.text), _json(other.text)
    if first is not None and second is not None:
        return bool(first == second)
    return agreement(find_answer(one.text), find_answer(other.text))[1] == 1.0


def sent_on(outcome: Outcome) -> Iterator[Attempt]:
    """The last reply of each tier that a judgement of its content sent on, where a higher tier's was accepted."""
    last = {attempt.tier: attempt for attempt in outcome.attempts if isinstance(attempt.result, Reply)}
    if not outcome.accepted:
        return
    for tier, attempt in last.items():
        by = next(
            (report.check for report in attempt.checks if isinstance(report.verdict, Reject) and not report.overruled),
            "",
        )
        if tier != outcome.resolved_tier and by and by not in FORM:
            yield attempt


def _calls(reply: Reply) -> list[tuple[str, Any]]:
    return [(use.name, dict(use.input)) for use in reply.tool_uses]


def _json(text: str) -> Any | None:
    """The text as a JSON object or array; None where it is neither."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
