"""Hedging: one second attempt beside a late one, inside the budget; the first reply wins and all is accounted for."""

from __future__ import annotations

import asyncio
import math

import pytest

from fallback import errors
from fallback.guards import GuardSettings
from fallback.providers import Endpoint
from fallback.types import Purpose, Reply
from router.tails import Tail, hedge_after_s
from tests.support.fakes import Bench, FakeClock, ScriptedProvider, reply, tier

AFTER = {"haiku": 1.5}


class Road(ScriptedProvider):
    """Answers when its event is set."""

    def __init__(self, clock: FakeClock, *script: Reply | errors.Failure, late: bool = False) -> None:
        super().__init__(clock, list(script), hold=asyncio.Event() if late else None)


def bench(main: Road, spare: Road | None = None, *, guards: GuardSettings | None = None) -> Bench:
    roads = {"main": Endpoint("main", main, "acme")}
    if spare is not None:
        roads["spare"] = Endpoint("spare", spare, "other")
    return Bench(
        endpoints=roads,
        ladder=(tier("haiku", endpoints=tuple(roads)), tier("sonnet")),
        clock=main.clock,
        guards=guards,
    )


def story(made: Bench) -> list[tuple[str, str, str]]:
    return [
        (a.endpoint, a.purpose.value, "reply" if isinstance(a.result, Reply) else a.result.error_type)
        for a in made.attempts
    ]


async def test_a_late_attempt_gets_company_on_another_endpoint_and_the_first_reply_wins(clock: FakeClock) -> None:
    made = bench(Road(clock, reply("slow"), late=True), Road(clock, reply("good")))
    resolution = await made.run(made.job(hedge_after_s=AFTER))
    assert (resolution.reply.text, resolution.accepted) == ("good", True)
    assert story(made) == [("spare", "hedge", "reply"), ("main", "first", "hedge_lost")]
    hedge, lost = made.attempts
    assert (hedge.started_s, lost.started_s) == (1.5, 0.0)
    assert len(hedge.checks) == 1
    assert lost.checks == ()
    assert made.ledger.cost_usd == hedge.cost_usd > 0, "what the cancelled one is billed is not known"
    assert made.guards.budget(made.endpoints["spare"]).tokens == 99.25, "the hedge took one, its reply gave a quarter"
    assert made.guards.budget(made.endpoints["main"]).tokens == 100.0


async def test_with_one_endpoint_the_second_attempt_goes_there_too(clock: FakeClock) -> None:
    hold = asyncio.Event()

    class FirstHangs(Road):
        async def send(self, *args: object, **fields: object) -> Reply:
            if not self.calls:
                self.calls.append(None)  # type: ignore[arg-type]
                await hold.wait()
            return await super().send(*args, **fields)  # type: ignore[arg-type]

    made = bench(FirstHangs(clock, reply("good")))
    await made.run(made.job(hedge_after_s=AFTER))
    assert story(made) == [("main", "hedge", "reply"), ("main", "first", "hedge_lost")]


async def test_the_first_attempt_may_still_win(clock: FakeClock) -> None:
    main = Road(clock, reply("slow"), late=True)
    made = bench(main, Road(clock, reply("good"), late=True))
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER)))
    await _until(lambda: len(made.endpoints["spare"].provider.calls) == 1)  # type: ignore[attr-defined]
    main.hold.set()  # type: ignore[union-attr]
    assert (await running).reply.text == "slow"
    assert story(made) == [("main", "first", "reply"), ("spare", "hedge", "hedge_lost")]


async def test_two_replies_at_once_are_both_paid_and_one_is_kept(clock: FakeClock) -> None:
    main = Road(clock, reply("slow"), late=True)
    spare = Road(clock, reply("good"))
    spare.hold = main.hold
    made = bench(main, spare)
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER)))
    await _until(lambda: len(spare.calls) == 1)
    main.hold.set()  # type: ignore[union-attr]
    assert (await running).reply.text == "slow"
    assert story(made) == [("main", "first", "reply"), ("spare", "hedge", "hedge_lost")]
    assert [a.cost_usd > 0 for a in made.attempts] == [True, True], "what is known is counted"


async def test_an_attempt_that_ends_in_time_has_no_company(clock: FakeClock) -> None:
    made = bench(Road(clock, reply("good")), Road(clock, reply("other")))
    await made.run(made.job(hedge_after_s=AFTER))
    assert story(made) == [("main", "first", "reply")]


async def test_a_failure_beside_a_late_one_is_waited_out(clock: FakeClock) -> None:
    main = Road(clock, reply("slow"), late=True)
    made = bench(main, Road(clock, errors.Overloaded()))
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER)))
    await _until(lambda: len(made.attempts) == 1)
    main.hold.set()  # type: ignore[union-attr]
    assert (await running).reply.text == "slow"
    assert story(made) == [("spare", "hedge", "overloaded"), ("main", "first", "reply")]


async def test_when_both_fail_recovery_goes_on_and_hedges_no_more(clock: FakeClock) -> None:
    main = Road(clock, errors.Overloaded(), reply("good"), late=True)
    made = bench(main, Road(clock, errors.ConnectionFailed()))
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER)))
    await _until(lambda: len(made.attempts) == 1)
    main.hold.set()  # type: ignore[union-attr]
    await running
    assert [(a.endpoint, a.purpose.value) for a in made.attempts] == [
        ("spare", "hedge"),
        ("main", "first"),
        ("main", "retry"),
    ]


@pytest.mark.parametrize(
    "obstacle",
    ["budget", "cost cap", "time", "breakers"],
)
async def test_no_hedge_without_budget_money_time_or_an_open_road(clock: FakeClock, obstacle: str) -> None:
    main, spare = Road(clock, reply("slow"), late=True), Road(clock, reply("good"))
    made = bench(main, spare)
    both = {"cost_cap_usd": math.inf, "time_s": 120.0}
    if obstacle == "budget":
        budget = made.guards.budget(made.endpoints["spare"])
        for _ in range(25):  # a quarter of the tokens: retries still have theirs
            budget.on_failure()
        assert budget.allows
    elif obstacle == "cost cap":
        both["cost_cap_usd"] = 1.5 * made.job().request.max_tokens * 0.5e-6  # one attempt, not two
    elif obstacle == "time":
        both["time_s"] = 1.9
    else:
        for name in ("main", "spare"):
            for _ in range(10):
                made.guards.permit(made.endpoints[name], "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
        clock.advance(30.0)
        probes = [made.guards.permit(made.endpoints["spare"], "haiku") for _ in range(2)]
        assert all(probes)
        made.guards.permit(made.endpoints["main"], "haiku")  # one of its two probes is taken, the request is the other
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER, **both)))  # type: ignore[arg-type]
    await _until(lambda: obstacle == "time" or clock.slept == [1.5])
    for _ in range(5):
        await asyncio.sleep(0)
    main.hold.set()  # type: ignore[union-attr]
    await running
    assert story(made) == [("main", "first", "reply")]


async def test_cancelling_the_request_ends_both(clock: FakeClock) -> None:
    made = bench(Road(clock, reply("slow"), late=True), Road(clock, reply("good"), late=True))
    running = asyncio.ensure_future(made.run(made.job(hedge_after_s=AFTER)))
    await _until(lambda: len(made.endpoints["spare"].provider.calls) == 1)  # type: ignore[attr-defined]
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(story(made)) == [("main", "first", "cancelled"), ("spare", "hedge", "cancelled")]
    assert len(asyncio.all_tasks()) == 1


async def test_a_bug_in_one_of_the_two_comes_out_and_leaves_nothing_running(clock: FakeClock) -> None:
    made = bench(Road(clock, reply("slow"), late=True), Road(clock, ZeroDivisionError()))  # type: ignore[arg-type]
    with pytest.raises(ZeroDivisionError):
        await made.run(made.job(hedge_after_s=AFTER))
    assert len(made.attempts) == 2
    assert len(asyncio.all_tasks()) == 1


async def test_hedges_are_at_most_the_ratio_of_the_replies(clock: FakeClock) -> None:
    """Everything is late: without a bound every request would be sent twice."""

    class Late(Road):
        async def send(self, *args: object, **fields: object) -> Reply:
            for _ in range(10):
                await asyncio.sleep(0)
            return await super().send(*args, **fields)  # type: ignore[arg-type]

    made = bench(Late(clock, reply("good")))
    hedges = 0
    for _ in range(2_000):
        await made.run(made.job(hedge_after_s=AFTER))
        hedges += sum(a.purpose is Purpose.HEDGE for a in made.attempts)
    assert 450 <= hedges <= 2_000 * 0.25 + 26
    assert made.tokens >= 74.0, "retries keep what they need"


def test_the_tail_is_known_from_twenty_on_and_follows() -> None:
    tail = Tail()
    for n in range(19):
        tail.add(float(n))
    assert tail.p95_s is None
    tail.add(19.0)
    assert tail.p95_s == 19.0
    for _ in range(200):
        tail.add(1.0)
    assert tail.p95_s == 1.0


def test_when_a_hedge_is_sent() -> None:
    assert hedge_after_s(None, {"haiku": 2.0}, ("haiku", "opus")) == {}
    assert hedge_after_s("p95", {"haiku": 2.0}, ("haiku", "opus")) == {"haiku": 2.0}
    assert hedge_after_s(0.7, {"haiku": 2.0}, ("haiku", "opus")) == {"haiku": 0.7, "opus": 0.7}


async def _until(condition: object) -> None:
    for _ in range(100):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")
