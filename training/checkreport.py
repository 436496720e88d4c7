"""What each check is worth, per workload, against what callers and audits later found.

**Truth** is a strong label of the tier's reply (feedback or an audit, `training.labels`); a verdict is none. An
audit stands for 1/P(audited) replies (Horvitz & Thompson 1952); intervals count the effective number of labels,
(Σw)²/Σw² (Kish 1965). A rejected reply is seldom handed over, so its truth comes from `sufficient_tier` and from
audits of what was sent on: without those the false-reject rate rests on little, and its interval says so.

**Rates.** False accept: share of the bad replies that it accepts. False reject: share of the good ones that it
rejects. AUROC: P(a good reply scores above a bad one), with the interval of Hanley & McNeil (1982). Unjudged
is neither.

**Whether it pays.** Let M be what a bad reply costs (`mistake_cost_usd` of the workload, else what decisions took it
to be, else 20 replies of its dearest tier), E what the next tier's reply costs there, q how often that is good, and c
what the check cost. To keep a reply is worth M where it is good and 0 where it is bad; to reject it is worth
M·q − E. Without the check the scorer's verdict would have stood where it spoke before, else the reply would have been
kept. So for one reply

    gain = worth(what it said) − worth(what would have been done) − c

that is: mistakes caught (M·q − E each), good replies rejected (M·q − E − M each), escalations avoided (the reverse of
both), less its own cost. Of the highest tier's reply nothing follows, so that only c counts. Where going on is cheap
any rejection gains, a coin's too; so the same is asked against a coin that rejects as often (`skill`):

    skill = worth(what it said) − r·worth(reject) − (1 − r)·worth(keep) − c,   r the share that it rejects

It pays where the 95 % intervals of both means are above 0, it does not where either is below, and else it is not shown.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from fallback.checks.scorer import ScorerCheck
from fallback.types import Accept, Attempt, CheckReport, Reject, Reply, Unjudged, Verdict
from router.experience import wilson
from router.store import Recorded
from training.labels import labels_of, last_replies
from training.rows import Source

_Z95 = 1.96
_MISTAKE_IN_TOP_REPLIES = 20.0
_MOST_SCORES = 20_000  # labelled scores kept per check, the newest

Pays = Literal["yes", "no", "not shown"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """With its 95 % interval [low, high]; the value is NaN where nothing is known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class CheckWorth:
    """One check in one workload. Estimates are NaN where nothing is known; money is in US dollars.

    `n`: replies that it judged; `labelled`: those of known truth; `gain_usd`, `skill_usd`: per reply judged.
    """

    workload: str
    check: str
    versions: tuple[str, ...]
    n: int
    unjudged: int
    overruled: int
    labelled: int
    auroc: Estimate
    false_accept: Estimate
    false_reject: Estimate
    mean_cost_usd: float
    mean_calls: float
    mean_duration_s: float
    mistake_cost_usd: float
    gain_usd: Estimate
    skill_usd: Estimate
    simulated: bool

    @property
    def pays(self) -> Pays:
        """Whether it pays for itself, as far as can be told."""
        if min(self.gain_usd.low, self.skill_usd.low) > 0:
            return "yes"
        return "no" if min(self.gain_usd.high, self.skill_usd.high) < 0 else "not shown"


@dataclass(frozen=True, slots=True)
class _Seen:
    """One labelled reply that a check judged. `kept`: what would have been done without the check."""

    good: bool
    weight: float
    verdict: Verdict
    score: float | None
    cost_usd: float
    tier: str
    kept: bool


@dataclass(slots=True)
class _Check:
    n: int = 0
    unjudged: int = 0
    overruled: int = 0
    calls: int = 0
    cost_usd: float = 0.0
    duration_s: float = 0.0
    versions: dict[str, None] = field(default_factory=dict)
    seen: list[_Seen] = field(default_factory=list)

    def add(self, report: CheckReport) -> None:
        self.n += 1
        self.unjudged += isinstance(report.verdict, Unjudged)
        self.overruled += report.overruled
        self.calls += report.calls
        self.cost_usd += report.cost_usd
        self.duration_s += report.duration_s
        self.versions[report.version] = None


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    n: float = 0.0

    def add(self, value: float, weight: float = 1.0) -> None:
        self.total += weight * value
        self.n += weight

    def or_else(self, default: float) -> float:
        return self.total / self.n if self.n else default


@dataclass(slots=True)
class _Workload:
    checks: defaultdict[str, _Check] = field(default_factory=lambda: defaultdict(_Check))
    reply_usd: defaultdict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    quality: defaultdict[str, _Mean] = field(default_factory=lambda: defaultdict(_Mean))
    mistake_usd: _Mean = field(default_factory=_Mean)
    simulated: bool = False


def check_report(
    records: Iterable[Recorded], ladder: Sequence[str], mistake_cost_usd: Callable[[str], float | None]
) -> list[CheckWorth]:
    """Every check of every workload in the records, by name. `mistake_cost_usd` is what a workload says of it."""
    found: defaultdict[str, _Workload] = defaultdict(_Workload)
    for record in records:
        _read(record, found[record.outcome.workload], ladder)
    return [
        _worth(name, check, workload, of, ladder, mistake_cost_usd(name))
        for name, workload in sorted(found.items())
        for check, of in sorted(workload.checks.items())
    ]


def _read(record: Recorded, workload: _Workload, ladder: Sequence[str]) -> None:
    outcome, labels = record.outcome, labels_of(record, ladder)
    workload.simulated |= outcome.labels.get("simulated", "").lower() in ("true", "1", "yes")
    if outcome.decision.mistake_cost_usd > 0:
        workload.mistake_usd.add(outcome.decision.mistake_cost_usd)
    for tier, label in labels.items():
        workload.quality[tier].add(float(label.good), 1.0 / label.propensity)
    for attempt in outcome.attempts:
        if isinstance(attempt.result, Reply):
            workload.reply_usd[attempt.tier].add(attempt.cost_usd)
        for report in attempt.checks:
            workload.checks[report.check].add(report)
    for tier, (_, attempt) in last_replies(outcome).items():
        truth = labels.get(tier)
        if truth is not None and truth.source is not Source.VERDICT:
            weight = 1.0 / truth.propensity if truth.source is Source.AUDIT else 1.0
            _judged(attempt, truth.good, weight, workload)


def _judged(attempt: Attempt, good: bool, weight: float, workload: _Workload) -> None:  # noqa: FBT001 - the label
    kept = True
    for report in attempt.checks:
        seen = workload.checks[report.check].seen
        seen.append(_Seen(good, weight, report.verdict, report.score, report.cost_usd, attempt.tier, kept))
        del seen[:-_MOST_SCORES]
        if report.check == ScorerCheck.name and isinstance(report.verdict, Reject):
            kept = False  # what comes after it is asked in its stead
        elif report.calls and isinstance(report.verdict, Accept | Reject):
            kept = isinstance(report.verdict, Accept)


def _worth(
    name: str, check: str, workload: _Workload, of: _Check, ladder: Sequence[str], given_usd: float | None
) -> CheckWorth:
    dearest = max((mean.or_else(0.0) for mean in workload.reply_usd.values()), default=0.0)
    mistake_usd = given_usd or workload.mistake_usd.or_else(_MISTAKE_IN_TOP_REPLIES * dearest)
    next_of = dict(pairwise(ladder))
    weights = [seen.weight for seen in of.seen]
    rejects = _rate(of.seen, Reject).value
    compared = [_gain_usd(seen, workload, next_of.get(seen.tier), mistake_usd, rejects) for seen in of.seen]
    return CheckWorth(
        workload=name,
        check=check,
        versions=tuple(of.versions),
        n=of.n,
        unjudged=of.unjudged,
        overruled=of.overruled,
        labelled=len(of.seen),
        auroc=auroc([(seen.score, seen.good, seen.weight) for seen in of.seen if seen.score is not None]),
        false_accept=_rate([seen for seen in of.seen if not seen.good], Accept),
        false_reject=_rate([seen for seen in of.seen if seen.good], Reject),
        mean_cost_usd=of.cost_usd / of.n,
        mean_calls=of.calls / of.n,
        mean_duration_s=of.duration_s / of.n,
        mistake_cost_usd=mistake_usd,
        gain_usd=_mean([gain for gain, _ in compared], weights),
        skill_usd=_mean([skill for _, skill in compared], weights),
        simulated=workload.simulated,
    )


def _gain_usd(
    seen: _Seen, workload: _Workload, above: str | None, mistake_usd: float, rejects: float
) -> tuple[float, float]:
    """(gain, skill), as the module's docstring says."""
    if above is None or isinstance(seen.verdict, Unjudged):
        return -seen.cost_usd, -seen.cost_usd
    keep_usd = mistake_usd * seen.good
    reject_usd = mistake_usd * workload.quality[above].or_else(1.0) - workload.reply_usd[above].or_else(0.0)
    said_usd = (keep_usd if isinstance(seen.verdict, Accept) else reject_usd) - seen.cost_usd
    coin_usd = rejects * reject_usd + (1.0 - rejects) * keep_usd
    return said_usd - (keep_usd if seen.kept else reject_usd), said_usd - coin_usd


# --- figures with intervals ------------------------------------------------------------------


def _rate(seen: Sequence[_Seen], kind: type[Accept | Reject]) -> Estimate:
    judged = [each for each in seen if not isinstance(each.verdict, Unjudged)]
    n = _effective([each.weight for each in judged])
    if n == 0:
        return Estimate(math.nan, 0.0, 1.0)
    total = math.fsum(each.weight for each in judged)
    share = math.fsum(each.weight for each in judged if isinstance(each.verdict, kind)) / total
    low, high = wilson(share * n, n)
    return Estimate(share, low, high)


def _mean(values: Sequence[float], weights: Sequence[float]) -> Estimate:
    n = _effective(weights)
    if n < 2:
        return Estimate(math.nan, -math.inf, math.inf)
    total = math.fsum(weights)
    mean = math.fsum(v * w for v, w in zip(values, weights, strict=True)) / total
    variance = math.fsum(w * (v - mean) ** 2 for v, w in zip(values, weights, strict=True)) / total
    spread = _Z95 * math.sqrt(variance / (n - 1))
    return Estimate(mean, mean - spread, mean + spread)


def _effective(weights: Sequence[float]) -> float:
    squares = math.fsum(weight * weight for weight in weights)
    return math.fsum(weights) ** 2 / squares if squares else 0.0


def auroc(scored: Sequence[tuple[float, bool, float]]) -> Estimate:
    """Area under the ROC curve of (score, good, weight), ties half; NaN without either kind."""
    good = [(score, weight) for score, is_good, weight in scored if is_good]
    bad = [(score, weight) for score, is_good, weight in scored if not is_good]
    if not good or not bad:
        return Estimate(math.nan, 0.0, 1.0)
    below = above = 0.0
    levels: defaultdict[float, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for kind, part in enumerate((bad, good)):
        for score, weight in part:
            levels[score][kind] += weight
    for score in sorted(levels):
        bad_here, good_here = levels[score]
        above += good_here * (below + 0.5 * bad_here)
        below += bad_here
    area = above / (below * math.fsum(weight for _, weight in good))
    spread = _Z95 * _standard_error(area, _effective([w for _, w in good]), _effective([w for _, w in bad]))
    return Estimate(area, max(0.0, area - spread), min(1.0, area + spread))


def _standard_error(area: float, good: float, bad: float) -> float:
    """Hanley & McNeil 1982, equation 1; never that of a perfect separation, which a few labels show by luck."""
    held = min(max(area, 0.5 / (good + 1)), 1 - 0.5 / (good + 1))
    q1, q2 = held / (2 - held), 2 * held * held / (1 + held)
    variance = held * (1 - held) + (good - 1) * (q1 - held * held) + (bad - 1) * (q2 - held * held)
    return math.sqrt(max(0.0, variance) / (good * bad))
