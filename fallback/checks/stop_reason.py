"""Truncated or refused: what the tier itself says about its reply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from fallback.checks import Case, Judgement
from fallback.types import Accept, Reject, Remedy, StopReason

Policy = Literal["escalate", "hand_back"]


@dataclass(frozen=True, slots=True)
class StopReasonCheck:
    """Rejects truncated and refused replies; the workload's policy says what helps.

    Truncation is no lack of ability: the limit is raised first where the request allows it.
    """

    name: ClassVar[str] = "stop_reason"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    truncated: Policy = "escalate"
    refused: Policy = "hand_back"

    async def judge(self, case: Case) -> Judgement:
        """By stop reason alone."""
        match case.reply.stop_reason:
            case StopReason.MAX_TOKENS:
                return Judgement(Reject("truncated", Remedy.RAISE_LIMIT, otherwise=Remedy(self.truncated)))
            case StopReason.CONTEXT_EXCEEDED:
                # Every tier has the same window, so a dearer one would be cut off too.
                return Judgement(Reject("context_exceeded", Remedy.HAND_BACK))
            case StopReason.REFUSAL:
                return Judgement(Reject("refused", Remedy(self.refused)))
            case _:
                return Judgement(Accept())
