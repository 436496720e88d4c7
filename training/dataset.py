"""Outcomes → rows with labels and weights. What the labels are, and what each stands for: `training.labels`.

**Weights** (of an example in its tier's training set) are the product of
- the replies that it stands for (`training.labels`);
- the source's strength: verdicts count half of feedback, good and bad alike so that the classes keep
  their proportion; but all of it where audits or feedback speak for the accepted replies;
- the inverse propensity of the start tier, clipped to [1, 10], so that what was explored stands for
  what was not (Horvitz & Thompson 1952; clipping: Ionides 2008);
- a factor ≤ 1 per group, so that no group holds more than its ceiling of a tier's total weight. A group
  is the `tenant` label, or the workload where there is none. The ceiling is 10 %, or twice an equal
  share where there are fewer than twenty groups.

**Time** is the order of request ids, never the wall clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fallback.checks.scorer import ScorerCheck
from fallback.plans import Delay
from fallback.types import Attempt, Reject, Remedy, Reply
from router.features import DENSE_NAMES, FEATURES_VERSION, Features
from router.outcome import Mode, Outcome
from router.reply_features import REPLY_NAMES
from router.store import Recorded
from training.labels import LADDER, labels_of, last_replies, weighed
from training.rows import Row, Step
from training.weights import cap_groups

TENANT_LABEL = "tenant"
SIMULATED_LABEL = "simulated"

MAX_INVERSE_PROPENSITY = 10.0
MAX_REQUESTS = 30_000  # about 5 kB a row, and four times that while fitting: a night stays below 1 GB

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Examples:
    """One tier's training set: `row` (n,) indexes `Dataset.rows`; `good` (n,) is 0 or 1; `weight` (n,) > 0."""

    row: NDArray[np.intp]
    good: Array
    weight: Array


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows in time order, with what was left out and why (`skipped`: reason → count)."""

    rows: tuple[Row, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    ladder: tuple[str, ...] = LADDER

    def split(self, held_out: float) -> tuple[Dataset, Dataset]:
        """(older, newest `held_out` share), by request id order: the model is judged on its future."""
        cut = len(self.rows) - round(len(self.rows) * held_out)
        return (
            Dataset(self.rows[:cut], self.skipped, self.ladder),
            Dataset(self.rows[cut:], {}, self.ladder),
        )

    def examples(self, tier: str) -> Examples:
        """The tier's labelled rows, weighted."""
        found = [(i, row, row.labels[tier]) for i, row in enumerate(self.rows) if tier in row.labels]
        weight = np.array(
            [
                label.strength * label.weight * min(1.0 / row.propensity, MAX_INVERSE_PROPENSITY)
                for _, row, label in found
            ],
            dtype=float,
        )
        return Examples(
            np.array([i for i, _, _ in found], dtype=np.intp),
            np.array([float(label.good) for _, _, label in found], dtype=float),
            cap_groups(weight, [row.group for _, row, _ in found]),
        )

    @property
    def labelled(self) -> int:
        """Requests with at least one label."""
        return sum(bool(row.labels) for row in self.rows)

    @property
    def simulated(self) -> bool:
        """Whether any row is simulated; such a data set must be shown as simulated."""
        return any(row.simulated for row in self.rows)

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Labels by tier and `source good|bad`."""
        counts: dict[str, Counter[str]] = {tier: Counter() for tier in self.ladder}
        for row in self.rows:
            for tier, label in row.labels.items():
                counts[tier][f"{label.source} {'good' if label.good else 'bad'}"] += 1
        return {tier: dict(sorted(count.items())) for tier, count in counts.items()}

    def fingerprint(self) -> str:
        """sha256 of everything that training reads, in hex: the same data give the same model."""
        digest = sha256(f"{FEATURES_VERSION}|{self.ladder}".encode())
        for row in self.rows:
            labels = sorted((tier, each.good, each.source.value, each.weight) for tier, each in row.labels.items())
            # What an id's outcome holds never changes once stored; its labels may, when feedback comes.
            digest.update(repr((row.request_id, row.group, row.propensity, labels)).encode())
        return digest.hexdigest()


# --- reading ---------------------------------------------------------------------------------


def read_dataset(
    records: Iterable[Recorded],
    *,
    ladder: Sequence[str] = LADDER,
    max_requests: int = MAX_REQUESTS,
    progress: Callable[[int], None] = lambda _: None,
) -> Dataset:
    """The newest `max_requests` usable records, in bounded memory.

    Records must come by request id, as `Store.read` gives them. One with features of another version
    or that cannot be decoded, and an id seen twice, is counted in `skipped` and left out.
    """
    skipped: Counter[str] = Counter()
    rows: deque[Row] = deque(maxlen=max_requests)
    last_id = ""
    for count, record in enumerate(records, start=1):
        progress(count)
        outcome = record.outcome
        if outcome.request_id <= last_id:
            skipped["repeated or out of order"] += 1
            continue
        last_id = outcome.request_id
        if outcome.features_version != FEATURES_VERSION:
            skipped["features of another version"] += 1
            continue
        features = _decode(outcome.request_features, len(DENSE_NAMES))
        if features is None:
            skipped["corrupt request features"] += 1
            continue
        if len(rows) == max_requests:
            skipped["older than the newest " + f"{max_requests:,}"] += 1
        rows.append(_row(record, features, tuple(ladder), skipped))
    return Dataset(weighed(rows), dict(sorted(skipped.items())), tuple(ladder))


def _row(record: Recorded, features: Features, ladder: tuple[str, ...], skipped: Counter[str]) -> Row:
    outcome = record.outcome
    tenant = outcome.labels.get(TENANT_LABEL, "")
    return Row(
        request_id=outcome.request_id,
        workload=outcome.workload,
        group=f"tenant:{tenant}" if tenant else f"workload:{outcome.workload}",
        received_at_s=outcome.received_at_s,
        features=features,
        start=outcome.decision.start_tier,
        direct=outcome.decision.mode is Mode.DIRECT,
        propensities=dict(outcome.decision.propensities),
        expected_cost_usd=dict(outcome.decision.expected_cost_usd),
        steps=tuple(_steps(outcome, skipped)),
        resolved=outcome.resolved_tier,
        accepted=outcome.accepted,
        labels=labels_of(record, ladder),
        cost_usd=outcome.cost_usd,
        top_tier_cost_usd=outcome.top_tier_cost_usd,
        simulated=outcome.labels.get(SIMULATED_LABEL, "").lower() in ("true", "1", "yes"),
        delay={
            tier: Delay(mean_s, outcome.decision.expected_time_sd_s.get(tier, 0.0) ** 2)
            for tier, mean_s in outcome.decision.expected_time_s.items()
        },
        audit_replies=dict(_audit_replies(record, skipped)),
        agree=dict(_agree(outcome)),
        regime=outcome.decision.model_version,
    )


def _agree(outcome: Outcome) -> Iterator[tuple[tuple[str, str], tuple[float, float]]]:
    """By (earlier tier, later tier), of each tier's last reply."""
    tiers = {index: tier for tier, (index, _) in last_replies(outcome).items()}
    for each in outcome.agreements:
        if each.first in tiers and each.second in tiers:
            yield (tiers[each.first], tiers[each.second]), (each.same, each.alike)


def _audit_replies(record: Recorded, skipped: Counter[str]) -> Iterator[tuple[str, Features]]:
    for audit in record.audits:
        features = _decode(audit.reply_features, len(REPLY_NAMES)) if audit.reply_features else None
        if features is not None:
            yield audit.auditor_tier, features
        elif audit.reply_features:
            skipped["corrupt reply features"] += 1


def _steps(outcome: Outcome, skipped: Counter[str]) -> Iterator[Step]:
    for tier, (index, last) in last_replies(outcome).items():
        at_tier = [attempt for attempt in outcome.attempts if attempt.tier == tier]
        encoded = outcome.reply_features[index] if index < len(outcome.reply_features) else None
        features = _decode(encoded, len(REPLY_NAMES)) if encoded else None
        if encoded and features is None:
            skipped["corrupt reply features"] += 1
        rejected = _rejecter(last)
        yield Step(
            tier=tier,
            rejected=rejected,
            ends=rejected != "learned" and _hands_back(last.rejection),
            cost_usd=math.fsum(attempt.cost_usd for attempt in at_tier),
            check_cost_usd=math.fsum(report.cost_usd for attempt in at_tier for report in attempt.checks),
            reply_features=features,
            endpoint=last.endpoint,
            model=last.result.model if isinstance(last.result, Reply) else "",
        )


def _rejecter(attempt: Attempt) -> str:
    for report in attempt.checks:
        if isinstance(report.verdict, Reject) and not report.overruled:
            if report.check == ScorerCheck.name:
                return "learned"
            return "paid" if report.calls or report.cost_usd > 0 else "free"
    return ""


def _hands_back(rejection: Reject | None) -> bool:
    if rejection is None:
        return False
    remedy = rejection.otherwise if rejection.remedy is Remedy.RAISE_LIMIT else rejection.remedy
    return remedy is Remedy.HAND_BACK


def _decode(encoded: bytes, dense: int) -> Features | None:
    """None for what cannot be read, or has not this many dense features."""
    try:
        features = Features.from_bytes(encoded)
    except ValueError:
        return None
    return features if len(features.dense) == dense else None
