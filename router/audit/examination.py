"""One audit: the next tier's reply to the same request, and what it shows of the one that was accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fallback.breaker import State
from fallback.chain import Chain
from fallback.checks import Check
from fallback.clock import Clock
from fallback.errors import Failure
from fallback.job import Job, Rules
from fallback.ledger import Ledger
from fallback.types import Attempt, Reply, Request, Tier
from router.audit.comparison import NO_REPLY, Finding, Judge, compared, verified
from router.outcome import Audit, AuditMethod, AuditVerdict
from router.reply_features import prompt_of, reply_features

_ALONE = Rules(failover_up=False, failover_down=False)


@dataclass(frozen=True, slots=True)
class Subject:
    """A reply to be audited, `accepted` or not, and who answers the request again: nobody where that is empty."""

    request_id: str
    request: Request
    reply: Reply = field(repr=False)
    tier: str
    auditor_tier: str
    checks: tuple[Check, ...]
    verifier: Check | None
    propensity: float
    accepted: bool = True

    def audit(self, finding: Finding, *, at_s: float, attempts: int, cost_usd: float, reply_features: bytes) -> Audit:
        """What is recorded of it."""
        return Audit(
            request_id=self.request_id,
            workload=self.request.workload,
            tier=self.tier,
            accepted=self.accepted,
            auditor_tier=self.auditor_tier,
            verdict=finding.verdict,
            auditor_verdict=finding.auditor_verdict,
            method=finding.method,
            propensity=self.propensity,
            attempts=attempts,
            cost_usd=cost_usd,
            audited_at_s=at_s,
            reply_features=reply_features,
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """What audits work with under one configuration: a chain without retries, on the first endpoint of each tier."""

    tiers: Mapping[str, Tier]
    budgets: Mapping[str, str]  # by endpoint
    chain: Chain
    bound_usd: Callable[[str, Request, int], float]
    states: Callable[[], Mapping[tuple[str, str], State]]
    clock: Clock
    text_cap_chars: int

    def most_usd(self, subject: Subject) -> float:
        """The most that auditing it may cost."""
        if not subject.auditor_tier:
            return 0.0
        return self.bound_usd(subject.auditor_tier, subject.request, subject.request.max_tokens_ceiling)

    def calm(self, subject: Subject) -> bool:
        """Whether the breakers above the auditor's tier are closed: a half-open one's probes are for callers."""
        if not subject.auditor_tier:
            return True
        endpoint = self.tiers[subject.auditor_tier].endpoints[0]
        states = self.states()
        keys = ((endpoint, subject.auditor_tier), (self.budgets[endpoint], ""))
        return all(states.get(key, State.CLOSED) is State.CLOSED for key in keys)


class Examination:
    """An audit under way. Its account is true however it ends, also when it is cancelled."""

    def __init__(self, bench: Bench, subject: Subject, *, deadline_s: float, judge: Judge | None = None) -> None:
        self.subject = subject
        self.finding = NO_REPLY
        self._bench = bench
        self._judge = judge
        self._deadline_s = deadline_s
        self._started_s = bench.clock.monotonic_s()
        self._ledger = Ledger(self._started_s)
        self._features = b""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The upstream calls made so far."""
        return self._ledger.attempts

    @property
    def cost_usd(self) -> float:
        """Spent so far."""
        return self._ledger.cost_usd

    async def run(self, most_usd: float) -> None:
        """Find out, for at most `most_usd`. An operational failure is a finding, not an error."""
        subject = self.subject
        if subject.verifier is not None:
            verdict = await verified(subject.verifier, subject.request, subject.reply, subject.tier)
            self.finding = Finding(verdict, AuditMethod.VERIFIER)
        if not subject.auditor_tier:
            return
        try:
            resolution = await self._bench.chain.run(self._job(most_usd), self._ledger)
        except Failure:
            return
        cap = self._bench.text_cap_chars
        prompt = prompt_of(subject.request, text_cap_chars=cap)
        found = reply_features(subject.request, resolution.reply, text_cap_chars=cap, prompt=prompt)
        self._features = found.to_bytes()
        if subject.verifier is not None:
            verdict = await verified(subject.verifier, subject.request, resolution.reply, subject.auditor_tier)
            self.finding = replace(self.finding, auditor_verdict=verdict)
        elif not resolution.accepted:
            self.finding = Finding(AuditVerdict.UNKNOWN, AuditMethod.CHECKS)
        else:
            self.finding = await compared(subject.request, subject.reply, resolution.reply, self._judge)

    def audit(self) -> Audit:
        """What is recorded, as far as it got."""
        return self.subject.audit(
            self.finding,
            at_s=self._bench.clock.wall_s(),
            attempts=len(self.attempts),
            cost_usd=self.cost_usd,
            reply_features=self._features,
        )

    def _job(self, most_usd: float) -> Job:
        subject = self.subject
        # One call with all the room that the request allows: a truncated auditor would cost a second one.
        request = replace(subject.request, max_tokens=subject.request.max_tokens_ceiling)
        return Job(
            request=request,
            tiers=(subject.auditor_tier,),
            allowed=frozenset({subject.auditor_tier}),
            checks=tuple(check for check in subject.checks if not check.paid),
            rules=_ALONE,
            deadline_s=self._deadline_s,
            cost_cap_usd=most_usd,
        )
