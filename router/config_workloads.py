"""The policy of a workload: fields, defaults and what each refuses."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from fallback.checks import Check
from fallback.checks.stop_reason import Policy
from fallback.checks.verifier import VerifierCheck
from router.certificate import Promise
from router.config_base import Flag, Number, Seconds, Section, Share, Usd, explain
from router.parts import ALWAYS, CHECKS, StopReasonCheck


class AuditVerifierConfig(Section):
    """A function that knows the truth of a reply: what the checks leave open, such as running the tests."""

    entry_point: str
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        self.build()
        return self

    def build(self) -> VerifierCheck:
        """For audits."""
        return VerifierCheck(self.entry_point, self.timeout_s)


class WorkloadConfig(Section):
    """The policy of one workload.

    `start_tier` is the static plan's, used until a model or the workload's own escalations say
    better; with `static_plan = "fixed"` only a model does. `explore` is the share of requests on
    which another start tier is tried on purpose.
    `direct_threshold` is the P(good) from which a tier is asked without paid checks. `quality_target` is
    the share of the best tier's quality to keep: the model brings what a mistake must be taken to cost
    for it, unless `mistake_cost_usd` says what a bad reply really costs this workload. `hopeless` is what a
    rejected reply leads to where no higher tier is likely enough to do better for its price. `false_accept_max`
    is the share of bad replies among the accepted that the workload allows, kept with probability
    `false_accept_confidence` where there is evidence (`router.certificate`). `audit_share` of
    the accepted replies are answered again by the next tier, off the caller's path, for at most `audit_usd_per_day`.
    None by default: nobody's money is spent, and nobody's prompt sent to a dearer tier, without being asked.
    `hedge_after`: after how many seconds, or which measured percentile, a second attempt goes beside a late one.
    `latency_p95_s` bounds the 95th percentile of a request's time: plans that would break it are taken only where
    none fits. `second_cost_usd` is what a second of the caller's time is worth. A further call has to save
    more than `call_margin` of the price of the tier asked instead; by default any saving will do.
    """

    start_tier: str = ""
    static_plan: Literal["measured", "fixed"] = "measured"
    lowest_tier: str = ""
    highest_tier: str = ""
    deadline_s: Seconds = 120.0
    cost_cap_usd: Usd | None = None
    explore: Share = 0.02
    direct_threshold: Share = 0.9
    quality_target: Annotated[float, Field(ge=0.5, le=1, allow_inf_nan=False)] = 0.99
    mistake_cost_usd: Usd | None = None
    false_accept_max: Annotated[Number, Field(ge=0.001, le=0.5)] | None = None
    false_accept_confidence: Annotated[Number, Field(ge=0.5, le=0.999)] = 0.95
    latency_p95_s: Seconds | None = None
    second_cost_usd: Annotated[Number, Field(ge=0)] = 0.0
    call_margin: Share = 0.0
    truncated: Policy = "escalate"
    refused: Policy = "hand_back"
    unjudged: Literal["accept", "escalate", "hand_back"] = "accept"
    hopeless: Literal["hand_back", "escalate"] = "hand_back"
    failover_up: Flag = True
    failover_down: Flag = False
    priority: Literal["low", "normal", "high"] = "normal"
    hedge_after: Seconds | Literal["p95"] | None = None
    retention_days: Annotated[Number, Field(ge=0, le=365)] = 0.0
    audit_share: Share = 0.0
    audit_usd_per_day: Usd = 5.0
    audit_verifier: AuditVerifierConfig | None = None
    checks: tuple[dict[str, Any], ...] = ()

    @property
    def promise(self) -> Promise:
        """What is promised of accepted replies."""
        return Promise(self.false_accept_max, self.false_accept_confidence, self.mistake_cost_usd)

    @field_validator("checks")
    @classmethod
    def _buildable(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for index, table in enumerate(value):
            _build_check(index, table)
        return value

    def build_checks(self) -> tuple[Check, ...]:
        """The checks of this workload in order: stop reason, the free ones for all, then its own."""
        return (StopReasonCheck(self.truncated, self.refused), *ALWAYS, *self.own_checks())

    def own_checks(self) -> tuple[Check, ...]:
        """Those that its own section names, as they stand there."""
        return tuple(_build_check(index, table) for index, table in enumerate(self.checks))

    def build_audit_verifier(self) -> VerifierCheck | None:
        """What audits judge by, where the workload names it."""
        return self.audit_verifier.build() if self.audit_verifier else None


def _build_check(index: int, table: dict[str, Any]) -> Check:
    name = table.get("check")
    if not isinstance(name, str) or name not in CHECKS:
        raise ValueError(f"[{index}].check: expected one of {', '.join(sorted(CHECKS))}, got {name!r}")
    fields = {key: value for key, value in table.items() if key != "check"}
    factory = CHECKS[name]
    known = set(getattr(factory, "__dataclass_fields__", ()))
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"[{index}].{unknown[0]}: check {name} has no such setting")
    try:
        check: Check = TypeAdapter(factory).validate_python(fields)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError("; ".join(f"[{index}].{line}" for line in explain(error))) from None
    return check
