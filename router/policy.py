"""probabilities + economics + randomness → Decision. Pure: the randomness arrives as an argument.

With a model the start tier is the one of greatest expected value, and a start tier that is confident
enough is DIRECT. Without one the plan is static, moved by the workload's own escalation rate unless it is
fixed. With a small probability another start tier is taken on purpose; the propensity of every start is logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from fallback.cascade import Ask
from fallback.plans import Delay
from router.certificate import NEVER, UNBOUND, Standing
from router.deliberation import Deliberation, Stakes
from router.experience import Experience
from router.features import Features
from router.outcome import Decision, Mode
from router.planning import Timely, fitting, plans_of
from router.scoring import RouterModel

# Where neither the workload nor the model says what a bad reply costs: this many times the dearest
# tier's expected cost. At 20 a tier is passed over only for one that is nearly as likely to be right.
_MISTAKE_IN_TOP_TIER_CALLS = 20.0
# Whether the plan without a model moves with the workload's own escalations, or is what the file says.
StaticPlan = Literal["measured", "fixed"]


@dataclass(frozen=True, slots=True)
class Question:
    """What is decided about. `allowed` are the tiers that may answer, cheapest first, none empty.

    `cost_usd` is each one's expected cost of one attempt; `start_tier` the static plan's, empty for the
    cheapest, and `static_plan` whether it moves; `quality_target` the share of the best tier's quality to keep,
    for which the model brings the cost of a mistake unless `mistake_cost_usd` gives it.
    `insists`: a rejected reply is not handed back while a tier above may be asked.
    `delay` is each tier's expected time, checks included; empty where unknown.
    `standing` says what each tier's word counts for.
    `check_usd` is the checks' part of each cost. `latency_p95_s` bounds the 95th percentile of the request's time.
    `call_margin`: what each call more must save, as a share of the cost of the tier asked instead.
    `forced_start` is taken whatever would be better, to see what then.
    """

    workload: str
    allowed: tuple[str, ...]
    features: Features
    cost_usd: Mapping[str, float]
    start_tier: str = ""
    static_plan: StaticPlan = "measured"
    explore: float = 0.0
    direct_threshold: float = 0.9
    quality_target: float = 0.99
    mistake_cost_usd: float | None = None
    second_cost_usd: float = 0.0
    call_margin: float = 0.0
    insists: bool = False
    delay: Mapping[str, Delay] = field(default_factory=dict)
    time_left_s: float = math.inf
    standing: Standing = UNBOUND
    check_usd: Mapping[str, float] = field(default_factory=dict)
    latency_p95_s: float | None = None
    forced_start: str = ""

    def direct_from(self, tier: str) -> float:
        """The P(good) from which a start is DIRECT: the certified threshold where there is one."""
        return self.standing.direct.get(tier, self.direct_threshold)


class Policy:
    """Decides one request at a time. `uniform` gives numbers in [0, 1) for exploration."""

    def __init__(self, experience: Experience, uniform: Callable[[], float]) -> None:
        self._experience = experience
        self._uniform = uniform

    def decide(self, question: Question, model: RouterModel | None) -> tuple[Decision, Deliberation | None]:
        """The decision, and the model's deliberation to go on with after each reply (None without one)."""
        usable = model is not None and all(tier in model.tiers for tier in question.allowed)
        if model is None or not usable:
            why = "no model" if model is None else f"model {model.version} does not know every tier"
            return self._static(question, why), None
        deliberation = deliberate(question, model)
        timely = self._timely(question, deliberation.probabilities, model)
        step = deliberation.first(question.time_left_s, timely.starts)
        assert isinstance(step, Ask)  # nothing is in hand yet
        best = question.forced_start or step.source
        start, drawn, propensities = self._start(question, best, timely.starts)
        explored = drawn and start != best
        if explored:
            deliberation.explore(start)
        tiers = timely.chain(start, stakes_of(question, model))
        deliberation.keep_to(tiers)
        probability = deliberation.probabilities[start]
        direct = not explored and (probability >= question.direct_from(start) or start == question.allowed[-1])
        decision = Decision(
            mode=Mode.DIRECT if direct else Mode.CHAIN,
            tiers=tiers,
            reason=_reason(start, probability, question, explored=explored, direct=direct) + timely.words(tiers),
            probabilities={tier: deliberation.probabilities[tier] for tier in question.allowed},
            propensities=propensities,
            expected_cost_usd=dict(question.cost_usd),
            mistake_cost_usd=mistake_cost_usd(question, model),
            model_version=model.version,
            explored=explored,
            expected_time_s={tier: delay.mean_s for tier, delay in question.delay.items()},
            expected_time_sd_s={tier: math.sqrt(delay.variance) for tier, delay in question.delay.items()},
        )
        return decision, deliberation

    def _static(self, question: Question, why: str) -> Decision:
        """The plan without a model: from the start tier upwards."""
        static = question.start_tier if question.start_tier in question.allowed else question.allowed[0]
        name, stakes, timely = question.workload, stakes_of(question, None), self._timely(question, {}, None)
        price_usd = {tier: stakes.price_usd(tier) for tier in question.allowed}
        moves = question.static_plan == "measured"
        moved_to = self._experience.start_tier(name, static, question.allowed, price_usd) if moves else static
        best = question.forced_start or timely.nearest(moved_to)
        start, drawn, propensities = self._start(question, best, timely.starts)
        explored = drawn and start != best
        ladder = timely.chain(start, stakes)
        # A request drawn to explore skips nothing: else what is skipped could never show that it got better.
        skips = moves and not drawn
        tiers = self._experience.without_skips(name, ladder, price_usd) if skips else ladder
        moved = "" if moved_to == static else f", moved from {static} by its escalation rate"
        skipped = [tier for tier in ladder if tier not in tiers]
        if skipped:
            moved += f", skipping {', '.join(skipped)}: rejected too often after the tier before"
        moved += timely.words(ladder)
        return Decision(
            mode=Mode.CHAIN,
            tiers=tiers,
            reason=f"static plan ({why}): {'exploring' if explored else 'start'} at {start}{moved}",
            propensities=propensities,
            expected_cost_usd=dict(question.cost_usd),
            explored=explored,
            expected_time_s={tier: delay.mean_s for tier, delay in question.delay.items()},
            expected_time_sd_s={tier: math.sqrt(delay.variance) for tier, delay in question.delay.items()},
        )

    def _timely(self, question: Question, probabilities: Mapping[str, float], model: RouterModel | None) -> Timely:
        """What the bound on the 95th percentile leaves; plans are looked at only where there is one."""
        if question.latency_p95_s is None:
            return Timely(question.allowed)
        plans = plans_of(question, probabilities, self._experience, model)
        return Timely(question.allowed, question.latency_p95_s, tuple(fitting(plans, question.latency_p95_s)))

    def _start(self, question: Question, best: str, starts: tuple[str, ...]) -> tuple[str, bool, dict[str, float]]:
        """(start tier, whether it was drawn to explore, the propensity of every start)."""
        share = question.explore / len(starts)
        propensities = {tier: share + (1.0 - question.explore if tier == best else 0.0) for tier in starts}
        drawn = self._uniform()
        if drawn >= question.explore:
            return best, False, {best: 1.0} | propensities
        index = min(int(drawn / question.explore * len(starts)), len(starts) - 1)
        return starts[index], True, propensities


def stakes_of(question: Question, model: RouterModel | None) -> Stakes:
    """What is at stake for a question."""
    mistake_usd = mistake_cost_usd(question, model)
    # A tuned cost is a knob for quality, not what a useless reply really costs: no reason to hand one back.
    rejected_usd = mistake_usd
    if question.mistake_cost_usd is None:
        rejected_usd = max(mistake_usd, _default_mistake_usd(question))
    return Stakes(
        cost_usd=question.cost_usd,
        mistake_cost_usd=mistake_usd,
        rejected_cost_usd=rejected_usd,
        second_cost_usd=question.second_cost_usd,
        call_margin=question.call_margin,
        insists=question.insists,
        delay=question.delay,
        standing=question.standing,
    )


def deliberate(question: Question, model: RouterModel) -> Deliberation:
    """The model's deliberation about a question, nothing asked yet."""
    return Deliberation(
        model,
        question.features,
        workload=question.workload,
        allowed=question.allowed,
        stakes=stakes_of(question, model),
    )


def mistake_cost_usd(question: Question, model: RouterModel | None) -> float:
    """What a bad reply costs: the workload's own figure, the model's for its quality target, or the default."""
    if question.mistake_cost_usd is not None:
        return question.mistake_cost_usd
    costs_usd = model.quality_costs_usd if model is not None else {}
    tuned = [
        cost_usd
        for percent, cost_usd in sorted(costs_usd.items(), key=lambda item: float(item[0]))
        if float(percent) >= 100 * question.quality_target - 1e-9
    ]
    return tuned[0] if tuned else _default_mistake_usd(question)


def _default_mistake_usd(question: Question) -> float:
    return _MISTAKE_IN_TOP_TIER_CALLS * max(question.cost_usd.values())


def _reason(start: str, probability: float, question: Question, *, explored: bool, direct: bool) -> str:
    """Why this start; then what is certified of it and of the tiers below, in words."""
    known = question.allowed[: question.allowed.index(start) + 1]
    words = [question.standing.words[tier] for tier in known if tier in question.standing.words]
    return "; ".join((_why(start, probability, question, explored=explored, direct=direct), *words))


def _why(start: str, probability: float, question: Question, *, explored: bool, direct: bool) -> str:
    chance = f"P({start} is good) = {probability:.2f}"
    needed = question.direct_from(start)
    if explored:
        return f"exploring at {start}: {chance}"
    if direct and start == question.allowed[-1] and probability < needed:
        return f"the highest allowed tier is the best value: {chance}"
    if direct:
        return f"{chance} reaches {needed:.2f}"
    below = "nothing is certified for DIRECT" if needed == NEVER else f"below {needed:.2f}"
    return f"greatest expected value from {start}: {chance}, {below}"
