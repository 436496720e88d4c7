"""A small world for training tests: requests whose difficulty is known, served by a logging policy, and learners.

Every request says in its words how hard it is; a tier's reply is good with a probability that falls with
difficulty. A check finds most bad replies, and some callers report the truth.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fallback import cascade
from fallback.types import Accept, Attempt, CheckReport, Message, Purpose, Reject, Reply, Request, TextBlock
from router.alarms import Alarm
from router.certificate import Certificate
from router.features import FEATURES_VERSION, request_features
from router.outcome import Decision, Feedback, Mode
from router.reply_features import reply_features
from router.store import Recorded, WorkloadStats
from tests.support import outcomes as make
from training.artifacts import write_certificates
from training.dataset import Dataset
from training.follow import Plan
from training.rows import Row, Step

TIERS = make.TIERS
COST_USD = {"haiku": 0.001, "sonnet": 0.010, "opus": 0.020}
ABILITY = {"haiku": 0.45, "sonnet": 0.85, "opus": 1.0}
DIFFICULTY = {"easy": 0.15, "mixed": 0.45, "hard": 0.65}
START_S = 1_790_000_000.0


def p_good(tier: str, difficulty: float) -> float:
    """The tier's chance at a request of this difficulty."""
    return 1.0 / (1.0 + math.exp(14.0 * (difficulty - ABILITY[tier])))


@dataclass(frozen=True)
class World:
    """How the log is made. `explore` is split evenly over the tiers that are not the start tier."""

    explore: float = 0.3
    start: str = "haiku"
    feedback: float = 0.5
    caught: float = 0.9  # of the bad replies, by the check
    labels: Mapping[str, str] = field(default_factory=dict)

    def log(self, n: int, *, seed: int = 0, first: int = 1, recent: bool = False) -> list[Recorded]:
        """n requests, ten seconds apart, with ids from `first`; `recent` ones end now."""
        rng = np.random.default_rng(seed)
        start_s = time.time() - 10.0 * (first + n) if recent else START_S
        return [self._one(first + i, start_s, rng) for i in range(n)]

    def _one(self, n: int, start_s: float, rng: np.random.Generator) -> Recorded:
        workload = str(rng.choice(list(DIFFICULTY)))
        difficulty = float(np.clip(rng.normal(DIFFICULTY[workload], 0.08), 0, 1))
        truth = {tier: bool(rng.random() < p_good(tier, difficulty)) for tier in TIERS}
        others = [tier for tier in TIERS if tier != self.start]
        propensities = {self.start: 1 - self.explore, **{tier: self.explore / len(others) for tier in others}}
        start = str(rng.choice(TIERS, p=[propensities[tier] for tier in TIERS]))
        about = workload, int(10 * difficulty), str(rng.choice(FILLERS))
        attempts: list[Attempt] = []
        for tier in TIERS[TIERS.index(start) :]:
            rejected = not truth[tier] and rng.random() < self.caught
            attempts.append(_attempt(tier, rejected=bool(rejected), first=tier == start))
            if not rejected:
                break
        last = attempts[-1]
        outcome = replace(
            make.outcome(n, workload=workload, attempts=attempts, received_at_s=start_s + 10.0 * n),
            decision=Decision(Mode.CHAIN, TIERS[TIERS.index(start) :], "static_plan", propensities=propensities),
            features_version=FEATURES_VERSION,
            request_features=_encoded_request(*about),
            reply_features=tuple(_encoded_reply(*about, rejected=not attempt.accepted) for attempt in attempts),
            labels=self.labels,
        )
        told = rng.random() < self.feedback
        return Recorded(outcome, Feedback(outcome.request_id, truth[last.tier]) if told else None)


LEVELS = ("easy", "plain", "fair", "tricky", "thorny", "knotty", "gnarly", "brutal", "vicious", "deadly", "mortal")
FILLERS = ("kindly", "please", "now", "soon", "today", "briefly", "well", "once")


def asked(workload: str, level: int, filler: str = "please") -> Request:
    """A request that says how hard it is, in tenths, in words: numbers are masked in features."""
    words = [LEVELS[level]] * 3
    words += [workload, filler, "answer"]
    return Request(workload, (Message("user", (TextBlock(" ".join(words)),)),), 100, 100)


def _attempt(tier: str, *, rejected: bool, first: bool) -> Attempt:
    purpose = Purpose.FIRST if first else Purpose.ESCALATION
    made = make.attempt(tier, result=_reply(rejected=rejected), purpose=purpose, cost_usd=COST_USD[tier])
    return replace(made, checks=(CheckReport("verifier", "1", Reject("wrong") if rejected else Accept()),))


def _reply(*, rejected: bool) -> Reply:
    return make.reply(text="no idea, sorry" if rejected else "the answer is 42")


@cache
def _encoded_request(workload: str, level: int, filler: str) -> bytes:
    return request_features(asked(workload, level, filler)).to_bytes()


@cache
def _encoded_reply(workload: str, level: int, filler: str, *, rejected: bool) -> bytes:
    return reply_features(asked(workload, level, filler), _reply(rejected=rejected)).to_bytes()


# --- a store and learners that need no machine learning --------------------------------------


class Log:
    """Meets `Store` as far as a night reads it."""

    corrupt_rows = 0

    def __init__(self, records: Sequence[Recorded], raised: Sequence[Alarm] = ()) -> None:
        self.records = list(records)
        self.workloads: list[WorkloadStats] = []
        self.raised = raised

    def read(self, *, since_s: float = 0.0, until_s: float = math.inf) -> Iterator[Recorded]:
        return (each for each in self.records if since_s <= each.outcome.received_at_s < until_s)

    def stats(self, *, since_s: float = 0.0) -> list[WorkloadStats]:
        return self.workloads

    def alarms(self, *, since_s: float = 0.0) -> list[Alarm]:
        return [each for each in self.raised if each.at_s >= since_s]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a night has no business with {name}")


@dataclass(frozen=True)
class ByWorkload:
    """Routes by workload alone: `plans` by workload."""

    plans: Mapping[str, Plan]
    p: Mapping[str, float] = field(default_factory=dict)

    def plan(self, row: Row) -> Plan:
        return self.plans[row.workload]

    def after(self, row: Row, plan: Plan, replies: Sequence[Step]) -> cascade.Step:
        last, rung = replies[-1], TIERS.index(replies[-1].tier)
        return cascade.Ask(TIERS[rung + 1]) if last.rejected and rung + 1 < len(TIERS) else cascade.Keep(last.tier)

    def probabilities(self, row: Row) -> Mapping[str, float]:
        return {tier: p_good(tier, DIFFICULTY[row.workload]) for tier in TIERS}


GOOD = ByWorkload(
    {
        "easy": Plan("chain", ("haiku", "sonnet", "opus")),
        "mixed": Plan("chain", ("haiku", "sonnet", "opus")),
        "hard": Plan("chain", ("sonnet", "opus")),
    }
)
MIDDLE = ByWorkload({**GOOD.plans, "mixed": Plan("chain", ("sonnet", "opus"))})
CAREFUL = ByWorkload({workload: Plan("chain", ("sonnet", "opus")) for workload in DIFFICULTY})
DEAR = ByWorkload({workload: Plan("chain", ("opus",)) for workload in DIFFICULTY})
CHEAP = ByWorkload({workload: Plan("only", ("haiku",)) for workload in DIFFICULTY})


# Dearest first; "dear" and "cheap" do not pass the gate, the others pass after any before them.
POLICIES = {"dear": DEAR, "careful": CAREFUL, "middle": MIDDLE, "good": GOOD, "cheap": CHEAP}


@dataclass
class FixedLearner:
    """Always learns the policy of that name; `during` is called while it fits."""

    name: str = "good"
    during: Callable[[], None] = lambda: None
    fits: int = 0
    certificates: Mapping[str, Certificate] = field(default_factory=dict)

    @property
    def recipe(self) -> str:
        return self.name

    def fit(
        self,
        data: Dataset,
        directory: Path,
        *,
        version: str,
        seed: int,
        target: float,
        now_s: float,
        progress: Callable[[str], None],
    ) -> ByWorkload:
        self.fits += 1
        progress("fit haiku")
        self.during()
        (directory / "manifest.json").write_text(json.dumps({"version": version, "policy": self.name}))
        return POLICIES[self.name]

    def load(self, directory: Path, data: Dataset) -> ByWorkload | None:
        return POLICIES[json.loads((directory / "manifest.json").read_text())["policy"]]

    def certify(
        self, policy: Any, data: Dataset, directory: Path, *, version: str, seed: int, since_s: Mapping[Any, float]
    ) -> tuple[Any, Mapping[str, Certificate]]:
        if self.certificates:
            write_certificates(directory, self.certificates, version=version)
        return policy, self.certificates

    def thresholds(self, policy: ByWorkload) -> Mapping[str, float]:
        return {"haiku accept": 0.8}
