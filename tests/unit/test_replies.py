"""From the chain's values to the wire: nothing lost, nothing invented."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given

from fallback.errors import Overloaded
from fallback.types import (
    Accept,
    Attempt,
    CheckReport,
    Purpose,
    Reject,
    Reply,
    StopReason,
    TextBlock,
    ToolUseBlock,
    Unjudged,
    Usage,
)
from router.outcome import Decision, Mode
from router.replies import decision_of, response_of
from router.v1 import router_pb2
from tests.support import outcomes as make

REPLY = Reply(
    (TextBlock("hé"), ToolUseBlock("u1", "look", {"q": "é", "n": [1]})),
    StopReason.TOOL_USE,
    Usage(1, 2, 3, 4, 5),
    "claude-sonnet-5-5",
    "msg_1",
)
ATTEMPTS = (
    Attempt("haiku", "claude-haiku-5-5", "main", Purpose.FIRST, Overloaded(), 0.0, 0.25),
    Attempt(
        "sonnet",
        "claude-sonnet-5-5",
        "spare",
        Purpose.FAILOVER,
        REPLY,
        0.25,
        1.5,
        cost_usd=0.01,
        checks=(
            CheckReport("a", "1", Accept(), duration_s=0.001, overruled=True),
            CheckReport("b", "2", Unjudged("timeout"), cost_usd=0.002, calls=2),
            CheckReport("c", "3", Reject("low_score"), score=0.0),
        ),
    ),
)


def test_the_whole_story() -> None:
    outcome = replace(
        make.outcome(7, attempts=ATTEMPTS, accepted=False, top_tier_cost_usd=0.5), reasons=("sonnet:c:low_score",)
    )
    message = response_of(outcome, REPLY, recorded=True)
    assert message.request_id == make.request_id(7)
    assert (message.tier, message.accepted, list(message.reasons)) == ("sonnet", False, ["sonnet:c:low_score"])
    assert (message.stop_reason, message.recorded, message.replayed) == ("tool_use", True, False)
    assert (message.cost_usd, message.top_tier_cost_usd) == (outcome.cost_usd, 0.5)
    assert message.content[0].text.text == "hé"
    use = message.content[1].tool_use
    assert (use.id, use.name, json.loads(use.input_json)) == ("u1", "look", {"q": "é", "n": [1]})


def test_attempts_with_their_verdicts() -> None:
    failed, replied = response_of(make.outcome(attempts=ATTEMPTS), REPLY, recorded=False).attempts
    assert (failed.tier, failed.purpose, failed.result, failed.cost_usd) == ("haiku", "first", "overloaded", 0.0)
    assert (failed.duration.ToMilliseconds(), list(failed.verdicts), failed.HasField("usage")) == (250, [], False)
    assert (replied.endpoint, replied.purpose, replied.result) == ("spare", "failover", "reply")
    assert [(v.check, v.version, v.verdict, v.reason) for v in replied.verdicts] == [
        ("a", "1", "accept", ""),
        ("b", "2", "unjudged", "timeout"),
        ("c", "3", "reject", "low_score"),
    ]
    assert [v.HasField("score") for v in replied.verdicts] == [False, False, True], "a score of 0 is a score"
    assert replied.verdicts[0].duration.ToMicroseconds() == 1_000
    assert replied.verdicts[1].cost_usd == 0.002
    assert [(v.calls, v.overruled) for v in replied.verdicts] == [(0, True), (2, False), (0, False)]
    usage = replied.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens) == (1, 2, 5)
    assert (usage.cache_write_5m_tokens, usage.cache_write_1h_tokens) == (3, 4)


@pytest.mark.parametrize(("mode", "wire"), [(Mode.DIRECT, router_pb2.MODE_DIRECT), (Mode.CHAIN, router_pb2.MODE_CHAIN)])
def test_the_decision(mode: Mode, wire: int) -> None:
    decision = Decision(
        mode,
        ("sonnet", "opus"),
        "because",
        probabilities={"haiku": 0.5},
        propensities={"haiku": 0.1, "sonnet": 0.9},
        expected_cost_usd={"sonnet": 0.02},
        model_version="v1",
        explored=True,
    )
    message = decision_of(decision)
    assert (message.mode, list(message.tiers), message.reason) == (wire, ["sonnet", "opus"], "because")
    assert (dict(message.probabilities), message.propensity) == ({"haiku": 0.5}, 0.9)
    assert (message.model_version, message.explored, dict(message.expected_cost_usd)) == ("v1", True, {"sonnet": 0.02})


@given(make.outcomes(), make.replies)
def test_any_outcome_can_be_sent(outcome: object, reply: Reply) -> None:
    message = response_of(outcome, reply, recorded=True)  # type: ignore[arg-type]
    assert router_pb2.CompleteResponse.FromString(message.SerializeToString()) == message
    assert len(message.attempts) == len(outcome.attempts)  # type: ignore[attr-defined]
