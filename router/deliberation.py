"""What a model thinks of one request, and thinks again after every verdict (cascade routing). Pure.

Before the first call, after each reply and after each rejection the same question is asked of
`fallback.cascade.next_step`: keep a reply in hand, or ask a higher tier? A tier below one that has answered is
never asked. Time counts too: a second costs what the workload says, and a tier that may not answer in the
time left is worth as much less. While a higher tier may be asked, a reply is accepted only at or above what is
certified for its tier, and a tier of which no reply may be accepted is not asked at all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fallback.answers import Answer, agreement, find_answer
from fallback.cascade import Ask, Keep, Option, Prospect, Step, after_a_bad_reply, chain_prospect, next_step
from fallback.checks.scorer import Assessment
from fallback.plans import Delay
from router.agreements import UNKNOWN
from router.certificate import UNBOUND, Standing
from router.features import Features
from router.scoring import Pair, RouterModel, Seen

NOT_WORTH_IT = "not_worth_going_on"
NO_TIME = "no_time_to_go_on"
NOT_CERTIFIED = "not_certified"


@dataclass(frozen=True, slots=True)
class Stakes:
    """What counts for a request, in US dollars; `delay` by tier, empty where time does not matter.

    `call_margin` is what each call more must save, as a share of the cost of the tier asked instead.
    `rejected_cost_usd` is what a mistake is taken to cost before a rejected reply is handed back although a
    higher tier could be asked. `insists`: it never is. `standing` is what each tier's word counts for.
    """

    cost_usd: Mapping[str, float]
    mistake_cost_usd: float
    rejected_cost_usd: float
    second_cost_usd: float = 0.0
    call_margin: float = 0.0
    insists: bool = False
    delay: Mapping[str, Delay] = field(default_factory=dict)
    standing: Standing = UNBOUND

    def price_usd(self, tier: str) -> float:
        """What asking the tier costs, its time included."""
        delay = self.delay.get(tier)
        return self.cost_usd[tier] + (self.second_cost_usd * delay.mean_s if delay is not None else 0.0)

    def in_time(self, tier: str, time_left_s: float) -> float:
        """P(the tier answers within the time left)."""
        delay = self.delay.get(tier)
        return delay.within(time_left_s) if delay is not None and time_left_s < math.inf else 1.0


class Deliberation:
    """One request. `allowed` are the tiers that may answer, cheapest first."""

    def __init__(
        self, model: RouterModel, features: Features, *, workload: str, allowed: Sequence[str], stakes: Stakes
    ) -> None:
        self._model = model
        self._features = features
        self._workload = workload
        self._allowed = tuple(tier for tier in allowed if tier in model.tiers)
        self._stakes = stakes
        self._seen: list[Seen] = []
        self._answers: dict[str, Answer] = {}
        self._exempt = ""
        self._rejected: dict[str, float] = {}  # P(good) by tier, of replies that a check rejected
        self._plan = frozenset(self._allowed)
        self.probabilities = model.probabilities(features, workload)

    def first(self, time_left_s: float = math.inf, starts: Collection[str] | None = None) -> Step:
        """Which tier to ask first, of `starts` where given and one of them is worth asking."""
        tiers = self._worth_asking([tier for tier in self._allowed if starts is None or tier in starts])
        return self._step({}, self.probabilities, tiers or self._worth_asking(self._allowed), time_left_s)

    def keep_to(self, plan: Sequence[str]) -> None:
        """Ask no tier outside the plan."""
        self._plan = frozenset(plan)

    def explore(self, tier: str) -> None:
        """Accept this tier's reply as if nothing were certified: else nobody would learn that it is better."""
        self._exempt = tier

    def replied(
        self,
        tier: str,
        reply_features: Features,
        reply_text: str,
        *,
        time_left_s: float = math.inf,
        agree: Mapping[Pair, tuple[float, float]] | None = None,
    ) -> Assessment | None:
        """What to do after a reply that passed; None for a tier that the model does not know.

        `agree` by pair of tiers says how replies agree where their texts are not at hand.
        """
        if tier not in self._allowed:
            return None
        self._rejected.pop(tier, None)
        self._see(tier, reply_features, reply_text, agree)
        believed = self._believed()
        above = self._worth_asking(self._above(tier))
        in_hand = self._in_hand(believed, above)
        step = self._step(in_hand, believed, above, time_left_s)
        return Assessment(believed[tier], self._said(step, believed), barred=tier not in in_hand)

    def rejected(
        self,
        tier: str,
        reply_features: Features,
        reply_text: str,
        *,
        above: Sequence[str],
        p_good: float = 0.0,
        time_left_s: float = math.inf,
        agree: Mapping[Pair, tuple[float, float]] | None = None,
    ) -> Step:
        """What to do after a reply that a check rejected, which is good with probability `p_good` after all.

        `above` are the tiers that may be asked. A rejected reply is handed back only where asking on would
        probably not pay even at `rejected_cost_usd` a mistake.
        """
        if tier in self._allowed:
            self._see(tier, reply_features, reply_text, agree)
        self._rejected[tier] = p_good
        believed = self._believed()
        options = self._worth_asking([each for each in above if each in self._allowed])
        in_hand = self._in_hand(believed, options)
        if options and self._stakes.insists:
            in_hand = {each: p for each, p in in_hand.items() if each not in self._rejected}
        if not in_hand and not options:  # the model knows neither this tier nor those above
            return Ask(above[0]) if above else Keep(tier, accepted=False)
        at_usd = self._stakes.rejected_cost_usd
        step = self._step(in_hand, believed, options, time_left_s)
        if self._gives_up(step):
            step = self._step(in_hand, believed, options, time_left_s, at_usd)
        if not options or not self._gives_up(step):
            return self._said(step, believed)
        unhurried = self._step(in_hand, believed, options, math.inf, at_usd)
        return self._said(step, believed, NOT_WORTH_IT if self._gives_up(unhurried) else NO_TIME)

    def _see(
        self,
        tier: str,
        reply_features: Features,
        reply_text: str,
        recorded: Mapping[Pair, tuple[float, float]] | None,
    ) -> None:
        answer = find_answer(reply_text)
        if recorded is None:
            agree = {source: agreement(before, answer) for source, before in self._answers.items()}
        else:
            agree = {
                source: recorded.get((source, tier)) or recorded.get((tier, source)) or UNKNOWN
                for source in self._answers
            }
        self._seen = [seen for seen in self._seen if seen.source != tier]  # a longer reply replaces the cut one
        self._seen.append(Seen(tier, reply_features, agree))
        self._answers[tier] = answer

    def _believed(self) -> dict[str, float]:
        """P(good) by tier, from every reply seen and every rejection."""
        believed = self._model.believe(self._features, self._workload, self._seen)
        for tier, p_good in self._rejected.items():
            if tier in believed:
                seen = {each.source for each in self._seen}
                expected = believed[tier]
                for other in believed.keys() - seen:
                    believed[other] = after_a_bad_reply(believed[other], expected, odds_ratio=self._model.tied.read)
                believed[tier] = p_good
        return believed

    def _in_hand(self, believed: Mapping[str, float], options: Sequence[str]) -> dict[str, float]:
        """P(good) by tier of the replies that may be handed back, where `options` may be asked instead."""
        seen = {each.source: believed[each.source] for each in self._seen}
        return {
            tier: p for tier, p in seen.items() if not options or tier in self._rejected or self._certified(tier, p)
        }

    def _certified(self, tier: str, p_good: float) -> bool:
        """Whether nothing that is certified speaks against accepting the tier's reply."""
        free = tier in (self._exempt, self._allowed[-1])
        return free or p_good >= self._stakes.standing.accept.get(tier, 0.0)

    def _worth_asking(self, tiers: Sequence[str]) -> tuple[str, ...]:
        return tuple(tier for tier in tiers if tier == self._allowed[-1] or not self._stakes.standing.barred(tier))

    def _above(self, tier: str) -> Sequence[str]:
        higher = self._allowed[self._allowed.index(tier) + 1 :]
        return [each for each in higher if each in self._plan]

    def _gives_up(self, step: Step) -> bool:
        return isinstance(step, Keep) and step.tier in self._rejected

    def _said(self, step: Step, believed: Mapping[str, float], why: str = "") -> Step:
        """The step, with whether the reply kept is good enough; it is where only a learned check asked for more."""
        if not isinstance(step, Keep):
            return step
        passed = step.tier not in self._rejected
        certified = step.tier not in believed or self._certified(step.tier, believed[step.tier])
        return replace(step, accepted=passed and certified, why=why if certified or not passed else NOT_CERTIFIED)

    def _step(
        self,
        in_hand: Mapping[str, float],
        believed: Mapping[str, float],
        tiers: Sequence[str],
        time_left_s: float,
        mistake_cost_usd: float | None = None,
    ) -> Step:
        stakes = self._stakes
        at_usd = stakes.mistake_cost_usd if mistake_cost_usd is None else mistake_cost_usd
        options = []
        for tier in tiers:
            ahead = self._prospect(tier, believed, tiers, at_usd)
            worth = ahead.worth * stakes.in_time(tier, time_left_s)
            options.append(Option(tier, stakes.price_usd(tier), worth, ahead.calls))
        return next_step(in_hand, options, mistake_cost_usd=at_usd, call_margin=stakes.call_margin)

    def _prospect(
        self, tier: str, believed: Mapping[str, float], tiers: Sequence[str], mistake_cost_usd: float
    ) -> Prospect:
        """By what was learned, which says nothing of calls, else by the chain rule."""
        state = tuple(source for source in self._model.sources if any(seen.source == source for seen in self._seen))
        model = self._model
        learned = model.worth_of(state, tier, believed, self._workload, mistake_cost_usd)
        if learned is not None:
            return Prospect(learned, 1.0)
        chain = tiers[tiers.index(tier) :]
        return chain_prospect(
            chain,
            believed,
            {each: self._stakes.price_usd(each) for each in chain},
            mistake_cost_usd=mistake_cost_usd,
            caught=model.caught_in(self._workload),
            odds_ratio=model.tied.unread,
        )
