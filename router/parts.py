"""What a configuration may name: one line for each check and each store.

Adding one is its file plus its line here; the contract tests run over these tables.
"""

from __future__ import annotations

from collections.abc import Callable

from fallback.checks import Check
from fallback.checks.agreement import AgreementCheck
from fallback.checks.degenerate import DegenerateCheck
from fallback.checks.form import FieldsCheck, LabelsCheck, RegexCheck
from fallback.checks.grounded import GroundedCheck
from fallback.checks.judge import JudgeCheck
from fallback.checks.schema import JsonSchemaCheck, OutputSchemaCheck, ToolArgumentsCheck
from fallback.checks.stop_reason import StopReasonCheck
from fallback.checks.verifier import VerifierCheck

# Checks that a workload adds, by the name that its configuration uses.
CHECKS: dict[str, Callable[..., Check]] = {
    AgreementCheck.name: AgreementCheck,
    FieldsCheck.name: FieldsCheck,
    GroundedCheck.name: GroundedCheck,
    JsonSchemaCheck.name: JsonSchemaCheck,
    JudgeCheck.name: JudgeCheck,
    LabelsCheck.name: LabelsCheck,
    RegexCheck.name: RegexCheck,
    VerifierCheck.name: VerifierCheck,
}

# Free checks that every reply goes through first, after the workload's own stop-reason policy.
ALWAYS: tuple[Check, ...] = (DegenerateCheck(), OutputSchemaCheck(), ToolArgumentsCheck())

__all__ = ["ALWAYS", "CHECKS", "StopReasonCheck"]
