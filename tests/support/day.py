"""A simulated day on which a model update makes haiku worse, through the code that serves.

Simulated: requests, replies, their truth, feedback, and time. Real: the night's fit and certificate, features, policy,
chain, scorer, drift, and certifying anew on what the day brings. The update leaves no trace but worse answers: they
read like good ones, and the model id stays. Only what callers report half an hour later can show it.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fallback.guards import Guards, GuardSettings
from fallback.providers import Endpoint
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Tier, Usage
from router.alarms import Alarm
from router.build import make_generation
from router.certificate import Promise
from router.completer import Ask
from router.completion import Completion
from router.config import Config
from router.drift import Drift
from router.experience import Experience
from router.outcome import Feedback, Outcome, RequestIds
from router.scoring import RouterModel
from router.sequential import DriftSettings
from router.store import Recorded
from router.translate import Bounds
from tests.support.fakes import FakeClock
from training.dataset import Dataset, read_dataset
from training.evidence import certify_policy
from training.learner import OutcomeLearner
from training.recertify import too_old
from training.served import Served, Terms

TIERS = ("haiku", "sonnet", "opus")
WORKLOAD = "triage"
ALLOWED = 0.08  # false accepts
MISTAKE_USD = 0.03
P_BAD = {"haiku": (0.005, 0.25), "sonnet": (0.005, 0.05), "opus": (0.005, 0.02)}  # of the easiest and the hardest
WORSE = 0.25  # what the update adds to haiku's
REPORTED, DELAY_S = 0.5, 1_800.0
DAY_S = 86_400.0
CERTIFY_EVERY_S = 4 * 3_600.0
_WORDS = ("easy", "plain", "fair", "tricky", "thorny", "knotty", "gnarly", "brutal", "vicious", "deadly")
_TOPICS = ("refund", "invoice", "parcel", "password", "tariff", "contract", "branch", "card", "order", "address")


@dataclass
class Tiers:
    """All three tiers. `worse` is set when the update comes; `good` is the truth by request and tier."""

    rng: np.random.Generator
    worse: bool = False
    good: dict[tuple[int, str], bool] = field(default_factory=dict)
    number: int = 0
    level: int = 0

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        low, high = P_BAD[tier.name]
        base = low + (high - low) * (self.level / (len(_WORDS) - 1)) ** 2
        updated = self.worse and tier.name == "haiku"
        drawn = self.rng.random()
        bad = drawn < base + (WORSE if updated else 0.0)
        self.good[self.number, tier.name] = not bad
        shows = drawn < base and self.rng.random() < 0.6  # what the update spoils does not show
        text = "perhaps this one, not sure at all" if shows else f"label {self.rng.choice(_TOPICS)} as asked"
        return Reply((TextBlock(text),), StopReason.END_TURN, Usage(300, 60), model)

    async def close(self) -> None: ...


class Kept:
    """Stands in for the recorder: what was recorded is in `records`."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.feedback: dict[str, Feedback] = {}

    async def record(self, outcome: Outcome, *, within_s: float) -> bool:
        del within_s
        self.outcomes.append(outcome)
        return True

    def dataset(self) -> Dataset:
        return read_dataset(Recorded(each, self.feedback.get(each.request_id)) for each in self.outcomes)


@dataclass(frozen=True, slots=True)
class Answered:
    """One request of the day: when, by which tier at last, good or not, at what cost."""

    at_s: float
    tier: str
    good: bool
    cost_usd: float


@dataclass
class Day:
    """What happened. `alarm_s` is the first alarm after the update, from midnight; None without one."""

    served: list[Answered]
    alarms: list[Alarm]
    update_s: float
    alarm_s: float | None
    certified: list[tuple[float, str]]

    def after(self, since_s: float, until_s: float = DAY_S) -> list[Answered]:
        return [each for each in self.served if since_s <= each.at_s < until_s]

    def worst_window(self, since_s: float, n: int) -> float:
        """The least share of good replies in any n consecutive requests from `since_s` on."""
        good = np.array([each.good for each in self.after(since_s)], dtype=float)
        return float(np.convolve(good, np.full(n, 1 / n), mode="valid").min())


class World:
    """A service in simulated time, from one seed."""

    def __init__(self, seed: int, *, watched: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.clock = FakeClock(wall_s=1_790_000_000.0 // DAY_S * DAY_S)
        self.tiers, self.kept = Tiers(np.random.default_rng(seed + 1)), Kept()
        self.alarms: list[Alarm] = []
        self.model: RouterModel | None = None
        self.watched = watched
        policy = {"false_accept_max": ALLOWED, "mistake_cost_usd": MISTAKE_USD}
        config = Config.model_validate({"workloads": {WORKLOAD: policy}})
        self.drift = Drift(DriftSettings(), self.alarms.append if watched else lambda _: None)
        self.generation = make_generation(
            config,
            endpoints={"claude": Endpoint("claude", self.tiers, "anthropic")},
            guards=Guards(GuardSettings(), self.clock, self.rng.random),
            experience=Experience(config.ladder),
            drift=self.drift,
            model=lambda: self.model,
            recorder=self.kept,  # type: ignore[arg-type]
            ids=RequestIds(),
            clock=self.clock,
            uniform=self.rng.random,
        )
        self.learner = OutcomeLearner(lambda _: Terms(TIERS, mistake_cost_usd=MISTAKE_USD, promise=Promise(ALLOWED)))
        self._reports: deque[tuple[float, str, bool]] = deque()

    async def ask(self, *, explore: float) -> Answered:
        """One request, and the reports that are due."""
        self.tiers.number += 1
        self.tiers.level = int(self.rng.integers(len(_WORDS)))
        word = _WORDS[self.tiers.level]
        text = f"{word} {word} case: {self.rng.choice(_TOPICS)} or {self.rng.choice(_TOPICS)}? {self.tiers.number % 97}"
        request = Request(WORKLOAD, (Message("user", (TextBlock(text),)),), 200, 200)
        policy, checks = self.generation.policy(WORKLOAD)
        policy = policy.model_copy(update={"explore": explore})
        completion = Completion(self.generation.completer, Ask(request, policy, checks, Bounds(TIERS)))
        outcome = (await completion.run()).outcome
        now_s, good = self.clock.wall_s(), self.tiers.good[self.tiers.number, outcome.resolved_tier]
        if self.rng.random() < REPORTED:
            self._reports.append((now_s + DELAY_S, outcome.request_id, good))
        while self._reports and self._reports[0][0] <= now_s:
            at_s, request_id, was_good = self._reports.popleft()
            self.kept.feedback[request_id] = Feedback(request_id, was_good, reported_at_s=at_s)
            if self.watched:
                self.drift.judged(request_id, good=was_good, at_s=at_s)
        return Answered(now_s % DAY_S, outcome.resolved_tier, good, outcome.cost_usd)

    def learn(self, folder: Path, seed: int) -> None:
        """The night: fit on what is older, certify on what is newer."""
        held_in, held_out = self.kept.dataset().split(0.5)
        fitted = self.learner.fit(
            held_in, folder, version="v1", seed=seed, target=0.97, now_s=0.0, progress=lambda _: None
        )
        done, _ = self.learner.certify(fitted, held_out, folder, version="v1", seed=seed, since_s={})
        loaded = self.learner.load(folder, held_in)
        assert isinstance(done, Served)
        assert isinstance(loaded, Served)
        self.policy, self.model = loaded, loaded.model

    def certify(self) -> str:
        """What `tierwise-training certify` does, on the outcomes so far; the state of haiku."""
        assert self.model is not None
        fresh = [row for row in self.kept.dataset().rows if row.request_id > self.model.fitted_until]
        certificates: Mapping = certify_policy(
            self.policy.uncertified(), fresh, lambda _: Promise(ALLOWED), since_s=too_old(self.alarms)
        )
        if certificates != self.model.certificates:
            self.model = replace(
                self.model, certificates=certificates, version=f"v1.c{self.kept.outcomes[-1].request_id[:12]}"
            )
        return str(certificates[WORKLOAD].tiers["haiku"].accept.state)


async def simulate(seed: int = 0, *, night: int = 3_000, requests: int = 6_000, update_hour: float = 10.0,
                   watched: bool = True) -> Day:  # fmt: skip
    """A day before, the night, and the day of the update. Not `watched`: nobody looks out for drift."""
    world = World(seed, watched=watched)
    for _ in range(night):
        world.clock.advance(DAY_S / night)
        await world.ask(explore=0.6)  # the first day has no model and tries everything
    with tempfile.TemporaryDirectory() as folder:
        world.learn(Path(folder), seed)
    world.clock.advance(-(world.clock.wall_s()) % DAY_S)
    update_s, served, certified = update_hour * 3_600, [], []
    next_s = CERTIFY_EVERY_S
    for number in range(requests):
        world.tiers.worse = number >= requests * update_s / DAY_S
        world.clock.advance(DAY_S / requests)
        served.append(await world.ask(explore=0.04))
        if watched and served[-1].at_s >= next_s:
            next_s += CERTIFY_EVERY_S
            certified.append((served[-1].at_s, world.certify()))
    raised = [alarm.at_s % DAY_S for alarm in world.alarms if not alarm.cleared and alarm.at_s % DAY_S >= update_s]
    return Day(served[:-1], world.alarms, update_s, min(raised, default=None), certified)
