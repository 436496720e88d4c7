"""The built-in simulated workloads: one file each, with a known right answer and a difficulty that tiers feel."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fallback.emulator.workloads.arithmetic import Arithmetic
from fallback.emulator.workloads.base import Case, Workload
from fallback.emulator.workloads.dates import Dates
from fallback.emulator.workloads.extraction import Extraction
from fallback.emulator.workloads.programs import Programs
from fallback.emulator.workloads.triage import Triage

WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {workload.name: workload for workload in (Arithmetic(), Extraction(), Programs(), Triage(), Dates())}
)


def recognise(prompt: str) -> Case | None:
    """The case that a prompt poses, whichever workload it is of; None for any other prompt."""
    for workload in WORKLOADS.values():
        case = workload.recognise(prompt)
        if case is not None:
            return case
    return None


def grade(case: Case, reply_text: str) -> bool:
    """Whether a reply is right: the gold scorer, for scoring and simulated caller feedback only."""
    return WORKLOADS[case.workload].grade(case, reply_text)
