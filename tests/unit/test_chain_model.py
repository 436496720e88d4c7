"""R8: escalation is not failure. A thousand scenarios, told beforehand by a small model of its own.

The model knows tiers as numbers, money as a table and time as a number; it shares no code with the chain.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from fallback import errors
from fallback.breaker import BreakerSettings
from fallback.checks.stop_reason import StopReasonCheck
from fallback.errors import Failure
from fallback.guards import GuardSettings
from fallback.job import Rules
from fallback.providers import Endpoint
from fallback.types import Accept, Purpose, Reply, StopReason, Usage
from tests.support.fakes import BAD, LADDER, Bench, Delayed, FakeClock, ScriptedProvider, reply, request, tier

USED = Usage(5, 100)
REPLIES = {
    "good": reply("good", usage=USED),
    "bad": reply("bad", usage=USED),
    "truncated": reply("cut", stop=StopReason.MAX_TOKENS, usage=USED),
    "refused": reply("", stop=StopReason.REFUSAL, usage=USED),
}
TRANSIENT = {
    kind.kind: kind
    for kind in (
        errors.TimedOut,
        errors.Overloaded,
        errors.RateLimited,
        errors.ConnectionFailed,
        errors.UpstreamError,
        errors.MalformedReply,
    )
}
UNUSABLE = {kind.kind: kind for kind in (errors.CredentialsRefused, errors.TierNotServed, errors.SpendLimited)}
FAILURES: dict[str, type[Failure]] = {**TRANSIENT, **UNUSABLE, "request_refused": errors.RequestRefused}
COST = {"haiku": 50.5e-6, "sonnet": 1_010e-6, "opus": 2_020e-6}  # 5 tokens in, 100 out
INPUT_1H = {"haiku": 0.2, "sonnet": 4.0, "opus": 8.0}
OUTPUT = {"haiku": 0.5, "sonnet": 10.0, "opus": 20.0}
SURCHARGE = 1.1
ROADS = ("main", "spare")
LEAST_S, ONE_CALL_S, SLACK_S, PROMPT_TOKENS = 0.5, 60.0, 0.1, 5


@dataclass(frozen=True)
class Play:
    kind: str
    delay_s: float
    retry_after_s: float | None


@dataclass(frozen=True)
class Scenario:
    plays: dict[tuple[str, str], list[Play]]
    plan: tuple[str, ...]
    allowed: frozenset[str]
    roads: int
    up: bool
    down: bool
    refused: str
    truncated: str
    ceiling: int
    time_s: float
    cap_usd: float
    budget: float


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    kinds = st.sampled_from([*["good", "bad", "truncated", "refused"] * 3, *TRANSIENT, *FAILURES])
    delays = st.sampled_from([0.0, 0.0, 0.0, 0.3, 2.0, 100.0])
    play = st.builds(Play, kinds, delays, st.sampled_from([None, None, None, 0.0, 0.7, 30.0]))
    roads = draw(st.integers(1, 2))
    allowed = draw(st.sets(st.sampled_from(LADDER), min_size=1))
    plan = sorted(draw(st.sets(st.sampled_from(sorted(allowed)), min_size=1)), key=LADDER.index)
    return Scenario(
        plays={
            (name, road): draw(st.lists(play, min_size=1, max_size=4))
            for name in LADDER
            for road in ("main", "spare")[:roads]
        },
        plan=tuple(plan),
        allowed=frozenset(allowed),
        roads=roads,
        up=draw(st.booleans()),
        down=draw(st.booleans()),
        refused=draw(st.sampled_from(["escalate", "hand_back"])),
        truncated=draw(st.sampled_from(["escalate", "hand_back"])),
        ceiling=draw(st.sampled_from([100, 300])),
        time_s=draw(st.sampled_from([120.0, 120.0, 6.0, 1.5, 0.8, 0.4])),
        cap_usd=draw(st.sampled_from([math.inf, math.inf, math.inf, 4e-3, 1.2e-3, 2e-4, 1e-5])),
        budget=draw(st.sampled_from([100.0, 4.0, 1.0])),
    )


@dataclass
class Model:
    """What must happen, step by step. `story` has (tier, road, purpose, kind)."""

    s: Scenario
    now_s: float = 0.0
    usd: float = 0.0
    story: list[tuple[str, str, str, str]] = field(default_factory=list)
    slept_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    best: tuple[tuple[int, int, int], str, str] | None = None

    def __post_init__(self) -> None:
        self.tokens = dict.fromkeys(ROADS, self.s.budget)
        self.limited: dict[tuple[str, str], float] = {}
        self.refused: dict[tuple[str, str], float] = {}
        self.queues = {key: iter([*plays, *[plays[-1]] * 100]) for key, plays in self.s.plays.items()}

    def run(self) -> tuple[str, str, str]:
        """("accepted" | "marked" | "failed", tier, the reply's kind or the failure's)."""
        name, limit, purpose = self.s.plan[0], 100, "first"
        while True:
            got = self._get(name, limit, purpose)
            if got[0] == "":
                return ("marked", *self.best[1:]) if self.best else ("failed", "", got[1])
            name, kind = got
            if kind == "good":
                return "accepted", name, kind
            rank = (int(kind == "bad"), LADDER.index(name), len(self.story))
            if self.best is None or rank > self.best[0]:
                self.best = (rank, name, kind)
            follow = "escalate"
            if kind == "truncated":
                if limit < self.s.ceiling:
                    limit, purpose = self.s.ceiling, "longer"
                    continue
                follow = self.s.truncated
            elif kind == "refused":
                follow = self.s.refused
            seen = {told[0] for told in self.story}
            higher = [n for n in self.s.plan if LADDER.index(n) > LADDER.index(name) and n not in seen]
            if follow == "hand_back" or not higher:
                return "marked", *self.best[1:]
            name, purpose = higher[0], "escalation"

    def _left_s(self) -> float:
        return self.s.time_s - self.now_s

    def _hindered(self, name: str, limit: int) -> str:
        if self._left_s() < LEAST_S:
            return "not_attempted"
        bound = (PROMPT_TOKENS * INPUT_1H[name] + limit * OUTPUT[name]) / 1e6 * (SURCHARGE if self.s.roads == 2 else 1)
        return "not_attempted" if self.usd + bound > self.s.cap_usd else ""

    def _get(self, name: str, limit: int, purpose: str) -> tuple[str, str]:
        """One step; `kind` is the last thing that happened, `sent` the calls of this step."""
        if self._hindered(name, limit):
            return "", "not_attempted"
        visited, sent, tries, kind = {name}, 0, 0, ""
        for where in (name, *self._neighbours(name, limit, visited)):
            if self._open(where, set(), free=True):
                name = where
                break
        visited.add(name)
        road = next(iter(self._open(name, set(), free=True)), "main")
        tried = {road}
        while True:
            wait_s: float | None = None
            called = not self._shut_s(name, road)
            if called:
                sent, tries = sent + 1, tries + 1
                kind, retry_after_s = self._call(name, road, purpose, limit, visited, tried, tries)
                if kind in REPLIES:
                    return name, kind
                if kind in TRANSIENT:
                    wait_s = min(5.0, (1.0 if kind == "rate_limited" else 0.2) * 2 ** (tries - 1))
                    wait_s = wait_s if retry_after_s is None else retry_after_s
            else:
                tried.add(road)
                road = min(ROADS[: self.s.roads], key=lambda each: self._shut_s(name, each))
                if self.refused_s(name, road) <= self.limited_s(name, road):
                    wait_s = max(0.05, self._shut_s(name, road)) * 1.1
                kind = kind or "not_attempted"
            if kind == "request_refused":
                return "", kind
            free = sent == 0
            fits = wait_s is not None and tries < 3 and self._left_s() - wait_s >= LEAST_S
            fits = fits and (free or self.tokens[road] > self.s.budget / 2)
            others = self._open(name, tried, free=free) if tries < 3 and self._left_s() >= LEAST_S else []
            neighbours = [n for n in self._neighbours(name, limit, visited) if self._open(n, set(), free=free)]
            if others:
                road = others[0]
                tried.add(road)
                purpose = "failover" if sent else purpose
            elif fits and (called or not neighbours):
                assert wait_s is not None
                self.slept_s.append(wait_s)
                self.now_s += wait_s
                purpose = "retry" if sent else purpose
                if self._left_s() < LEAST_S:
                    return "", kind
            elif neighbours:
                name, tries = neighbours[0], 0
                visited.add(name)
                road = self._open(name, set(), free=free)[0]
                tried = {road}
                purpose = "failover" if sent else purpose
            else:
                return "", kind

    def limited_s(self, name: str, road: str) -> float:
        return max(0.0, self.limited.get((name, road), 0.0) - self.now_s)

    def refused_s(self, name: str, road: str) -> float:
        return max(0.0, *(self.refused.get((who, road), 0.0) - self.now_s for who in (name, "")))

    def _shut_s(self, name: str, road: str) -> float:
        """Seconds for which a road takes no call: rate limited, or it has refused us."""
        return max(self.limited_s(name, road), self.refused_s(name, road))

    def _open(self, name: str, tried: set[str], *, free: bool) -> list[str]:
        """Roads not tried that take calls and whose own budget, unless nothing was sent, gives leave."""
        roads = [road for road in ROADS[: self.s.roads] if road not in tried and not self._shut_s(name, road)]
        return [road for road in roads if free or self.tokens[road] > self.s.budget / 2]

    def _neighbours(self, name: str, limit: int, visited: set[str]) -> Iterator[str]:
        here = LADDER.index(name)
        replied = max((LADDER.index(told[0]) for told in self.story if told[3] in REPLIES), default=-1)
        above = range(here + 1, 3) if self.s.up else ()
        below = range(here - 1, -1, -1) if self.s.down else ()
        for rung in (*above, *below):
            other = LADDER[rung]
            if other in self.s.allowed and other not in visited and rung > replied and not self._hindered(other, limit):
                yield other

    def _call(
        self, name: str, road: str, purpose: str, limit: int, visited: set[str], tried: set[str], tries: int
    ) -> tuple[str, float | None]:
        more = any(LADDER.index(n) > LADDER.index(name) for n in self.s.plan)
        more = more or any(self._neighbours(name, limit, visited)) or (tries < 3 and len(tried) < self.s.roads)
        keep_s = LEAST_S + SLACK_S if more else 0.0
        left_s = self._left_s()
        most_s = min(ONE_CALL_S, left_s - keep_s if left_s - keep_s >= LEAST_S else left_s)
        play = next(self.queues[name, road])
        kind, retry_after_s = play.kind, play.retry_after_s
        if play.delay_s > most_s:
            kind, retry_after_s = "timeout", None
        self.took_s.append(min(play.delay_s, most_s))
        self.now_s += self.took_s[-1]
        self.story.append((name, road, purpose, kind))
        if kind in REPLIES:
            self.usd += COST[name] * (SURCHARGE if road == "spare" else 1)
            self.tokens[road] = min(self.s.budget, self.tokens[road] + 0.25)
            self.refused = {key: until for key, until in self.refused.items() if key not in ((name, road), ("", road))}
        elif kind != "request_refused":
            self.tokens[road] = max(0.0, self.tokens[road] - 1)
        if kind == "rate_limited":
            self.limited[name, road] = self.now_s + (0.5 if retry_after_s is None else retry_after_s)
        if kind in UNUSABLE:
            whose = name if kind == "tier_not_served" else ""
            for key in {(whose, road), *({(name, road), ("", road)} & set(self.refused))}:
                self.refused[key] = self.now_s + 30.0
        return kind, retry_after_s


def _bench(s: Scenario) -> Bench:
    clock = FakeClock(monotonic_s=0.0)
    off = BreakerSettings(failures=10**6, window=10**6)

    def road(name: str) -> ScriptedProvider:
        queues = {who: iter([*plays, *[plays[-1]] * 100]) for (who, where), plays in s.plays.items() if where == name}

        def script(call: object) -> Delayed:
            play = next(queues[call.tier])  # type: ignore[attr-defined]
            what = REPLIES.get(play.kind) or FAILURES[play.kind](retry_after_s=play.retry_after_s)
            return Delayed(play.delay_s, what)

        return ScriptedProvider(clock, script)

    names = ("main", "spare")[: s.roads]
    endpoints = {n: Endpoint(n, road(n), n, price_multiplier=SURCHARGE if n == "spare" else 1.0) for n in names}
    return Bench(
        ladder=tuple(tier(n, endpoints=names) for n in LADDER),
        endpoints=endpoints,
        guards=GuardSettings(s.budget, 0.25, endpoint=off, provider=off),
        clock=clock,
    )


@settings(max_examples=1_000)
@given(scenarios())
def test_the_chain_does_what_the_model_says(s: Scenario) -> None:
    bench, model = _bench(s), Model(s)
    job = bench.job(
        *s.plan,
        asked=request(max_tokens=100, max_tokens_ceiling=s.ceiling),
        checks=(StopReasonCheck(s.truncated, s.refused), BAD),  # type: ignore[arg-type]
        rules=Rules(failover_up=s.up, failover_down=s.down),
        time_s=s.time_s,
        allowed=s.allowed,
        cost_cap_usd=s.cap_usd,
    )
    kind_of = {id(value): kind for kind, value in REPLIES.items()}
    try:
        resolution = asyncio.run(bench.run(job))
        end = ("accepted" if resolution.accepted else "marked", resolution.tier, kind_of[id(resolution.reply)])
    except Failure as failure:
        end = ("failed", "", failure.kind)

    expected = model.run()
    event(expected[0])
    told = [
        (a.tier, a.endpoint, a.purpose.value, kind_of[id(a.result)] if isinstance(a.result, Reply) else a.result.kind)
        for a in bench.attempts
    ]
    assert (end, told) == (expected, model.story)
    assert bench.clock.slept == pytest.approx(model.slept_s)
    assert [a.duration_s for a in bench.attempts] == pytest.approx(model.took_s, abs=1e-9)
    assert bench.ledger.cost_usd == pytest.approx(model.usd)
    assert {name: bench.guards.budget(road).tokens for name, road in bench.endpoints.items()} == pytest.approx(
        {name: model.tokens[name] for name in bench.endpoints}
    )
    _promises(s, bench)


def _promises(s: Scenario, bench: Bench) -> None:
    """What holds whatever the model says."""
    calls = [call for road in bench.endpoints.values() for call in road.provider.calls]  # type: ignore[attr-defined]
    assert len(calls) == len(bench.attempts) <= 3 * 3 * (len(s.plan) + 1)
    assert bench.ledger.cost_usd <= s.cap_usd
    for attempt in bench.attempts:
        if isinstance(attempt.result, Reply):
            assert attempt.checks
            assert all(isinstance(report.verdict, Accept) for report in attempt.checks[:-1])
        else:
            assert (attempt.checks, attempt.cost_usd) == ((), 0.0)
    previous = None
    for attempt in bench.attempts:
        failed_before = previous is not None and not isinstance(previous.result, Reply)
        assert failed_before == (attempt.purpose in (Purpose.RETRY, Purpose.FAILOVER))
        previous = attempt
    assert all(call.at_s + LEAST_S <= s.time_s and call.at_s + call.timeout_s <= s.time_s + 1e-9 for call in calls)
    assert all(call.tier in s.allowed for call in calls)
