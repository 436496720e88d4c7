"""One audit: the next tier's reply to the same request, and what it shows of the one that was accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from fallback.breaker import State
from fallback.chain import Chain
from fallback.checks import Check
from fallback.checks.judge import JudgeCheck
from fallback.clock import Clock
from fallback.errors import Failure, RateLimited
from fallback.guards import Guards
from fallback.job import Job, Rules
from fallback.ledger import Ledger
from fallback.providers import Endpoint
from fallback.resilience import Resilience
from fallback.types import Attempt, CheckReport, Reply, Request, TextBlock, Tier, Unjudged, Verdict
from router.audit.comparison import NO_REPLY, Finding, by_answers, found, judge_of, verdict_of, verified
from router.outcome import Audit, AuditMethod, AuditVerdict
from router.reply_features import prompt_of, reply_features

_JUDGE_CHARS = 8_000  # what it is told beside the rubric, with room to spare
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
    endpoints: Mapping[str, Endpoint]
    chain: Chain
    resilience: Resilience
    guards: Guards
    clock: Clock
    text_cap_chars: int

    def most_usd(self, subject: Subject) -> float:
        """The most that the auditor's reply may cost."""
        if not subject.auditor_tier:
            return 0.0
        return self.resilience.bound_usd(subject.auditor_tier, subject.request, subject.request.max_tokens_ceiling)

    def most_for_judge_usd(self, judge: JudgeCheck, request: Request, replies: tuple[Reply, ...]) -> float:
        """The most that comparing them in both orders may cost; less, and the judge is not asked the second time."""
        shown = [TextBlock(text) for text in (judge.rubric, " " * _JUDGE_CHARS, *(reply.text for reply in replies))]
        asked = replace(request, system=(*request.system, *shown))
        return 2.0 * self.resilience.bound_usd(judge.tier, asked, judge.max_tokens)

    def obstacle(self, subject: Subject) -> str:
        """Why the tiers to be asked are left to callers now: `breaker` or `rate_limit`; empty where they are not.

        A half-open breaker's probes are for callers, and so are what is left of a rate limit that is nearly used up and
        what an ailing tier still answers.
        """
        judge, states = judge_of(subject.checks), self.guards.states()
        tiers = {subject.auditor_tier, judge.tier if judge else ""} if subject.auditor_tier else set()
        for tier in sorted(tiers - {""}):
            endpoint = self.endpoints[self.tiers[tier].endpoints[0]]
            keys = ((endpoint.name, tier), (endpoint.budget, ""))
            hold = self.guards.hold(endpoint, tier)
            near = self.guards.quota((endpoint.name, tier)).near
            if near or (hold is not None and hold.cause == RateLimited.kind):
                return "rate_limit"
            ill = hold is not None or self.guards.avoided(endpoint, tier)
            if ill or any(states.get(key, State.CLOSED) is not State.CLOSED for key in keys):
                return "breaker"
        return ""


class Examination:
    """An audit under way. Its account is true however it ends, also when it is cancelled."""

    def __init__(self, bench: Bench, subject: Subject, *, deadline_s: float) -> None:
        self.subject = subject
        self.finding = NO_REPLY
        self._bench = bench
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

    @property
    def calls(self) -> int:
        """Upstream calls so far, a judge's among them."""
        return len(self.attempts) + sum(report.calls for attempt in self.attempts for report in attempt.checks)

    async def run(self, most_usd: float, afford: Callable[[float], bool]) -> None:
        """Find out, for at most `most_usd`, and more where `afford` says that it may be spent.

        An operational failure is a finding, not an error.
        """
        subject = self.subject
        if subject.verifier is not None:
            verdict = await verified(subject.verifier, subject.request, subject.reply, subject.tier)
            self.finding = Finding(verdict, AuditMethod.VERIFIER)
        if not subject.auditor_tier:
            return
        job = self._job(most_usd)
        try:
            resolution = await self._bench.chain.run(job, self._ledger)
        except Failure:
            return
        self._features = self._features_of(resolution.reply)
        judge = judge_of(subject.checks)
        if subject.verifier is not None:
            verdict = await verified(subject.verifier, subject.request, resolution.reply, subject.auditor_tier)
            self.finding = replace(self.finding, auditor_verdict=verdict)
        elif not resolution.accepted:
            self.finding = Finding(AuditVerdict.UNKNOWN, AuditMethod.CHECKS)
        else:
            self.finding = by_answers(subject.reply, resolution.reply, subject.checks)
            if judge is not None:
                self.finding = replace(self.finding, method=AuditMethod.JUDGE)
                if self.finding.verdict is AuditVerdict.UNKNOWN:
                    verdict = await self._judged(judge, job, resolution.reply, afford)
                    self.finding = replace(self.finding, verdict=verdict)

    async def _judged(self, judge: JudgeCheck, job: Job, other: Reply, afford: Callable[[float], bool]) -> AuditVerdict:
        """Which of two different replies is better; on the auditor's account, with its calls."""
        subject, clock = self.subject, self._bench.clock
        most_usd = self._bench.most_for_judge_usd(judge, subject.request, (subject.reply, other))
        if not afford(most_usd):
            return AuditVerdict.UNKNOWN
        job = replace(job, cost_cap_usd=self.cost_usd + most_usd)
        asking = self._bench.resilience.asking(job, subject.auditor_tier, self._ledger)
        started_s = clock.monotonic_s()
        said: Verdict = Unjudged("cut_off")
        try:
            said = verdict_of(await judge.compare(asking, subject.request, subject.reply, other))
        finally:
            report = CheckReport(
                judge.name,
                judge.version,
                said,
                cost_usd=asking.cost_usd,
                started_s=started_s - self._started_s,
                duration_s=clock.monotonic_s() - started_s,
                calls=asking.calls,
            )
            self._ledger.judged(other, (*self.attempts[-1].checks, report))
        return found(said)

    def _features_of(self, reply: Reply) -> bytes:
        request, cap = self.subject.request, self._bench.text_cap_chars
        prompt = prompt_of(request, text_cap_chars=cap)
        return reply_features(request, reply, text_cap_chars=cap, prompt=prompt).to_bytes()

    def audit(self) -> Audit:
        """What is recorded, as far as it got."""
        return self.subject.audit(
            self.finding,
            at_s=self._bench.clock.wall_s(),
            attempts=self.calls,
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
