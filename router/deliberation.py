"""What a model thinks of one request, and thinks again after each reply (cascade routing). Pure.

Before the first call and after each reply the same question is asked of `fallback.cascade.next_step`:
keep a reply in hand, or ask a higher tier? A tier below one that has answered is never asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fallback.answers import Answer, agreement, find_answer
from fallback.cascade import Option, Step, chain_worth, next_step
from fallback.checks.scorer import Assessment
from router.features import Features
from router.scoring import RouterModel, Seen

# Where a model has not learned what going on is worth: the share of bad replies that checks notice.
_CAUGHT = 0.5


class Deliberation:
    """One request. `allowed` are the tiers that may answer, cheapest first."""

    def __init__(
        self,
        model: RouterModel,
        features: Features,
        *,
        workload: str,
        allowed: Sequence[str],
        cost_usd: Mapping[str, float],
        mistake_cost_usd: float,
    ) -> None:
        self._model = model
        self._features = features
        self._workload = workload
        self._allowed = tuple(tier for tier in allowed if tier in model.tiers)
        self._cost_usd = cost_usd
        self._mistake_cost_usd = mistake_cost_usd
        self._seen: list[Seen] = []
        self._answers: dict[str, Answer] = {}
        self.probabilities = model.probabilities(features, workload)

    def first(self) -> Step:
        """Which tier to ask first."""
        return self._step({}, self.probabilities, self._allowed)

    def replied(self, tier: str, reply_features: Features, reply_text: str) -> Assessment | None:
        """What to do after a reply; None for a tier that the model does not know."""
        if tier not in self._allowed:
            return None
        answer = find_answer(reply_text)
        agree = {source: agreement(before, answer) for source, before in self._answers.items()}
        self._seen = [seen for seen in self._seen if seen.source != tier]  # a longer reply replaces the cut one
        self._seen.append(Seen(tier, reply_features, agree))
        self._answers[tier] = answer
        believed = self._model.believe(self._features, self._workload, self._seen)
        above = self._allowed[self._allowed.index(tier) + 1 :]
        in_hand = {seen.source: believed[seen.source] for seen in self._seen}
        return Assessment(believed[tier], self._step(in_hand, believed, above))

    def _step(self, in_hand: Mapping[str, float], believed: Mapping[str, float], tiers: Sequence[str]) -> Step:
        options = [Option(tier, self._cost_usd[tier], self._worth(tier, believed, tiers)) for tier in tiers]
        return next_step(in_hand, options, mistake_cost_usd=self._mistake_cost_usd)

    def _worth(self, tier: str, believed: Mapping[str, float], tiers: Sequence[str]) -> float:
        state = tuple(source for source in self._model.sources if any(seen.source == source for seen in self._seen))
        learned = self._model.worth_of(state, tier, believed, self._workload, self._mistake_cost_usd)
        if learned is not None:
            return learned
        chain = tiers[tiers.index(tier) :]
        return chain_worth(chain, believed, self._cost_usd, mistake_cost_usd=self._mistake_cost_usd, caught=_CAUGHT)
