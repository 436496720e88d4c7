"""What to do next with a request: hand a reply back, or ask one more source. Pure.

Cascade routing (Dekoninck et al., "A Unified Approach to Routing and Cascading for LLMs", arXiv
2410.10347): routing before the first call and cascading after each reply are one decision, taken anew
whenever something was learned. Each step takes the greatest expected value in US dollars,

    accept a reply seen:   λ · P(it is good)
    ask a source:          λ · worth − cost

where λ is what a bad reply costs the workload (`mistake_cost_usd`) and *worth* is the expected share of λ
that is kept when the source was asked and everything after is decided well: P(the final reply is good) less
later spending over λ. So a tier is skipped when going on from it would probably not pay, a dearer tier is not
taken for a better one, and the reply kept may be an earlier one: where that is believed better by LEAD, because the
best of several uncertain beliefs flatters itself (the winner's curse; Smith & Winkler 2006). A further call may
have to save something, because the same holds for steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# Where it was not measured: how much likelier a tier's reply is good where a cheaper one's was, as an odds ratio, for
# requests that look alike to the model: what is hard for one tier is hard for the next.
ODDS_RATIO = 3.0
# Where it was not measured: the share of bad replies that the checks notice.
CAUGHT = 0.5

LEAD = 0.15  # in P(good), of an earlier reply before the last, to be handed back in its place


@dataclass(frozen=True, slots=True)
class Keep:
    """Hand this tier's reply back; `value_usd` is the expected value of doing so.

    `accepted`: the reply passed every check that looks at it alone, so it is good enough. `why`, in a word,
    is the reason to give where it is not.
    """

    tier: str
    value_usd: float = 0.0
    accepted: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this source (a tier, or a further sample of one) next."""

    source: str
    value_usd: float = 0.0


Step = Keep | Ask


@dataclass(frozen=True, slots=True)
class Option:
    """A source that may be asked: its expected cost, and what having asked it is worth, in [0, 1].

    `calls` are to be expected from here on, this one included, where all options know theirs.
    """

    source: str
    cost_usd: float
    worth: float
    calls: float = 1.0


def next_step(
    seen: Mapping[str, float], options: Iterable[Option], *, mistake_cost_usd: float, call_margin: float = 0.0
) -> Step:
    """The step of greatest expected value; ties go to the earlier, and to keeping.

    `seen` is P(good) of each reply in hand, in ladder order. Of two options the one with fewer calls to be expected is
    taken where each call of the other's more saves no more than `call_margin` of the one's cost. ValueError where there
    is nothing to choose from.
    """
    kept: Step | None = None
    if seen:
        tier = best_seen(seen)
        kept = Keep(tier, mistake_cost_usd * seen[tier])
    values_usd = {option: mistake_cost_usd * option.worth - option.cost_usd for option in options}
    as_good = {option: usd for option, usd in values_usd.items() if kept is None or usd > kept.value_usd}
    asked: Ask | None = None
    while as_good:  # the best of all, then the best of those that are as good with fewer calls
        best = max(as_good, key=as_good.__getitem__)
        asked = Ask(best.source, as_good[best])
        as_good = {
            option: usd
            for option, usd in as_good.items()
            if option.calls < best.calls
            and asked.value_usd - usd <= call_margin * option.cost_usd * (best.calls - option.calls)
        }
    step = asked or kept
    if step is None:
        raise ValueError("no reply was seen and no source may be asked")
    return step


def best_seen(seen: Mapping[str, float]) -> str:
    """The tier to hand back: the last in ladder order, or the best earlier one where it leads by LEAD."""
    *earlier, last = seen
    best = max(earlier, key=seen.__getitem__, default=last)
    return best if seen[best] - seen[last] > LEAD else last


@dataclass(frozen=True, slots=True)
class Prospect:
    """What asking a tier is worth, in [0, 1], and the calls to be expected, that one included."""

    worth: float
    calls: float


def chain_prospect(
    tiers: Sequence[str],
    p_good: Mapping[str, float],
    cost_usd: Mapping[str, float],
    *,
    mistake_cost_usd: float,
    caught: float = CAUGHT,
    odds_ratio: float = ODDS_RATIO,
) -> Prospect:
    """Asking the first of `tiers`, by the chain rule: a chain with a check of known power.

    A bad reply is noticed with probability `caught`, and then the next tier is asked if that pays. What a bad reply
    says of the tiers above is `after_a_bad_reply`'s.
    """
    tier, *above = tiers
    p = p_good[tier]
    if not above:
        return Prospect(p, 1.0)
    believed = {each: after_a_bad_reply(p_good[each], p, odds_ratio=odds_ratio) for each in above}
    on = chain_prospect(
        above, believed, cost_usd, mistake_cost_usd=mistake_cost_usd, caught=caught, odds_ratio=odds_ratio
    )
    gain = on.worth - cost_usd[above[0]] / mistake_cost_usd
    noticed = (1.0 - p) * caught if gain > 0.0 else 0.0
    return Prospect(p + noticed * gain, 1.0 + noticed * on.calls)


def after_a_bad_reply(p_good: float, p_other: float, *, odds_ratio: float = ODDS_RATIO) -> float:
    """P(a tier's reply is good | another's was bad), from what was thought of the two before that was known.

    The two are tied by one odds ratio (Plackett, "A class of bivariate distributions", JASA 1965): where the bad
    reply was to be expected it says little, and where it was not it says that the request is harder than it looks.
    """
    if p_other >= 1.0:
        return p_good
    s = 1.0 + (odds_ratio - 1.0) * (p_good + p_other)
    product = odds_ratio * p_good * p_other
    both = 2.0 * product / (s + math.sqrt(max(0.0, s * s - 4.0 * (odds_ratio - 1.0) * product)))
    return min(1.0, max(0.0, (p_good - both) / (1.0 - p_other)))
