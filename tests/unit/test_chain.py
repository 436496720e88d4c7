"""The chain: what is tried, why it is called that, what it costs and what the caller gets."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from fallback import errors
from fallback.cascade import Ask, Keep
from fallback.checks.stop_reason import StopReasonCheck
from fallback.guards import GuardSettings
from fallback.job import Rejected, Rules
from fallback.providers import Endpoint
from fallback.recovery import RecoverySettings
from fallback.types import Accept, Purpose, Reject, Remedy, Reply, StopReason, Unjudged, Usage
from tests.support.fakes import (
    BAD,
    Bench,
    Delayed,
    FakeClock,
    ScriptedCheck,
    ScriptedProvider,
    reply,
    request,
    sensitive_breakers,
    tier,
)

HAIKU_USD = (1_000 * 0.1 + 100 * 0.5) / 1e6
SONNET_USD = (1_000 * 2 + 100 * 10) / 1e6
OPUS_USD = (1_000 * 4 + 100 * 20) / 1e6
TRUNCATED = reply("cut", stop=StopReason.MAX_TOKENS)


# --- cost tiering ----------------------------------------------------------------------------


async def test_a_good_reply_of_the_first_tier_ends_it() -> None:
    bench = Bench([reply("good")])
    resolution = await bench.run()
    assert (resolution.tier, resolution.accepted, resolution.reasons) == ("haiku", True, ())
    assert bench.story == [("haiku", "first", "reply")]
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD)
    assert bench.clock.slept == []


async def test_a_rejected_reply_escalates_and_every_reply_is_paid_for() -> None:
    bench = Bench([reply("bad"), reply("bad"), reply("good")])
    resolution = await bench.run()
    assert (resolution.tier, resolution.accepted, resolution.reasons) == ("opus", True, ())
    assert bench.story == [
        ("haiku", "first", "reply"),
        ("sonnet", "escalation", "reply"),
        ("opus", "escalation", "reply"),
    ]
    assert [each.cost_usd for each in bench.attempts] == pytest.approx([HAIKU_USD, SONNET_USD, OPUS_USD])
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD + SONNET_USD + OPUS_USD)
    assert bench.tokens == 100.0, "escalations draw on no budget"


async def test_escalations_stay_inside_the_plan_and_skip_what_it_skips() -> None:
    bench = Bench([reply("bad"), reply("good")])
    assert (await bench.run(bench.job("haiku", "opus"))).tier == "opus"
    assert [call.tier for call in bench.provider.calls] == ["haiku", "opus"]


@pytest.mark.parametrize(
    ("to", "tiers"), [("opus", ["haiku", "opus"]), ("sonnet", ["haiku", "sonnet"]), ("haiku", ["haiku", "sonnet"])]
)
async def test_a_check_that_knows_which_tier_is_worth_it_is_followed_upwards_only(to: str, tiers: list[str]) -> None:
    bench = Bench([reply("odd"), reply("good")])
    await bench.run(bench.job(checks=(ScriptedCheck({"odd": Reject("low_score", to=to)}),)))
    assert [call.tier for call in bench.provider.calls] == tiers


async def test_a_rejection_leads_where_the_steering_says() -> None:
    asked: list[Rejected] = []

    def straight_to_the_top(rejected: Rejected) -> Ask:
        asked.append(rejected)
        return Ask(rejected.above[-1])

    bench = Bench([Delayed(20.0, reply("bad")), reply("good")])
    resolution = await bench.run(bench.job(steer=straight_to_the_top, time_s=60.0))
    assert (resolution.tier, resolution.accepted, resolution.reasons) == ("opus", True, ())
    assert [call.tier for call in bench.provider.calls] == ["haiku", "opus"]
    assert [(each.tier, each.reply.text, each.report.check, each.above, each.time_left_s) for each in asked] == [
        ("haiku", "bad", "scripted", ("sonnet", "opus"), 40.0)
    ]


async def test_the_steering_may_give_up_and_says_why() -> None:
    bench = Bench([reply("bad")])
    give_up = Keep("haiku", accepted=False, why="not_worth_going_on")
    resolution = await bench.run(bench.job(steer=lambda _: give_up))
    assert (resolution.tier, resolution.accepted) == ("haiku", False)
    assert resolution.reasons == ("haiku:scripted:bad", "not_worth_going_on")
    assert len(bench.attempts) == 1


async def test_the_steering_never_leads_back_to_a_tier_that_was_tried() -> None:
    bench = Bench([reply("bad")])
    resolution = await bench.run(bench.job(steer=lambda _: Ask("haiku")))
    assert (resolution.tier, resolution.accepted, len(bench.attempts)) == ("haiku", False, 1)


async def test_an_earlier_reply_that_turns_out_to_be_the_better_one_is_accepted() -> None:
    wants_more = ScriptedCheck(
        {
            "fair": Reject("low_score", to="sonnet"),
            "worse": Reject("earlier_reply_better", Remedy.HAND_BACK, to="haiku"),
        }
    )
    bench = Bench([reply("fair"), reply("worse")])
    resolution = await bench.run(bench.job(checks=(wants_more,)))
    assert (resolution.tier, resolution.reply.text, resolution.accepted) == ("haiku", "fair", True)
    assert resolution.reasons == ("haiku:scripted:low_score", "sonnet:scripted:earlier_reply_better")
    bench = Bench([reply("fair"), reply("bad")])
    resolution = await bench.run(
        bench.job(
            checks=(BAD, wants_more), steer=lambda seen: Keep("haiku") if seen.tier == "sonnet" else Ask("sonnet")
        )
    )
    assert (resolution.tier, resolution.accepted) == ("haiku", True)


async def test_when_nothing_passes_the_best_reply_comes_back_marked() -> None:
    bench = Bench([reply("bad")])
    resolution = await bench.run()
    assert not resolution.accepted
    assert resolution.tier == "opus", "equal otherwise: the highest tier's"
    assert resolution.reasons == ("haiku:scripted:bad", "sonnet:scripted:bad", "opus:scripted:bad")


async def test_the_best_reply_passed_most_checks_then_scored_highest() -> None:
    second = ScriptedCheck({"half": Reject("half")}, name="second")
    bench = Bench([reply("half"), reply("bad"), reply("bad")])
    resolution = await bench.run(bench.job(checks=(BAD, second)))
    assert (resolution.tier, resolution.reply.text) == ("haiku", "half")

    class Scored:
        name, version, paid = "scored", "1", False

        async def judge(self, case: object) -> object:
            from fallback.checks import Judgement

            score = {"haiku": 0.2, "sonnet": 0.4, "opus": 0.3}[case.tier]  # type: ignore[attr-defined]
            return Judgement(Reject("low"), score)

    resolution = await bench.run(bench.job(checks=(Scored(),)))  # type: ignore[arg-type]
    assert resolution.tier == "sonnet"


async def test_checks_stop_at_the_first_rejection_and_are_reported_with_time_and_cost() -> None:
    paid = ScriptedCheck({}, name="paid", cost_usd=0.001, score=0.9, paid=True)
    never = ScriptedCheck({}, name="never")
    bench = Bench([Delayed(2.0, reply("bad")), reply("good")])
    await bench.run(bench.job(checks=(paid, BAD, never)))
    first, second = bench.attempts
    assert [(each.check, type(each.verdict).__name__) for each in first.checks] == [
        ("paid", "Accept"),
        ("scripted", "Reject"),
    ]
    assert [each.check for each in second.checks] == ["paid", "scripted", "never"]
    assert first.checks[0].started_s == pytest.approx(2.0)
    assert (first.started_s, first.duration_s) == pytest.approx((0.0, 2.0))
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD + SONNET_USD + 0.002)


async def test_a_later_check_sees_the_reports_of_the_earlier_ones() -> None:
    seen = []

    class Looks:
        name, version, paid = "looks", "1", False

        async def judge(self, case: object) -> object:
            from fallback.checks import Judgement
            from fallback.types import Accept

            seen.append((case.tier, [each.check for each in case.earlier], case.time_left_s))  # type: ignore[attr-defined]
            return Judgement(Accept())

    bench = Bench([reply("good")])
    await bench.run(bench.job(checks=(BAD, Looks()), time_s=9.0))  # type: ignore[arg-type]
    assert seen == [("haiku", ["scripted"], 9.0)]


# --- truncation, refusals, unjudged ----------------------------------------------------------


async def test_a_truncated_reply_gets_a_longer_limit_before_a_dearer_tier() -> None:
    bench = Bench([TRUNCATED, reply("good")])
    asked = request(max_tokens=100, max_tokens_ceiling=400)
    resolution = await bench.run(bench.job(asked=asked, checks=(StopReasonCheck(),)))
    assert bench.story == [("haiku", "first", "reply"), ("haiku", "longer", "reply")]
    assert [call.max_tokens for call in bench.provider.calls] == [100, 400]
    assert resolution.accepted
    assert bench.tokens == 100.0


async def test_still_truncated_at_the_ceiling_it_escalates_with_the_raised_limit() -> None:
    bench = Bench([TRUNCATED, TRUNCATED, reply("good")])
    asked = request(max_tokens=100, max_tokens_ceiling=400)
    await bench.run(bench.job(asked=asked, checks=(StopReasonCheck(),)))
    assert bench.story[2] == ("sonnet", "escalation", "reply")
    assert [call.max_tokens for call in bench.provider.calls] == [100, 400, 400]


async def test_truncated_with_no_room_and_handed_back_by_policy() -> None:
    longer = reply("cut longer", stop=StopReason.MAX_TOKENS)
    bench = Bench([TRUNCATED, longer])
    asked = request(max_tokens=100, max_tokens_ceiling=400)
    resolution = await bench.run(bench.job(asked=asked, checks=(StopReasonCheck(truncated="hand_back"),)))
    assert len(bench.attempts) == 2
    assert resolution.reply.text == "cut longer", "of two truncated replies the longer one is better"
    assert resolution.reasons == ("haiku:stop_reason:truncated", "haiku:stop_reason:truncated")


async def test_the_limit_is_never_raised_beyond_the_tier() -> None:
    ladder = (tier("haiku", max_output_tokens=50), tier("sonnet"))
    bench = Bench([TRUNCATED, reply("good")], ladder=ladder)
    await bench.run(bench.job(asked=request(max_tokens=100, max_tokens_ceiling=400), checks=(StopReasonCheck(),)))
    assert [(call.tier, call.max_tokens) for call in bench.provider.calls] == [("haiku", 50), ("sonnet", 100)]


@pytest.mark.parametrize(("policy", "attempts"), [("hand_back", 1), ("escalate", 3)])
async def test_a_refusal_is_a_reply_and_the_policy_says_what_follows(policy: str, attempts: int) -> None:
    bench = Bench([reply("", stop=StopReason.REFUSAL)])
    resolution = await bench.run(bench.job(checks=(StopReasonCheck(refused=policy),)))  # type: ignore[arg-type]
    assert len(bench.attempts) == attempts
    assert not resolution.accepted
    assert resolution.reply.stop_reason is StopReason.REFUSAL
    assert bench.tokens == 100.0


@pytest.mark.parametrize(
    ("meaning", "story", "accepted"),
    [
        (None, ["haiku"], True),
        (Remedy.ESCALATE, ["haiku", "sonnet", "opus"], False),
        (Remedy.HAND_BACK, ["haiku"], False),
    ],
)
async def test_unjudged_means_what_the_workload_says_and_is_never_a_rejection(
    meaning: Remedy | None, story: list[str], *, accepted: bool
) -> None:
    bench = Bench([reply("odd")])
    unsure = ScriptedCheck({"odd": Unjudged("timeout")})
    resolution = await bench.run(bench.job(checks=(unsure,), rules=Rules(unjudged=meaning)))
    assert [each.tier for each in bench.attempts] == story
    assert resolution.accepted is accepted
    assert all(isinstance(each.checks[0].verdict, Unjudged) and each.rejection is None for each in bench.attempts)
    if not accepted:
        assert resolution.reasons[0] == "haiku:scripted:unjudged:timeout"


# --- resilience ------------------------------------------------------------------------------


async def test_a_transient_failure_is_retried_on_the_same_tier() -> None:
    bench = Bench([errors.Overloaded(), errors.Overloaded(), reply("good")])
    resolution = await bench.run()
    assert resolution.accepted
    assert bench.story == [
        ("haiku", "first", "overloaded"),
        ("haiku", "retry", "overloaded"),
        ("haiku", "retry", "reply"),
    ]
    assert bench.clock.slept == pytest.approx([0.2, 0.4])
    assert [each.cost_usd for each in bench.attempts] == pytest.approx([0, 0, HAIKU_USD])
    assert bench.tokens == pytest.approx(98.25)
    assert all(each.checks == () for each in bench.attempts[:2]), "a Failure gets no verdict"


async def test_a_failure_is_kept_bare_so_that_nothing_holds_the_prompt() -> None:
    bench = Bench([errors.RequestRefused("invalid_request_error", http_status=400, upstream_request_id="r1")])
    raised = await bench.failure()
    kept = bench.attempts[0].result
    assert isinstance(kept, errors.RequestRefused)
    assert kept.__traceback__ is None
    assert kept.__context__ is None
    assert (kept.error_type, kept.http_status, kept.upstream_request_id) == ("invalid_request_error", 400, "r1")
    assert raised is not kept
    assert raised.__context__ is None


async def test_after_the_attempts_on_a_tier_it_fails_over_to_the_next_one_up() -> None:
    bench = Bench(lambda call: errors.Overloaded() if call.tier == "haiku" else reply("good"))
    resolution = await bench.run()
    assert bench.story == [("haiku", "first", "overloaded")] + [("haiku", "retry", "overloaded")] * 2 + [
        ("sonnet", "failover", "reply")
    ]
    assert (resolution.tier, resolution.accepted) == ("sonnet", True)


async def test_failing_over_down_happens_only_where_the_workload_allows_it() -> None:
    def script(call: object) -> Reply | errors.Failure:
        return reply("good") if call.tier == "haiku" else errors.TimedOut()  # type: ignore[attr-defined]

    bench = Bench(script)
    job = bench.job("sonnet", "opus", allowed=("haiku", "sonnet", "opus"))
    assert isinstance(await bench.failure(job), errors.TimedOut)
    resolution = await bench.run(dataclasses.replace(job, rules=Rules(failover_down=True)))
    assert resolution.tier == "haiku"
    assert bench.story[-1] == ("haiku", "failover", "reply")


async def test_neither_up_nor_down_leaves_only_retries() -> None:
    bench = Bench([errors.Overloaded()])
    failure = await bench.failure(bench.job(rules=Rules(failover_up=False)))
    assert isinstance(failure, errors.Overloaded)
    assert len(bench.attempts) == 3


async def test_a_refused_request_is_not_tried_again_anywhere() -> None:
    bench = Bench([errors.RequestRefused()])
    assert isinstance(await bench.failure(), errors.RequestRefused)
    assert bench.story == [("haiku", "first", "request_refused")]
    assert bench.tokens == 100.0


async def test_an_operational_end_of_an_escalation_returns_the_best_reply_marked() -> None:
    bench = Bench(lambda call: reply("bad") if call.tier == "haiku" else errors.Overloaded())
    resolution = await bench.run()
    assert (resolution.tier, resolution.accepted) == ("haiku", False)
    assert resolution.reasons == ("haiku:scripted:bad", "escalation:overloaded")
    purposes = [each.purpose for each in bench.attempts]
    assert purposes[1] is Purpose.ESCALATION
    assert set(purposes[2:]) == {Purpose.RETRY, Purpose.FAILOVER}


async def test_an_operational_end_of_a_longer_try_is_not_called_an_escalation() -> None:
    bench = Bench([TRUNCATED, errors.RequestRefused()])
    asked = request(max_tokens=100, max_tokens_ceiling=200)
    resolution = await bench.run(bench.job(asked=asked, checks=(StopReasonCheck(),)))
    assert resolution.reasons == ("haiku:stop_reason:truncated", "longer:request_refused")


async def test_after_a_failover_up_the_plan_goes_on_above_it_and_never_below() -> None:
    guards = sensitive_breakers()
    bench = Bench(lambda call: errors.Overloaded() if call.tier != "opus" else reply("bad"), guards=guards)
    job = bench.job("haiku", "sonnet", allowed=("haiku", "sonnet", "opus"))
    await bench.run(job)  # opens haiku and sonnet
    bench.clock.advance(31.0)
    bench.guards.permit(bench.endpoints["main"], "sonnet").failed(errors.Overloaded())  # type: ignore[union-attr]
    haiku = [bench.guards.permit(bench.endpoints["main"], "haiku") for _ in range(2)]  # its probes are taken
    assert all(haiku)
    resolution = await bench.run(job)
    assert bench.story == [("opus", "first", "reply")]
    assert (resolution.tier, resolution.accepted) == ("opus", False), "haiku, untried, would be no escalation"
    assert resolution.reasons == ("opus:scripted:bad",)


async def test_an_escalation_never_fails_over_below_a_tier_that_was_rejected() -> None:
    guards = sensitive_breakers()
    bench = Bench(lambda call: reply("bad") if call.tier != "opus" else errors.Overloaded(), guards=guards)
    job = bench.job("sonnet", "opus", allowed=("haiku", "sonnet", "opus"), rules=Rules(failover_down=True))
    resolution = await bench.run(job)
    assert [each.tier for each in bench.attempts] == ["sonnet", "opus"]
    assert resolution.tier == "sonnet"


# --- endpoints and breakers ------------------------------------------------------------------


def _two_roads(clock: FakeClock, first: list[object], second: list[object]) -> Bench:
    roads = {
        "main": Endpoint("main", ScriptedProvider(clock, first), "acme"),  # type: ignore[arg-type]
        "spare": Endpoint("spare", ScriptedProvider(clock, second), "other", {"haiku": "h-2"}, 1.1),  # type: ignore[arg-type]
    }
    return Bench(endpoints=roads, ladder=(tier("haiku", endpoints=("main", "spare")), tier("sonnet")), clock=clock)


async def test_another_endpoint_of_the_same_tier_comes_first_and_at_its_own_price(clock: FakeClock) -> None:
    bench = _two_roads(clock, [errors.Overloaded()], [reply("good")])
    await bench.run()
    assert [(each.endpoint, each.purpose.value) for each in bench.attempts] == [
        ("main", "first"),
        ("spare", "failover"),
    ]
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD * 1.1)
    assert bench.endpoints["spare"].provider.calls[0].model == "h-2"  # type: ignore[attr-defined]
    assert bench.attempts[1].model == "claude-haiku-5-5", "prices and statistics go by the tier's model"
    assert clock.slept == []


@pytest.mark.parametrize("failure", [errors.CredentialsRefused, errors.TierNotServed, errors.SpendLimited])
async def test_an_unusable_endpoint_is_left_for_another_and_not_retried(
    clock: FakeClock, failure: type[errors.Failure]
) -> None:
    bench = _two_roads(clock, [failure()], [failure()])
    assert isinstance(await bench.failure(bench.job("haiku")), failure)
    assert [each.endpoint for each in bench.attempts] == ["main", "spare"]


async def test_an_open_breaker_sends_the_first_call_elsewhere_for_free(clock: FakeClock) -> None:
    bench = _two_roads(clock, [reply("good")], [reply("good")])
    for _ in range(10):
        bench.guards.permit(bench.endpoints["main"], "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    tokens = bench.guards.budget(bench.endpoints["main"]).tokens
    await bench.run()
    assert [(each.endpoint, each.purpose.value) for each in bench.attempts] == [("spare", "first")]
    assert bench.guards.budget(bench.endpoints["main"]).tokens == tokens


async def test_a_road_of_which_half_of_the_calls_fail_is_avoided_and_where_there_is_no_other_still_called() -> None:
    bench = Bench([reply("good")], guards=GuardSettings())
    for tier_name in ("haiku", "sonnet"):
        for failed in (True, False) * 9 + (True, True):  # the tenth failure of twenty, at most two in a row
            call = bench.guards.permit(bench.endpoints["main"], tier_name)
            assert call is not None
            call.failed(errors.Overloaded()) if failed else call.replied(reply())
    await bench.run()
    assert bench.story == [("opus", "first", "reply")], "the nearest tier that does not ail"
    await bench.run(bench.job("haiku", rules=Rules(failover_up=False)))
    assert bench.story == [("haiku", "first", "reply")]
    await bench.run(bench.job("haiku", "sonnet"))
    assert bench.story == [("haiku", "first", "reply")], "both ail"
    bench.clock.advance(5.0)
    await bench.run()
    assert bench.story == [("haiku", "first", "reply")], "tried anew after its time"


async def test_of_two_endpoints_the_one_that_does_not_ail_is_called_first(clock: FakeClock) -> None:
    bench = _two_roads(clock, [reply("good")], [reply("good")])
    for failed in (True, False) * 9 + (True,):
        call = bench.guards.permit(bench.endpoints["main"], "haiku")
        assert call is not None
        call.failed(errors.Overloaded()) if failed else call.replied(reply())
    await bench.run()
    assert bench.attempts[0].endpoint == "spare"


async def test_every_breaker_open_fails_fast_and_says_how_long() -> None:
    bench = Bench([errors.Overloaded()], guards=sensitive_breakers())
    for name in ("haiku", "sonnet", "opus"):
        bench.guards.permit(bench.endpoints["main"], name).failed(errors.Overloaded())  # type: ignore[union-attr]
    bench.clock.advance(10.0)
    failure = await bench.failure()
    assert isinstance(failure, errors.NotAttempted)
    assert failure.error_type == "breaker_open"
    assert failure.retry_after_s == pytest.approx(20.0)
    assert bench.attempts == ()
    assert bench.provider.calls == []


async def test_an_escalation_into_an_open_breaker_hands_the_best_reply_back() -> None:
    bench = Bench([reply("bad")], guards=sensitive_breakers())
    for name in ("sonnet", "opus"):
        bench.guards.permit(bench.endpoints["main"], name).failed(errors.Overloaded())  # type: ignore[union-attr]
    resolution = await bench.run()
    assert resolution.reasons == ("haiku:scripted:bad", "breaker_open")


async def test_a_breaker_that_opens_during_the_backoff_ends_the_retries() -> None:
    bench = Bench([errors.Overloaded()], guards=sensitive_breakers())
    assert isinstance(await bench.failure(bench.job("haiku", rules=Rules(failover_up=False))), errors.Overloaded)
    assert len(bench.attempts) == 1


# --- budget ----------------------------------------------------------------------------------


async def test_no_retry_once_half_of_the_budget_is_gone() -> None:
    bench = Bench([errors.Overloaded()], guards=GuardSettings(budget_tokens=4.0))
    await bench.failure(bench.job("haiku"))
    assert len(bench.attempts) == 2, "4 → 3 allows one more, 3 → 2 none"
    await bench.failure(bench.job("haiku"))
    assert len(bench.attempts) == 1


async def test_a6_extra_calls_in_an_outage_are_at_most_half_the_tokens_over_ten_thousand_requests() -> None:
    off = dataclasses.replace(GuardSettings().endpoint, failures=10**9, window=10**6)
    bench = Bench([errors.Overloaded()], guards=GuardSettings(100.0, 0.25, endpoint=off, provider=off))
    for _ in range(10_000):
        await bench.failure()
        assert bench.attempts[0].purpose is Purpose.FIRST
    extra = len(bench.provider.calls) - 10_000
    assert 40 <= extra <= 50


async def test_an_outage_with_breakers_is_hardly_called_at_all() -> None:
    bench = Bench([errors.Overloaded()], guards=GuardSettings())
    for _ in range(1_000):
        await bench.failure(bench.job("haiku"))
        bench.clock.advance(0.01)
    assert len(bench.provider.calls) <= 10 + 2


# --- deadline and money ----------------------------------------------------------------------


async def test_nothing_starts_without_the_tiers_minimum_time() -> None:
    bench = Bench([reply("good")])
    failure = await bench.failure(bench.job(time_s=0.49))
    assert isinstance(failure, errors.NotAttempted)
    assert failure.error_type == "deadline"
    assert bench.provider.calls == []
    assert (await bench.run(bench.job(time_s=0.5))).accepted


async def test_an_escalation_without_time_hands_the_best_reply_back() -> None:
    bench = Bench([Delayed(0.6, reply("bad"))])
    resolution = await bench.run(bench.job(time_s=0.9))
    assert resolution.reasons == ("haiku:scripted:bad", "deadline")
    assert len(bench.attempts) == 1


async def test_a_hung_tier_leaves_time_for_the_next_one() -> None:
    bench = Bench(lambda call: Delayed(1e9, reply()) if call.tier == "haiku" else reply("good"))
    resolution = await bench.run(bench.job(time_s=5.0))
    assert resolution.tier == "sonnet"
    assert bench.provider.calls[0].timeout_s == pytest.approx(4.4), "its own minimum and some slack are kept back"
    assert bench.story == [("haiku", "first", "timeout"), ("sonnet", "failover", "reply")]


async def test_the_last_tier_has_all_the_time_there_is() -> None:
    bench = Bench([reply("bad"), reply("good")])
    await bench.run(bench.job("haiku", "opus", time_s=5.0))
    assert [call.timeout_s for call in bench.provider.calls] == pytest.approx([4.4, 5.0])


async def test_with_too_little_to_share_the_first_tier_takes_it_all() -> None:
    bench = Bench([reply("good")])
    await bench.run(bench.job(time_s=0.9))
    assert bench.provider.calls[0].timeout_s == pytest.approx(0.9)


async def test_an_attempts_own_limit_holds() -> None:
    bench = Bench([reply("good")])
    await bench.run(bench.job(time_s=1_000.0))
    assert bench.provider.calls[0].timeout_s == 60.0


async def test_retry_after_is_waited_exactly_when_it_fits() -> None:
    bench = Bench([errors.RateLimited(retry_after_s=5.0), reply("good")])
    await bench.run(bench.job("haiku", time_s=10.0))
    assert bench.clock.slept == [5.0]


@pytest.mark.parametrize("wait_s", [9.6, 120.0, 1e9])
async def test_retry_after_beyond_the_deadline_is_not_waited_at_all(wait_s: float) -> None:
    bench = Bench([errors.RateLimited(retry_after_s=wait_s)])
    failure = await bench.failure(bench.job("haiku", time_s=10.0))
    assert failure.retry_after_s == wait_s
    assert bench.clock.slept == []
    assert len(bench.attempts) == 1


async def test_a_sleep_that_ends_late_starts_nothing_too_late() -> None:
    bench = Bench([errors.RateLimited(retry_after_s=9.5)])
    bench.clock.late_s = 0.01
    await bench.failure(bench.job("haiku", time_s=10.0))
    assert len(bench.provider.calls) == 1


async def test_the_cost_cap_stops_an_escalation_that_might_break_it() -> None:
    bench = Bench([reply("bad", usage=Usage(10, 10))])
    asked = request("x" * 20)  # at most 10 tokens in, 100 out
    sonnet_bound = (10 * 4 + 100 * 10) / 1e6
    spent = (10 * 0.1 + 10 * 0.5) / 1e6
    resolution = await bench.run(bench.job(asked=asked, cost_cap_usd=spent + sonnet_bound * 0.999))
    assert resolution.reasons == ("haiku:scripted:bad", "cost_cap")
    resolution = await bench.run(bench.job("haiku", "sonnet", asked=asked, cost_cap_usd=spent + sonnet_bound * 1.001))
    assert [each.tier for each in bench.attempts] == ["haiku", "sonnet"]


async def test_a_cap_that_nothing_fits_calls_nothing() -> None:
    bench = Bench([reply("good")])
    failure = await bench.failure(bench.job(cost_cap_usd=1e-9))
    assert (failure.kind, failure.error_type) == ("not_attempted", "cost_cap")
    assert bench.provider.calls == []


async def test_the_cap_counts_the_dearest_endpoint(clock: FakeClock) -> None:
    bench = _two_roads(clock, [reply("good")], [reply("good")])
    bound = (5 * 0.2 + 100 * 0.5) / 1e6
    assert (await bench.failure(bench.job("haiku", cost_cap_usd=bound * 1.05))).error_type == "cost_cap"
    assert (await bench.run(bench.job("haiku", cost_cap_usd=bound * 1.11))).accepted


async def test_a_failover_up_obeys_the_cap_with_the_raised_limit() -> None:
    script: list[Reply | errors.Failure] = [TRUNCATED, *[errors.Overloaded()] * 3, reply("good")]
    asked = request("x" * 20, max_tokens=100, max_tokens_ceiling=1_000)
    short_usd, long_usd = ((10 * 4 + n * 10) / 1e6 for n in (100, 1_000))
    bench = Bench(script)
    job = bench.job(asked=asked, checks=(StopReasonCheck(),), cost_cap_usd=HAIKU_USD + (short_usd + long_usd) / 2)
    resolution = await bench.run(job)
    assert not resolution.accepted
    assert {each.tier for each in bench.attempts} == {"haiku"}


# --- cancellation and bugs -------------------------------------------------------------------


async def test_a_cancelled_attempt_is_recorded_gives_its_permit_back_and_costs_no_budget() -> None:
    bench = Bench([errors.Overloaded()], guards=sensitive_breakers())
    await bench.failure(bench.job("haiku"))
    bench.clock.advance(31.0)  # half-open: two probes
    bench.provider.hold = asyncio.Event()
    tokens = bench.tokens
    for _ in range(5):
        task = asyncio.ensure_future(bench.run(bench.job("haiku")))
        await asyncio.sleep(0)
        assert len(bench.provider.calls) >= 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bench.story == [("haiku", "first", "cancelled")]
    assert bench.tokens == tokens
    permits = [bench.guards.permit(bench.endpoints["main"], "haiku") for _ in range(3)]
    assert [permit is not None for permit in permits] == [True, True, False]


async def test_a_cancel_during_the_checks_keeps_the_reply_and_the_reports_so_far() -> None:
    class Waits:
        name, version, paid = "waits", "1", False

        async def judge(self, case: object) -> object:
            return await asyncio.Event().wait()

    bench = Bench([reply("good")])
    task = asyncio.ensure_future(bench.run(bench.job(checks=(BAD, Waits()))))  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.story == [("haiku", "first", "reply")]
    assert [(each.check, each.verdict) for each in bench.attempts[0].checks] == [
        ("scripted", Accept()),
        ("waits", Unjudged("cut_off")),
    ]
    assert bench.ledger.cost_usd == pytest.approx(HAIKU_USD)


async def test_a_bug_in_a_provider_is_recorded_as_one_and_not_as_a_caller_who_left() -> None:
    bench = Bench([ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        await bench.run()
    assert bench.story == [("haiku", "first", "upstream_error")]
    assert bench.tokens == 99.0


async def test_only_one_try_where_the_settings_say_so() -> None:
    bench = Bench([errors.Overloaded()], recovery=RecoverySettings(attempts_per_tier=1))
    await bench.failure(bench.job("haiku"))
    assert len(bench.attempts) == 1
