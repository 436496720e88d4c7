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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fallback import sameness
from fallback.checks import Case, Check
from fallback.checks.agreement import AgreementCheck
from fallback.checks.degenerate import DegenerateCheck
from fallback.checks.form import FieldsCheck, LabelsCheck, RegexCheck
from fallback.checks.judge import Compared, JudgeCheck
from fallback.checks.schema import JsonSchemaCheck, OutputSchemaCheck, ToolArgumentsCheck
from fallback.checks.stop_reason import StopReasonCheck
from fallback.types import Accept, Attempt, Reject, Reply, Request, Unjudged, Verdict
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


async def verified(verifier: Check, request: Request, reply: Reply, tier: str) -> AuditVerdict:
    """What an audit verifier says of one reply."""
    judgement = await verifier.judge(Case(request, reply, tier, (), math.inf))
    return found(judgement.verdict)


def found(verdict: Verdict) -> AuditVerdict:
    """A check's verdict as an audit's."""
    match verdict:
        case Accept():
            return AuditVerdict.GOOD
        case Reject():
            return AuditVerdict.BAD
        case _:
            return AuditVerdict.UNKNOWN


def by_answers(audited: Reply, other: Reply, checks: Sequence[Check]) -> Finding:
    """What their answers alone show."""
    same = same_answer(audited, other, checks)
    return Finding(AuditVerdict.GOOD if same else AuditVerdict.UNKNOWN, AuditMethod.ANSWERS)


def same_answer(one: Reply, other: Reply, checks: Sequence[Check] = ()) -> bool:
    """Whether both say the same, by the notion that the workload gave its agreement check where it has one.

    Else: the same tool calls, the same JSON, or the same answer in the text.
    """
    for check in checks:
        if isinstance(check, AgreementCheck):
            return sameness.same_answer(
                check.answer, one, other, field=check.field, tolerance=check.tolerance, alike=check.similarity
            )
    first, second = _json(one), _json(other)
    if first is not None and second is not None:
        return bool(first == second)
    return sameness.same_answer("auto", one, other)


def judge_of(checks: Sequence[Check]) -> JudgeCheck | None:
    """The workload's judge, where it has one."""
    return next((check for check in checks if isinstance(check, JudgeCheck)), None)


def verdict_of(compared: Compared) -> Verdict:
    """A judge's word on an audited reply, given first, beside the auditor's: at least as good is good enough."""
    match compared.better:
        case "first" | "equal":
            return Accept()
        case "second":
            return Reject("auditor_better")
        case _:
            return Unjudged(compared.cause or "abstained")


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


def _json(reply: Reply) -> Any | None:
    """A reply without tool calls as a JSON object or array; None where it is neither."""
    if reply.tool_uses or reply.text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(reply.text)
    except (ValueError, RecursionError):
        return None
