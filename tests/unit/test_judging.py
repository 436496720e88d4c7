"""How verdicts become one, and the account of what checks ask: calls, money, time, guards, cancellation."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import Ask, Keep
from fallback.cascade import Step as CascadeStep
from fallback.checks import Case, Judgement
from fallback.checks.scorer import Assessment, ScorerCheck
from fallback.errors import Failure, NotAttempted, Overloaded, RequestRefused, TimedOut
from fallback.guards import GuardSettings
from fallback.job import Rejected, Rules
from fallback.providers import Endpoint
from fallback.types import Accept, CheckReport, Reject, Remedy, Reply, Unjudged, Usage, Verdict
from tests.support.fakes import (
    BAD,
    Bench,
    Call,
    Delayed,
    FakeClock,
    ScriptedCheck,
    ScriptedProvider,
    prices,
    reply,
    sensitive_breakers,
    tier,
)

USED = Usage(1_000, 100)
HAIKU_USD = prices().cost_usd("claude-haiku-5-5", USED)
SONNET_USD = prices().cost_usd("claude-sonnet-5-5", USED)


@dataclass(frozen=True)
class Asks:
    """A paid check that asks a tier some times and gives the verdict that its setting says."""

    verdict: Verdict = Accept()  # noqa: RUF009 - frozen
    tier: str = "haiku"
    times: int = 1
    uncertain: tuple[float, float] = (0.2, 0.9)
    model: str = ""
    name: str = "asks"
    version: str = "1"
    paid: bool = True
    timeout_s: float = 30.0

    def pinned(self, model: str) -> Self:
        return replace(self, model=model)

    async def judge(self, case: Case) -> Judgement:
        try:
            for _ in range(self.times):
                await case.ask(self.tier, case.request, timeout_s=self.timeout_s)
        except Failure as failure:
            return Judgement(Unjudged(failure.error_type))
        return Judgement(self.verdict)


def scorer(score: float, step: CascadeStep) -> ScorerCheck:
    return ScorerCheck("v1", lambda case: Assessment(score, step) if case.tier == "haiku" else None)


KEEP, GO_ON = Keep("haiku", 0.0), Ask("opus", 0.0)
NO = Reject("no")


async def outcome_of(*checks: Any, rules: Rules | None = None) -> tuple[list[str], bool, list[CheckReport]]:
    """(tiers called by the chain, accepted, the first attempt's reports)."""
    bench = Bench([reply("good", usage=USED)])
    resolution = await bench.run(bench.job(checks=checks, rules=rules))
    first = bench.attempts[0]
    assert (first.rejection is None) == resolution.accepted or len(bench.attempts) > 1
    return [each.tier for each in bench.attempts], resolution.accepted, list(first.checks)


@pytest.mark.parametrize(
    ("checks", "tiers", "asked"),
    [
        # Outside the band the scorer decides, and nobody is asked.
        ((scorer(0.95, KEEP), Asks(NO)), ["haiku"], False),
        ((scorer(0.05, GO_ON), Asks()), ["haiku", "opus"], False),
        # Inside, both ends included, a decisive paid verdict overrules it.
        ((scorer(0.9, KEEP), Asks(NO)), ["haiku", "sonnet"], True),
        ((scorer(0.2, GO_ON), Asks()), ["haiku"], True),
        # Both reject: where to go is decided anew, here tier by tier. Both accept: done.
        ((scorer(0.5, GO_ON), Asks(NO)), ["haiku", "sonnet"], True),
        ((scorer(0.5, KEEP), Asks()), ["haiku"], True),
        # What could not tell decides nothing.
        ((scorer(0.5, GO_ON), Asks(Unjudged("abstained"))), ["haiku", "opus"], True),
        ((scorer(0.5, KEEP), Asks(Unjudged("abstained"))), ["haiku"], True),
        # Without a score it is always asked.
        ((Asks(NO),), ["haiku", "sonnet"], True),
        ((ScorerCheck("v1", lambda _: None), Asks(NO)), ["haiku", "sonnet"], True),
        # A free Reject ends it before anything is spent.
        ((ScriptedCheck({"good": Reject("bad")}), scorer(0.5, KEEP), Asks()), ["haiku", "sonnet", "opus"], False),
        # An Accept lets the next paid one speak; a Reject does not.
        ((scorer(0.5, GO_ON), Asks(), Asks(NO)), ["haiku", "sonnet"], True),
        ((scorer(0.5, KEEP), Asks(NO), Asks()), ["haiku", "sonnet"], True),
    ],
)
async def test_a_paid_check_speaks_inside_the_band_and_its_verdict_is_decisive(
    checks: tuple[Any, ...],
    tiers: list[str],
    asked: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    # sonnet's and opus's replies pass: scripted checks judge haiku's alone there
    checks = tuple(OnHaiku(check) if isinstance(check, Asks) else check for check in checks)
    called, _, reports = await outcome_of(*checks)
    assert called == tiers
    assert any(report.calls for report in reports) is asked


@dataclass(frozen=True)
class OnHaiku:
    """A paid check that lets other tiers' replies pass, unasked."""

    check: Asks
    name: str = "asks"
    version: str = "1"
    paid: bool = True
    tier: str = "haiku"
    model: str = ""
    uncertain: tuple[float, float] = (0.2, 0.9)

    def pinned(self, model: str) -> Self:
        return replace(self, model=model)

    async def judge(self, case: Case) -> Judgement:
        return await self.check.judge(case) if case.tier == "haiku" else Judgement(Accept())


async def test_what_was_overruled_says_so_and_does_not_count() -> None:
    _, accepted, reports = await outcome_of(scorer(0.5, GO_ON), Asks())
    assert accepted
    assert [(each.check, each.overruled) for each in reports] == [("scorer", True), ("asks", False)]
    _, _, reports = await outcome_of(scorer(0.5, KEEP), OnHaiku(Asks(NO)))
    assert [(each.check, each.overruled) for each in reports] == [("scorer", True), ("asks", False)]


async def test_after_a_paid_reject_what_comes_next_is_decided_anew_with_its_report() -> None:
    told: list[Rejected] = []

    def steer(rejected: Rejected) -> CascadeStep:
        told.append(rejected)
        return Ask("opus", 0.0)

    bench = Bench([reply("good")])
    job = replace(bench.job(checks=(scorer(0.5, Ask("sonnet", 0.0)), OnHaiku(Asks(NO)))), steer=steer)
    await bench.run(job)
    assert [each.tier for each in bench.attempts] == ["haiku", "opus"]
    [rejected] = told
    assert (rejected.tier, rejected.report.check, rejected.above) == ("haiku", "asks", ("sonnet", "opus"))


@pytest.mark.parametrize("remedy", [Remedy.ESCALATE, Remedy.HAND_BACK])
async def test_the_workload_says_what_unjudged_means_whatever_the_scorer_thought(remedy: Remedy) -> None:
    bench = Bench([reply("good")])
    resolution = await bench.run(
        bench.job(checks=(scorer(0.5, KEEP), OnHaiku(Asks(Unjudged("abstained")))), rules=Rules(remedy))
    )
    assert [each.tier for each in bench.attempts] == (
        ["haiku", "sonnet", "opus"][: 3 if remedy is Remedy.ESCALATE else 1]
    )
    assert not resolution.accepted
    assert resolution.reasons[0] == "haiku:asks:unjudged:abstained"


async def test_nobody_is_asked_about_a_reply_below_what_is_certified() -> None:
    barred = ScorerCheck("v1", lambda case: Assessment(0.5, GO_ON, barred=case.tier == "haiku"))
    called, _, reports = await outcome_of(barred, Asks())
    assert called == ["haiku", "opus"]
    assert [report.check for report in reports] == ["scorer"]


async def test_nobody_is_asked_about_a_reply_that_nothing_could_follow() -> None:
    bench = Bench([reply("good")])
    resolution = await bench.run(bench.job("opus", checks=(Asks(NO),)))
    assert resolution.accepted
    assert len(bench.provider.calls) == 1


# --- the account -----------------------------------------------------------------------------


async def test_calls_and_money_are_accounted_for() -> None:
    bench = Bench([reply("good", usage=USED)])
    await bench.run(bench.job(checks=(Asks(tier="sonnet", times=2), Asks(times=1))))
    reports = bench.attempts[0].checks
    assert [each.calls for each in reports] == [2, 1]
    assert [each.cost_usd for each in reports] == pytest.approx([2 * SONNET_USD, HAIKU_USD])
    assert bench.ledger.cost_usd == pytest.approx(2 * SONNET_USD + 2 * HAIKU_USD)
    assert len(bench.provider.calls) == 1 + 3


def failing(failure: Failure) -> Any:
    """The chain's own calls go well; those of checks, which ask sonnet, fail."""
    return lambda call: failure if call.tier == "sonnet" else reply("good", usage=USED)


@pytest.mark.parametrize("failure", [Overloaded(), TimedOut(), RequestRefused()])
async def test_its_failure_is_unjudged_never_retried_and_costs_budget_and_health_as_any_other(
    failure: Failure,
) -> None:
    transient = not isinstance(failure, RequestRefused)
    bench = Bench(failing(failure), guards=sensitive_breakers())
    for asked in (1, 0 if transient else 1):  # the first failure opens the breaker: then nothing is sent
        tokens = bench.tokens
        resolution = await bench.run(bench.job(checks=(Asks(NO, tier="sonnet"),)))
        [report] = bench.attempts[0].checks
        assert resolution.accepted
        assert report.calls == asked
        assert report.verdict == Unjudged(failure.error_type if asked else "breaker_open")
        after_the_reply = min(100.0, tokens + 0.25)
        assert bench.tokens == pytest.approx(after_the_reply - (asked if transient else 0))
    assert [call.tier for call in bench.provider.calls].count("sonnet") == (1 if transient else 2)


async def test_it_goes_to_another_endpoint_where_the_first_may_not_be_called() -> None:
    provider = ScriptedProvider(FakeClock(), [reply("good", usage=USED)])
    bench = Bench(
        ladder=(tier("haiku"), tier("sonnet", endpoints=("main", "other")), tier("opus")),
        endpoints={
            "main": Endpoint("main", provider, "acme"),
            "other": Endpoint("other", provider, "acme", price_multiplier=2.0),
        },
        guards=sensitive_breakers(),
    )
    permit = bench.guards.permit(bench.endpoints["main"], "sonnet")
    assert permit is not None
    permit.failed(Overloaded())
    await bench.run(bench.job(checks=(Asks(tier="sonnet"),)))
    assert bench.attempts[0].checks[0].cost_usd == pytest.approx(2 * SONNET_USD)


async def test_no_money_or_no_time_is_unjudged_and_nothing_is_sent() -> None:
    bench = Bench([reply("good", usage=USED)])
    bound = 100 * 10.0 / 1e6  # output tokens alone at sonnet's price
    await bench.run(bench.job(checks=(Asks(tier="sonnet"),), cost_cap_usd=bound))
    assert [(each.verdict, each.calls) for each in bench.attempts[0].checks] == [(Unjudged("cost_cap"), 0)]
    # Haiku starts with 0.7 s and is done at once; sonnet would need 0.5 s after the 0.5 s kept for an escalation.
    await bench.run(bench.job(checks=(Asks(tier="sonnet"),), time_s=0.7))
    assert [(each.verdict, each.calls) for each in bench.attempts[0].checks] == [(Unjudged("deadline"), 0)]


async def test_calls_at_once_set_their_money_aside() -> None:
    bench = Bench([reply("good", usage=USED)])
    bench.provider.hold = asyncio.Event()
    bound = bench.chain._resilience.bound_usd("haiku", bench.job().request, 100)
    asking = bench.chain._resilience.asking(bench.job(cost_cap_usd=2.5 * bound), "haiku", bench.ledger)
    calls = [asyncio.ensure_future(asking("haiku", bench.job().request, timeout_s=5)) for _ in range(3)]
    await asyncio.sleep(0)
    assert asking.calls == 2
    with pytest.raises(NotAttempted):
        await calls[2]
    bench.provider.hold.set()
    await asyncio.gather(*calls[:2])
    assert asking.cost_usd == pytest.approx(2 * HAIKU_USD)


async def test_time_for_an_escalation_is_kept_back() -> None:
    def play(call: Call) -> Any:
        return reply("good") if len(bench.provider.calls) == 1 else Delayed(999.0, reply("good"))

    bench = Bench(play)
    await bench.run(bench.job(checks=(Asks(tier="haiku"),), time_s=10.0))
    assert bench.provider.calls[1].timeout_s == pytest.approx(10.0 - 0.5 - 0.1)
    assert bench.attempts[0].checks[0].verdict == Unjudged("client_timeout_error")


async def test_a_cancel_reaches_what_a_check_asks_and_the_account_is_true() -> None:
    bench = Bench([reply("good", usage=USED)])
    began, cancelled = asyncio.Event(), []

    async def send(*_: Any, **__: Any) -> Reply:
        if not began.is_set() and not bench.ledger.attempts:
            return reply("good", usage=USED)
        began.set()
        try:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    bench.provider.send = send  # type: ignore[method-assign]
    tokens = bench.tokens
    task = asyncio.ensure_future(bench.run(bench.job(checks=(BAD, Asks()))))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled
    assert [(each.check, each.verdict, each.calls) for each in bench.attempts[0].checks] == [
        ("scripted", Accept(), 0),
        ("asks", Unjudged("cut_off"), 1),
    ]
    assert bench.tokens == tokens  # a caller that goes away says nothing of the endpoint
    assert bench.guards.permit(bench.endpoints["main"], "haiku") is not None


@given(
    st.lists(st.sampled_from(["haiku", "sonnet"]), max_size=6),
    st.lists(st.sampled_from(["reply", "overloaded", "refused"]), min_size=8, max_size=8),
)
def test_whatever_happens_calls_sent_are_calls_recorded_and_money_adds_up(asked: list[str], fates: list[str]) -> None:
    plays = iter(fates)

    def play(call: Call) -> Any:
        fate = next(plays) if len(bench.provider.calls) > 1 else "reply"
        return {"reply": reply("good", usage=USED), "overloaded": Overloaded(), "refused": RequestRefused()}[fate]

    bench = Bench(play, guards=GuardSettings())
    checks = tuple(Asks(tier=each) for each in asked)
    asyncio.run(bench.run(bench.job(checks=checks)))
    reports = bench.attempts[0].checks
    assert sum(each.calls for each in reports) + 1 == len(bench.provider.calls)
    billed = sum(
        {"haiku": HAIKU_USD, "sonnet": SONNET_USD}[tier]
        for tier, fate in zip(asked, fates, strict=False)
        if fate == "reply"
    )
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD + billed)
    assert all(isinstance(each.verdict, Accept | Unjudged) for each in reports)
