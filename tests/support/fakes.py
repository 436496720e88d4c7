"""Fakes for the chain: a clock that tests move, a provider that plays a script, and builders."""

from __future__ import annotations

import asyncio
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from fallback.breaker import BreakerSettings
from fallback.chain import Chain
from fallback.checks import Case, Check, Judgement
from fallback.economics import PriceBook, parse_price_book
from fallback.errors import Failure, TimedOut
from fallback.guards import Guards, GuardSettings
from fallback.job import Job, Resolution, Rules, Steering, next_above
from fallback.ledger import Ledger
from fallback.providers import Endpoint
from fallback.recovery import RecoverySettings
from fallback.resilience import Resilience
from fallback.types import (
    Accept,
    Attempt,
    Message,
    Reject,
    Reply,
    ReplyBlock,
    Request,
    StopReason,
    TextBlock,
    Tier,
    Usage,
    Verdict,
)
from router.config import BUILT_IN_PRICES

LADDER = ("haiku", "sonnet", "opus")


class FakeClock:
    """Moves when told, and by exactly what is slept. Wall time is separate, so that it can step."""

    def __init__(self, monotonic_s: float = 1_000.0, wall_s: float = 1_790_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self.wall_now_s = wall_s
        self.wall_reads = 0
        self.slept: list[float] = []
        self.late_s = 0.0  # how much too late every sleep ends

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def wall_s(self) -> float:
        self.wall_reads += 1
        return self.wall_now_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0
        self._monotonic_s += seconds
        self.wall_now_s += seconds

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.advance(seconds + self.late_s)
        await asyncio.sleep(0)


# --- builders --------------------------------------------------------------------------------


@cache
def prices() -> PriceBook:
    """The price book that is shipped."""
    return parse_price_book(tomllib.loads(BUILT_IN_PRICES.read_text(encoding="utf-8")))


def tier(name: str = "haiku", **changes: object) -> Tier:
    """A rung as in the default configuration, with one endpoint named `main`."""
    values: dict[str, object] = {
        "name": name,
        "model": f"claude-{name}-5-5",
        "endpoints": ("main",),
        "max_output_tokens": 128_000,
        "max_input_tokens": 1_000_000,
        "min_time_s": 0.5,
        "timeout_s": 60.0,
        "can_force_tool": name == "haiku",
    } | changes
    return Tier(**values)  # type: ignore[arg-type]


def request(text: str = "a question", **changes: object) -> Request:
    """One user turn."""
    values: dict[str, object] = {
        "workload": "w",
        "messages": (Message("user", (TextBlock(text),)),),
        "max_tokens": 100,
        "max_tokens_ceiling": 100,
    } | changes
    return Request(**values)  # type: ignore[arg-type]


def reply(
    text: str = "good",
    *,
    stop: StopReason = StopReason.END_TURN,
    usage: Usage | None = None,
    model: str = "claude-haiku-5-5",
    blocks: tuple[ReplyBlock, ...] = (),
) -> Reply:
    """A reply of 1,000 tokens in and 100 out."""
    return Reply(blocks or (TextBlock(text),), stop, usage or Usage(1_000, 100), model, "msg_1")


def case(answer: Reply, asked: Request | None = None, **changes: object) -> Case:
    """What a check is shown."""
    values: dict[str, object] = {"tier": "haiku", "earlier": (), "time_left_s": 10.0} | changes
    return Case(asked or request(), answer, **values)  # type: ignore[arg-type]


# --- provider --------------------------------------------------------------------------------

Play = Reply | Failure | BaseException


@dataclass(frozen=True, slots=True)
class Delayed:
    """The play after `delay_s` of clock time; a timeout when that is more than the call has."""

    delay_s: float
    play: Play


@dataclass(frozen=True, slots=True)
class Call:
    """What the provider was asked."""

    tier: str
    model: str
    max_tokens: int
    timeout_s: float
    at_s: float
    request: Request


Script = Callable[[Call], Play | Delayed]


@dataclass
class ScriptedProvider:
    """Plays one item of the script per call; the last one again when the script has run out.

    A callable script is asked for each call. `hold` is awaited before every answer.
    """

    clock: FakeClock
    script: Script | Iterable[Play | Delayed]
    hold: asyncio.Event | None = None
    calls: list[Call] = field(default_factory=list)
    closed: int = 0

    def __post_init__(self) -> None:
        self._items = [] if callable(self.script) else list(self.script)

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        call = Call(tier.name, model, max_tokens, timeout_s, self.clock.monotonic_s(), request)
        self.calls.append(call)
        if self.hold is not None:
            await self.hold.wait()
        play = self.script(call) if callable(self.script) else self._next()
        if isinstance(play, Delayed):
            self.clock.advance(min(play.delay_s, timeout_s))
            if play.delay_s > timeout_s:
                raise TimedOut("client_timeout_error")
            play = play.play
        if isinstance(play, BaseException):
            raise play
        return play

    async def close(self) -> None:
        self.closed += 1

    def _next(self) -> Play | Delayed:
        return self._items.pop(0) if len(self._items) > 1 else self._items[0]


# --- checks ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScriptedCheck:
    """Judges by the reply's text: `verdicts` says how, everything else is accepted."""

    verdicts: dict[str, Verdict]
    name: str = "scripted"
    version: str = "1"
    paid: bool = False
    score: float | None = None
    cost_usd: float = 0.0

    async def judge(self, case: Case) -> Judgement:
        return Judgement(self.verdicts.get(case.reply.text, Accept()), self.score, self.cost_usd)


BAD = ScriptedCheck({"bad": Reject("bad")})


# --- a chain in a box ------------------------------------------------------------------------


class Bench:
    """A chain with its guards, one or more scripted endpoints and a fake clock."""

    def __init__(
        self,
        script: Script | Iterable[Play | Delayed] = (),
        *,
        ladder: tuple[Tier, ...] | None = None,
        endpoints: dict[str, Endpoint] | None = None,
        guards: GuardSettings | None = None,
        recovery: RecoverySettings | None = None,
        clock: FakeClock | None = None,
        uniform: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.clock = clock or FakeClock()
        self.provider = ScriptedProvider(self.clock, script or [reply()])
        self.endpoints = endpoints or {"main": Endpoint("main", self.provider, "acme")}
        self.ladder = ladder or tuple(map(tier, LADDER))
        self.guards = Guards(guards or GuardSettings(), self.clock, uniform)
        self.ledger = Ledger(self.clock.monotonic_s())
        resilience = Resilience(
            ladder=self.ladder,
            endpoints=self.endpoints,
            prices=prices(),
            guards=self.guards,
            recovery=recovery or RecoverySettings(),
            clock=self.clock,
            uniform=uniform,
        )
        self.chain = Chain(ladder=self.ladder, resilience=resilience, clock=self.clock)

    def job(
        self,
        *tiers: str,
        asked: Request | None = None,
        checks: tuple[Check, ...] = (BAD,),
        rules: Rules | None = None,
        time_s: float = 120.0,
        allowed: Iterable[str] | None = None,
        cost_cap_usd: float = math.inf,
        steer: Steering = next_above,
        **more: Mapping[str, float],
    ) -> Job:
        plan = tiers or tuple(each.name for each in self.ladder)
        return Job(
            request=asked or request(),
            tiers=plan,
            allowed=frozenset(plan if allowed is None else allowed),
            checks=checks,
            rules=rules or Rules(),
            deadline_s=self.clock.monotonic_s() + time_s,
            cost_cap_usd=cost_cap_usd,
            steer=steer,
            **more,
        )

    async def run(self, job: Job | None = None) -> Resolution:
        """Runs a job with a ledger of its own, which stays in `ledger`."""
        self.ledger = Ledger(self.clock.monotonic_s())
        return await self.chain.run(job or self.job(), self.ledger)

    async def failure(self, job: Job | None = None) -> Failure:
        """Runs a job that must end without a reply."""
        try:
            resolution = await self.run(job)
        except Failure as failure:
            return failure
        raise AssertionError(f"a reply came: {resolution}")

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        return self.ledger.attempts

    @property
    def story(self) -> list[tuple[str, str, str]]:
        """(tier, purpose, result kind) of every attempt."""
        return [
            (each.tier, each.purpose.value, "reply" if isinstance(each.result, Reply) else each.result.kind)
            for each in self.attempts
        ]

    @property
    def tokens(self) -> float:
        """The retry budget's tokens of the first endpoint."""
        return self.guards.budget(next(iter(self.endpoints.values()))).tokens


def sensitive_breakers(failures: int = 1, window: int = 1, **provider: int) -> GuardSettings:
    """Endpoint breakers that open at once; the provider's stays out of the way unless told."""
    return GuardSettings(
        endpoint=BreakerSettings(failures, window, open_s=30.0, first_open_s=30.0, jitter=0.0),
        provider=BreakerSettings(provider.get("provider_failures", 1_000), provider.get("provider_window", 1_000)),
    )
