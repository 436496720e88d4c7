"""What every check keeps, whatever it looks for. A check added to router/parts.py is tested by being there."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fallback.cascade import Ask, Keep
from fallback.checks import Check, Judgement
from fallback.checks.agreement import AgreementCheck
from fallback.checks.grounded import GroundedCheck
from fallback.checks.scorer import Assessment, ScorerCheck
from fallback.checks.stop_reason import StopReasonCheck
from fallback.errors import Failure
from fallback.providers.render import render
from fallback.sameness import Notion
from fallback.types import (
    Accept,
    DocumentBlock,
    ImageBlock,
    Message,
    Reject,
    Remedy,
    Reply,
    Request,
    StopReason,
    TextBlock,
    Tool,
    ToolChoice,
    ToolUseBlock,
    Unjudged,
    Usage,
)
from router.config import ConfigError, load_config
from router.parts import ALWAYS, CHECKS
from tests.support.fakes import case, reply, request
from tests.support.fakes import tier as tier_of

# One working configuration for every check that a workload may name.
SETTINGS: dict[str, dict[str, Any]] = {
    "agreement": {"samples": 3, "answer": "json_field", "field": "a.b"},
    "fields": {"required": ["id", "name"]},
    "grounded": {"begin": "<text>", "end": "</text>", "ignore": ["names"]},
    "json_schema": {"schema": {"type": "object", "required": ["id"]}},
    "judge": {"tier": "sonnet", "rubric": "A right answer."},
    "labels": {"labels": ["billing", "technical issue"]},
    "regex": {"pattern": "^answer: \\d+$"},
    "verifier": {"entry_point": "tests.support.verifiers:has_a_digit"},
}


def _made(name: str) -> Check:
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in SETTINGS[name].items()}
    return CHECKS[name](**values)


NOTIONS: tuple[Notion, ...] = ("auto", "exact", "number", "label", "similarity")
EVERY: list[Check] = [
    StopReasonCheck(),
    StopReasonCheck("hand_back", "escalate"),
    *ALWAYS,
    *map(_made, SETTINGS),
    *(AgreementCheck(answer=notion) for notion in NOTIONS),
    GroundedCheck(),
    ScorerCheck("v1", lambda _: Assessment(0.5, Keep("haiku", 0.0))),
    ScorerCheck("v1", lambda _: Assessment(0.5, Keep("opus", 0.0))),
    ScorerCheck("v1", lambda _: Assessment(0.5, Ask("sonnet", 0.0))),
    ScorerCheck("v1", lambda _: None),
]
IDS = [f"{check.name}-{n}" for n, check in enumerate(EVERY)]
each_check = pytest.mark.parametrize("check", EVERY, ids=IDS)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}, "b": {"$ref": "#"}}}


def test_every_check_that_can_be_named_is_under_contract() -> None:
    assert set(SETTINGS) == set(CHECKS)
    assert all(CHECKS[name].name == name for name in CHECKS)  # type: ignore[attr-defined]


@each_check
def test_it_says_who_it_is(check: Check) -> None:
    assert re.fullmatch(r"[a-z_]{1,32}", check.name)
    assert check.version
    assert isinstance(check.paid, bool)
    assert type(check).__doc__


@each_check
def test_it_cannot_be_changed(check: Check) -> None:
    assert dataclasses.is_dataclass(check)
    field = next(iter(dataclasses.fields(check)), None)
    if field is not None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(check, field.name, None)


def _kept(judgement: Judgement) -> None:
    """What every judgement keeps."""
    assert isinstance(judgement.verdict, Accept | Reject | Unjudged)
    assert judgement.cost_usd >= 0
    assert judgement.score is None or 0 <= judgement.score <= 1
    code = ""
    match judgement.verdict:
        case Reject(reason=reason, remedy=remedy, otherwise=otherwise):
            code = reason
            assert otherwise is not Remedy.RAISE_LIMIT
            assert isinstance(remedy, Remedy)
        case Unjudged(cause):
            code = cause
        case Accept():
            return
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,63}", code), "a short code without any of the reply's text"


def _deep_list(n: int) -> Any:
    value: Any = 1
    for _ in range(n):
        value = [value]
    return value


ODD_TEXTS = [
    "",
    " ",
    "\x00",
    "\ud800",
    '"\\ud800"',
    '{"\\ud800": 1}',
    '{"a": "\\udfff"}',
    "{",
    "null",
    "NaN",
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": ' + "1" * 5_000 + "}",
    "[" * 100_000,
    '{"b":' * 5_000 + "1" + "}" * 5_000,
    json.dumps(_deep_list(500)),
    "```json\n{}\n```",
    "```",
    "``````",
    "a" * 200_000,
    json.dumps({"a": "a" * 50_000 + "!"}),
    "word " * 50_000,
    "\u202e\u2028",
    "語" * 1_000,
]
ODD_INPUTS: list[dict[str, Any]] = [
    {},
    {"\ud800": 1},
    {"a": "\ud800"},
    {"a": math.nan},
    {"a": math.inf},
    {"a": 10**400},
    {"a": None},
    {"b": {"b": {"b": {}}}},
    {"a": _deep_list(900)},
]
REQUESTS = [
    request(),
    request(output_schema=SCHEMA),
    request(tools=(Tool("t", "", SCHEMA),)),
    request(tools=(Tool("t", "", SCHEMA), Tool("u", "", {})), tool_choice=ToolChoice("any")),
    request(tools=(Tool("t", "", SCHEMA),), tool_choice=ToolChoice("tool", "t"), output_schema=SCHEMA),
    request(tools=(), tool_choice=ToolChoice("none")),
    request("<text>Anna paid 12 crowns.</text> What did Anna pay?"),
    request(messages=(Message("user", (DocumentBlock("text/plain", b"Anna paid 12 crowns."), ImageBlock(url="u"))),)),
]


def _leaves(kind: type[Failure]) -> list[type[Failure]]:
    return [leaf for child in kind.__subclasses__() for leaf in _leaves(child)] or [kind]


each_paid = pytest.mark.parametrize("check", [each for each in EVERY if each.paid], ids=lambda check: check.name)


@each_paid
@pytest.mark.parametrize("kind", _leaves(Failure), ids=lambda kind: kind.__name__)
async def test_a_failure_of_what_it_asks_is_unjudged_and_never_a_rejection(check: Check, kind: type[Failure]) -> None:
    asked: set[str] = set()

    async def ask(tier: str, request: Request, *, timeout_s: float) -> Reply:
        assert timeout_s > 0
        assert request.max_tokens > 0
        asked.add(tier)
        raise kind("some_error")

    judgement = await check.judge(case(reply("42"), tier="haiku", ask=ask))
    _kept(judgement)
    assert isinstance(judgement.verdict, Unjudged)
    assert judgement.score is None
    assert asked == {"sonnet" if check.name == "judge" else "haiku"}


@dataclasses.dataclass
class Says:
    """Any tier's answer, the same to all."""

    answer: Reply

    async def __call__(self, tier: str, request: Request, *, timeout_s: float) -> Reply:
        json.dumps(render(request, tier_of(tier), "m", request.max_tokens)).encode()
        return self.answer


@each_paid
async def test_whatever_it_is_told_it_has_a_verdict(check: Check) -> None:
    calls = reply(blocks=(ToolUseBlock("u", "t", {"a": _deep_list(900)}),))
    for text in ODD_TEXTS:
        for stop in (StopReason.END_TURN, StopReason.MAX_TOKENS, StopReason.REFUSAL):
            for judged in (reply("42"), reply(text), calls):
                for asked in (REQUESTS[0], REQUESTS[-1]):
                    _kept(await check.judge(case(judged, asked, ask=Says(reply(text, stop=stop)))))


@each_check
@pytest.mark.parametrize("stop", list(StopReason))
async def test_it_judges_every_stop_reason(check: Check, stop: StopReason) -> None:
    for asked in REQUESTS:
        _kept(await check.judge(case(reply("ok", stop=stop), asked)))
        _kept(await check.judge(case(Reply((), stop, Usage(), ""), asked)))


@each_check
async def test_it_judges_the_oddest_replies(check: Check) -> None:
    for asked in REQUESTS:
        for text in ODD_TEXTS:
            _kept(await check.judge(case(reply(text), asked)))
        for arguments in ODD_INPUTS:
            use = ToolUseBlock("u1", "t", arguments)
            _kept(await check.judge(case(reply(blocks=(use,)), asked)))
            _kept(await check.judge(case(reply(blocks=(TextBlock("x"), use, ToolUseBlock("u2", "?", {}))), asked)))


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda c: st.lists(c, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "id", "name"]), c, max_size=3),
    max_leaves=6,
)
_blocks = st.one_of(
    st.builds(TextBlock, st.text(st.characters(), max_size=30) | _json.map(json.dumps)),
    st.builds(ToolUseBlock, st.just("u"), st.sampled_from(["t", "u", ""]), st.dictionaries(st.text(max_size=3), _json)),
)
_replies = st.builds(
    Reply,
    st.lists(_blocks, max_size=3).map(tuple),
    st.sampled_from(StopReason),
    st.just(Usage()),
    st.just("m"),
)


@settings(max_examples=150)
@given(_replies, st.sampled_from(REQUESTS), st.sampled_from([-1.0, 0.0, 5.0]))
def test_none_ever_raises_and_all_are_the_same_twice(answer: Reply, asked: Any, time_left_s: float) -> None:
    async def judge() -> None:
        for check in EVERY:
            shown = case(answer, asked, time_left_s=time_left_s)
            first = await check.judge(shown)
            _kept(first)
            if check.name != "verifier":  # with no time left it is a race that it may win or lose
                assert await check.judge(shown) == first

    asyncio.run(judge())


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_it_can_be_configured_and_a_setting_it_does_not_know_is_refused(name: str, tmp_path: Any) -> None:
    def load(settings: dict[str, Any]) -> Any:
        rows = ", ".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in settings.items())
        path = tmp_path / "c.toml"
        path.write_text(f"[workloads.w]\nchecks = [{{ {rows} }}]\n", encoding="utf-8")
        return load_config(path).workload("w").build_checks()

    assert load({"check": name} | SETTINGS[name])[-1] == _made(name)
    with pytest.raises(ConfigError, match=r"\[0\].surprise"):
        load({"check": name, "surprise": 1} | SETTINGS[name])


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)
