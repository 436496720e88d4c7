"""What all requests share, and what is decided about one before anything is asked."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fallback.chain import Chain
from fallback.checks import Check
from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.types import Request, Tier
from router.certificate import UNBOUND, Standing, standing
from router.config_workloads import WorkloadConfig
from router.deliberation import Deliberation
from router.drift import Drift
from router.expectations import Expectations
from router.experience import Experience
from router.features import request_features
from router.fields import InvalidField
from router.outcome import Decision, Outcome, RequestIds
from router.planning import Weighed, plans_of, weighed
from router.policy import Policy, Question, stakes_of
from router.recorder import Recorder
from router.scoring import RouterModel
from router.translate import Bounds

# The reply has to reach the caller before its deadline: the chain stops this much earlier.
_MARGIN_S = 0.05
_MARGIN_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Ask:
    """A validated request with its workload's policy. `time_left_s` is the caller's, None without one.

    `forced_start` is only for asking what would happen.
    """

    request: Request
    policy: WorkloadConfig
    checks: tuple[Check, ...]
    bounds: Bounds
    labels: Mapping[str, str] = field(default_factory=dict)
    time_left_s: float | None = None
    forced_start: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """A Decision with what it rests on, and the model's deliberation to go on with (None without one)."""

    decision: Decision
    question: Question
    model: RouterModel | None
    deliberation: Deliberation | None


class Completer:
    """What all requests share. `model` gives the model of the moment; one request uses one model throughout."""

    def __init__(
        self,
        *,
        ladder: tuple[Tier, ...],
        chain: Chain,
        bound_usd: Callable[[str, Request, int], float],
        prices: PriceBook,
        policy: Policy,
        experience: Experience,
        drift: Drift,
        model: Callable[[], RouterModel | None],
        recorder: Recorder,
        ids: RequestIds,
        clock: Clock,
        text_cap_chars: int,
    ) -> None:
        self.ladder = {tier.name: tier for tier in ladder}
        self.chain = chain
        self.bound_usd = bound_usd
        self.prices = prices
        self.expected = Expectations(self.ladder, prices, experience)
        self.policy = policy
        self.experience = experience
        self.drift = drift
        self.model = model
        self.recorder = recorder
        self.ids = ids
        self.clock = clock
        self.text_cap_chars = text_cap_chars
        self._later: set[asyncio.Task[bool]] = set()  # the loop itself keeps no task alive

    def record_later(self, outcome: Outcome) -> None:
        """Record an outcome that nobody waits for."""
        task = asyncio.ensure_future(self.recorder.record(outcome))
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def decide(self, ask: Ask) -> Decided:
        """What would be done with a request, and why. Calls and spends nothing."""
        features = request_features(ask.request, text_cap_chars=self.text_cap_chars)
        allowed = self._affordable(ask)
        model = self.model()
        self.drift.use(model)
        question = Question(
            workload=ask.request.workload,
            allowed=allowed,
            features=features,
            cost_usd={tier: self.expected.cost_usd(ask.request, tier) for tier in allowed},
            delay={tier: self.expected.delay(ask.request, tier) for tier in allowed},
            time_left_s=self.time_left_s(ask),
            check_usd={tier: self.expected.check_usd(ask.request, tier) for tier in allowed},
            latency_p95_s=ask.policy.latency_p95_s,
            second_cost_usd=ask.policy.second_cost_usd,
            call_margin=ask.policy.call_margin,
            forced_start=ask.forced_start,
            start_tier=ask.policy.start_tier,
            static_plan=ask.policy.static_plan,
            explore=ask.policy.explore,
            direct_threshold=ask.policy.direct_threshold,
            quality_target=ask.policy.quality_target,
            mistake_cost_usd=ask.policy.mistake_cost_usd,
            insists=ask.policy.hopeless == "escalate",
            standing=self.standing(ask, allowed, model),
        )
        decision, deliberation = self.policy.decide(question, model)
        return Decided(decision, question, model, deliberation)

    def standing(self, ask: Ask, tiers: tuple[str, ...], model: RouterModel | None) -> Standing:
        """What the word of each of the tiers counts for in the workload now."""
        if model is None:
            return UNBOUND
        workload = ask.request.workload
        promise = ask.policy.promise
        suspended = self.drift.suspended(workload, promised=promise.made)
        return standing(promise, model.certificates.get(workload), suspended, tiers)

    def plans(self, decided: Decided) -> list[Weighed]:
        """Every plan that there was to choose from, beside the one that was taken."""
        question = decided.question
        plans = plans_of(question, decided.decision.probabilities, self.experience, decided.model)
        return weighed(plans, decided.decision, question, stakes_of(question, decided.model))

    def allowed(self, ask: Ask) -> tuple[str, ...]:
        """The tiers inside both the workload's and the caller's bounds, cheapest first."""
        names = tuple(self.ladder)
        low = names.index(ask.policy.lowest_tier) if ask.policy.lowest_tier else 0
        high = names.index(ask.policy.highest_tier) if ask.policy.highest_tier else len(names) - 1
        allowed = tuple(name for name in ask.bounds.allowed if low <= names.index(name) <= high)
        if not allowed:
            raise InvalidField("bounds", "leave no tier of this workload's policy")
        return allowed

    def _affordable(self, ask: Ask) -> tuple[str, ...]:
        """The allowed tiers that the cost cap leaves."""
        allowed = self.allowed(ask)
        cap_usd = self.cap_usd(ask)
        if math.isinf(cap_usd):
            return allowed
        request = ask.request
        affordable = tuple(name for name in allowed if self.bound_usd(name, request, request.max_tokens) <= cap_usd)
        if not affordable:
            raise InvalidField("bounds.cost_cap_usd", "no allowed tier is sure to cost less than this")
        return affordable

    @staticmethod
    def cap_usd(ask: Ask) -> float:
        """The tighter of the caller's and the workload's cost cap; inf where there is none."""
        return min(ask.bounds.cost_cap_usd, ask.policy.cost_cap_usd or math.inf)

    @staticmethod
    def record_within_s(ask: Ask) -> float:
        """How long after its start a request may wait for its outcome: half of the margin is for the way back."""
        left_s = ask.time_left_s
        return math.inf if left_s is None else left_s - _margin_s(left_s) / 2

    def time_left_s(self, ask: Ask) -> float:
        """The chain's time: the caller's less a margin, or the workload's own."""
        if ask.time_left_s is None:
            return ask.policy.deadline_s
        return ask.time_left_s - _margin_s(ask.time_left_s)


def _margin_s(time_left_s: float) -> float:
    """What is kept of the caller's time for recording and the way back."""
    return min(_MARGIN_S, time_left_s * _MARGIN_SHARE)
