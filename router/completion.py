"""One request from features to outcome: the path that every Complete call takes."""

from __future__ import annotations

from dataclasses import dataclass

from fallback.cascade import Step
from fallback.checks import Case
from fallback.checks.scorer import Assessment, ScorerCheck
from fallback.errors import Failure
from fallback.job import Job, Rejected, Resolution, Rules, Steering, next_above
from fallback.ledger import Ledger
from fallback.types import Remedy, Reply
from router.agreements import agreements_of
from router.completer import Ask, Completer, Decided
from router.deliberation import Deliberation
from router.features import FEATURES_VERSION, Features
from router.outcome import Decision, Mode, Outcome
from router.policy import stakes_of
from router.reply_features import Prompt, prompt_of, reply_features
from router.retention import retained_text
from router.status import Refusal, no_reply
from router.steering import measured_steering
from router.tails import hedge_after_s


@dataclass(frozen=True, slots=True)
class Completed:
    """A reply in hand, and whether its outcome is durable."""

    outcome: Outcome
    reply: Reply
    recorded: bool


class Completion:
    """One request under way. `outcome` is there as soon as it has ended, however it ended."""

    def __init__(self, completer: Completer, ask: Ask) -> None:
        self._shared = completer
        self._ask = ask
        self._reply_features: dict[int, Features] = {}
        self._prompt: Prompt | None = None
        self._wall_s = completer.clock.wall_s()
        self.request_id = completer.ids.next(self._wall_s)
        self.outcome: Outcome | None = None

    async def run(self) -> Completed:
        """The reply with its outcome on disk. Raises InvalidField, or Refusal when no tier replied."""
        shared, ask = self._shared, self._ask
        started_s = shared.clock.monotonic_s()
        decided = shared.decide(ask)
        decision, features = decided.decision, decided.question.features
        ledger = Ledger(started_s)
        job = self._job(decided, started_s)
        resolution: Resolution | None = None
        refusal: Refusal | None = None
        ended = False
        try:
            resolution = await shared.chain.run(job, ledger)
            ended = True
        except Failure as failure:
            refusal = no_reply(failure, time_left_s=job.deadline_s - shared.clock.monotonic_s())
            ended = True
        finally:
            status = refusal.code.name if refusal else ("OK" if resolution else self._cut_off(job))
            outcome = self._outcome(decision, features, ledger, resolution, status)
            self.outcome = outcome
            shared.experience.observe(outcome)
            shared.drift.observe(outcome)
            if not ended:  # the caller is gone: what happened is recorded without it
                shared.record_later(outcome)
        left_s = started_s + shared.record_within_s(self._ask) - shared.clock.monotonic_s()
        recorded = await shared.recorder.record(outcome, within_s=left_s)
        if refusal is not None:
            raise refusal
        assert resolution is not None
        return Completed(outcome, resolution.reply, recorded)

    def _job(self, decided: Decided, now_s: float) -> Job:
        ask, decision, deliberation = self._ask, decided.decision, decided.deliberation
        free = tuple(check for check in ask.checks if not check.paid)
        scorer = () if deliberation is None else (self._scorer(decision.model_version, deliberation),)
        paid = tuple(check for check in ask.checks if check.paid and decision.mode is Mode.CHAIN)
        slow_s = self._shared.experience.slow_s(ask.request.workload)
        unjudged = None if ask.policy.unjudged == "accept" else Remedy(ask.policy.unjudged)
        return Job(
            request=ask.request,
            tiers=decision.tiers,
            allowed=frozenset(self._shared.allowed(ask)),
            checks=(*free, *scorer, *paid),
            rules=Rules(unjudged, ask.policy.failover_up, ask.policy.failover_down),
            deadline_s=now_s + self._shared.time_left_s(ask),
            cost_cap_usd=self._shared.cap_usd(ask),
            steer=self._steering(decided),
            slow_s=slow_s,
            hedge_after_s=hedge_after_s(ask.policy.hedge_after, slow_s, self._shared.ladder),
        )

    def _steering(self, decided: Decided) -> Steering:
        deliberation = decided.deliberation
        if deliberation is None and decided.question.static_plan == "fixed":
            return next_above
        if deliberation is None:
            stakes = stakes_of(decided.question, None)
            return measured_steering(self._shared.experience, decided.question.workload, stakes)

        def steer(rejected: Rejected) -> Step:
            report = rejected.report
            return deliberation.rejected(
                rejected.tier,
                self._features_of(rejected.reply),
                rejected.reply.text,
                above=rejected.above,
                # What a free check rejects is useless as it stands; a paid one's score says how sure it was.
                p_good=report.score if report.cost_usd > 0 and report.score is not None else 0.0,
                time_left_s=rejected.time_left_s,
            )

        return steer

    def _scorer(self, version: str, deliberation: Deliberation) -> ScorerCheck:
        def assess(case: Case) -> Assessment | None:
            features, text = self._features_of(case.reply), case.reply.text
            return deliberation.replied(case.tier, features, text, time_left_s=case.time_left_s)

        return ScorerCheck(version, assess)

    def _features_of(self, reply: Reply) -> Features:
        """The reply's features, computed once for the scorer and the outcome."""
        found = self._reply_features.get(id(reply))
        if found is None:
            request, cap = self._ask.request, self._shared.text_cap_chars
            self._prompt = self._prompt or prompt_of(request, text_cap_chars=cap)
            found = reply_features(request, reply, text_cap_chars=cap, prompt=self._prompt)
            self._reply_features[id(reply)] = found
        return found

    def _outcome(
        self,
        decision: Decision,
        features: Features,
        ledger: Ledger,
        resolution: Resolution | None,
        status: str,
    ) -> Outcome:
        shared, ask = self._shared, self._ask
        attempts = ledger.attempts
        return Outcome(
            request_id=self.request_id,
            workload=ask.request.workload,
            received_at_s=self._wall_s,
            duration_s=shared.clock.monotonic_s() - ledger.started_s,
            status=status,
            decision=decision,
            attempts=attempts,
            resolved_tier=resolution.tier if resolution else "",
            accepted=resolution.accepted if resolution else False,
            reasons=resolution.reasons if resolution else (),
            cost_usd=ledger.cost_usd,
            top_tier_cost_usd=self._top_tier_usd(ledger),
            features_version=FEATURES_VERSION,
            request_features=features.to_bytes(),
            reply_features=tuple(
                self._features_of(attempt.result).to_bytes() if isinstance(attempt.result, Reply) else None
                for attempt in attempts
            ),
            labels=ask.labels,
            agreements=agreements_of([attempt.result for attempt in attempts]),
            retained=retained_text(ask.request, resolution.reply) if resolution and ask.policy.retention_days else None,
        )

    def _top_tier_usd(self, ledger: Ledger) -> float:
        """What the highest tier alone would have cost: its own reply where it gave one, else an estimate.

        The estimate takes the prompt length that a tier billed and the workload's mean output length
        on the highest tier (the reply's own while that is unknown). 0 when no tier replied.
        """
        shared, top = self._shared, list(self._shared.ladder.values())[-1]
        replies = [attempt for attempt in ledger.attempts if isinstance(attempt.result, Reply)]
        if not replies:
            return 0.0
        for attempt in replies:
            if attempt.tier == top.name:
                return attempt.cost_usd
        last = replies[-1].result
        assert isinstance(last, Reply)
        tokens = shared.experience.output_tokens(self._ask.request.workload, top.name)
        price = shared.prices.price(top.model).at(last.usage.prompt_tokens)
        output = tokens if tokens is not None else last.usage.output_tokens
        return (last.usage.prompt_tokens * price.input + output * price.output) / 1_000_000

    def _cut_off(self, job: Job) -> str:
        """The status of a request whose caller went away: by its own deadline, or by cancelling."""
        left_s = job.deadline_s - self._shared.clock.monotonic_s()
        return "CANCELLED" if left_s > 0 else "DEADLINE_EXCEEDED"
