"""What a service team would check of its own workload, as entry points: `fallback.emulator.verifiers:order_extraction`.

They recompute and validate what a reply shows. None knows the answer, so each misses something. `gold` alone knows
it: what a team's slow or human review would say, for audits.
"""

from __future__ import annotations

from fallback.emulator.workloads import arithmetic, dates, extraction, grade, programs, recognise, triage
from fallback.emulator.workloads.base import unfold
from fallback.types import Reply, Request, TextBlock


def word_arithmetic(_request: Request, reply: Reply) -> bool:
    """Each equation shown holds, and the last gives the answer."""
    return arithmetic.verify(unfold(reply.text))


def order_extraction(request: Request, reply: Reply) -> bool:
    """All fields are there with the right types, and each value occurs in the message."""
    return extraction.verify(_prompt(request), reply.text)


def program_trace(request: Request, reply: Reply) -> bool:
    """Every pass is traced, and the answer is what the last one says."""
    return programs.verify(_prompt(request), unfold(reply.text))


def ticket_triage(request: Request, reply: Reply) -> bool:
    """One of the allowed labels."""
    return triage.verify(_prompt(request), reply.text)


def date_reasoning(request: Request, reply: Reply) -> bool:
    """The result parses, and the steps shown join up."""
    return dates.verify(_prompt(request), unfold(reply.text))


def gold(request: Request, reply: Reply) -> bool:
    """Right by the simulated workload's own answer; a prompt of no workload is never right."""
    case = recognise(_prompt(request))
    return case is not None and grade(case, reply.text)


def _prompt(request: Request) -> str:
    """The text of the last turn, as the emulator takes it."""
    return "\n\n".join(block.text for block in request.messages[-1].content if isinstance(block, TextBlock))
