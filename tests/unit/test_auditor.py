"""Who is audited and when, with scripted tiers, a clock that tests move and lots that they know."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from fallback.errors import Overloaded
from fallback.guards import Guards, GuardSettings
from fallback.providers import Endpoint
from fallback.types import Reject, Reply, ToolUseBlock
from router.audit.auditor import PATIENCE_S, QUEUED, SPEND_KNOWN_S, WORKERS, Auditor
from router.audit.comparison import same_answer, sent_on
from router.build import make_generation
from router.completer import Ask
from router.completion import Completed
from router.config import Config
from router.drift import Drift
from router.experience import Experience
from router.generation import Generation
from router.outcome import Audit, AuditVerdict, Outcome, RequestIds
from router.sequential import DriftSettings
from router.store import StoreError, Unstorable
from router.telemetry import AuditRun
from router.translate import Bounds
from tests.support import fakes
from tests.support import outcomes as make
from tests.support.emulator import until
from tests.support.fakes import FakeClock, ScriptedProvider

RIGHT, WRONG = fakes.reply("42"), fakes.reply("41")


class Told:
    """Meets `Telling` and `Errands`; the store fails as `problems` says, then works."""

    def __init__(self) -> None:
        self.audits: list[Audit] = []
        self.runs: list[AuditRun | None] = []
        self.skipped: list[str] = []
        self.written: list[Audit] = []
        self.problems: list[StoreError] = []
        self.poison = ""
        self.spent_usd: dict[str, float] = {}
        self.asked_spending = 0
        self.spending_unknown = False

    def audit(self, audit: Audit, run: AuditRun | None) -> None:
        self.audits.append(audit)
        self.runs.append(run)

    def audit_skipped(self, workload: str, reason: str) -> None:
        self.skipped.append(reason)

    def audit_spend_usd(self, *, since_s: float) -> dict[str, float]:
        self.asked_spending += 1
        if self.spending_unknown:
            raise StoreError("busy")
        return self.spent_usd

    async def run(self, errand: Callable[[Any], Any]) -> Any:
        return errand(self)

    def write_audits(self, audits: Iterable[Audit]) -> None:
        if self.problems:
            raise self.problems.pop(0)
        if any(audit.request_id == self.poison for audit in audits):
            raise Unstorable("integrity")
        self.written += audits


class Bench:
    """An auditor over scripted tiers: `script` is what the auditing tier gives."""

    def __init__(self, script: Any = (RIGHT,), *, lot: Callable[[], float] = lambda: 0.0, **policy: Any) -> None:
        self.clock = FakeClock()
        self.told = Told()
        self.is_busy: Callable[[], bool] = lambda: False
        self.provider = ScriptedProvider(self.clock, script)
        self.config = Config.model_validate(
            {"workloads": {"w": {"audit_share": 0.5, "audit_usd_per_day": 1e6, **policy}}}
        )
        endpoints = {"claude": Endpoint("claude", self.provider, "anthropic")}
        self.generation: Generation = make_generation(
            self.config,
            endpoints=endpoints,
            guards=Guards(GuardSettings(), self.clock, lambda: 0.5),
            experience=Experience(self.config.ladder, max_workloads=10),
            drift=Drift(DriftSettings(), lambda _: None),
            model=lambda: None,
            recorder=None,  # type: ignore[arg-type]
            ids=RequestIds(),
            clock=self.clock,
            uniform=lambda: 0.5,
        )
        self.auditor = Auditor(errands=self.told, telling=self.told, busy=self._look, clock=self.clock, lot=lot)

    def _look(self) -> bool:
        return self.is_busy()

    def consider(self, n: int = 1, reply: Reply = RIGHT, *, outcome: Outcome | None = None, recorded: bool = True):
        policy, checks = self.generation.policy("w")
        ask = Ask(fakes.request("how much?"), policy, checks, Bounds(self.config.ladder))
        ended = outcome or make.outcome(n, workload="w", attempts=[make.attempt(result=reply)])
        self.auditor.consider(self.generation, ask, Completed(ended, reply, recorded), "0" * 31 + "1")

    @property
    def audited(self) -> list[int]:
        return [int(audit.request_id, 16) for audit in self.told.written]

    async def done(self) -> None:
        await until(lambda: not self.auditor._workers and self.auditor.waiting == 0)
        await self.auditor.close(1.0)


async def test_the_lot_alone_says_who_is_audited_and_its_chance_is_recorded() -> None:
    chosen: list[list[int]] = []
    for reply in (RIGHT, WRONG):
        bench = Bench(lot=random.Random(7).random)
        for n in range(1, 41):
            bench.consider(n, reply)
        await bench.done()
        chosen.append(sorted(bench.audited))
        assert {audit.propensity for audit in bench.told.written} == {0.5}
    rng = random.Random(7)
    assert chosen[0] == chosen[1] == [n for n in range(1, 41) if rng.random() < 0.5]


async def test_the_comparison_says_what_was_found() -> None:
    bench = Bench([RIGHT, WRONG, Overloaded()])
    for n in (1, 2, 3):
        bench.consider(n)
        await until(lambda n=n: len(bench.told.written) == n)
    await bench.done()
    assert [(a.verdict.value, a.method.value, a.attempts) for a in bench.told.written] == [
        ("good", "answers", 1),
        ("unknown", "answers", 1),
        ("unknown", "failure", 1),
    ]
    assert [audit.cost_usd > 0 for audit in bench.told.written] == [True, True, False]
    assert {run.trace_id for run in bench.told.runs if run} == {"0" * 31 + "1"}
    assert [call.tier for call in bench.provider.calls] == ["sonnet"] * 3


async def test_callers_come_first_and_an_audit_does_not_wait_for_ever() -> None:
    bench = Bench()
    looks: list[int] = []
    bench.is_busy = lambda: looks.append(len(bench.provider.calls)) or len(looks) < 10  # type: ignore[func-returns-value]
    bench.consider(1)
    await bench.done()
    assert looks == [0] * 10  # ten looks, and nothing was sent before the last
    assert bench.audited == [1]
    bench.is_busy = lambda: True
    late = Bench()
    late.is_busy = lambda: True
    late.consider(1)
    await late.done()
    assert (late.told.skipped, late.provider.calls) == (["busy"], [])
    assert sum(late.clock.slept) == pytest.approx(PATIENCE_S, abs=2.0)


async def test_no_more_at_once_and_no_more_in_the_queue_than_there_is_room_for() -> None:
    bench = Bench()
    bench.provider.hold = asyncio.Event()
    for n in range(1, WORKERS + 1):
        bench.consider(n)
    await until(lambda: len(bench.provider.calls) == WORKERS)
    for n in range(100, 100 + QUEUED + 3):
        bench.consider(n)
    assert bench.told.skipped == ["queue_full"] * 3
    assert len(bench.provider.calls) == WORKERS
    bench.provider.hold.set()
    await bench.done()
    assert len(bench.audited) == WORKERS + QUEUED


async def test_a_stop_gives_up_what_waits_and_keeps_the_account_of_what_runs() -> None:
    bench = Bench()
    bench.provider.hold = asyncio.Event()
    for n in range(1, WORKERS + 3):
        bench.consider(n)
    await until(lambda: len(bench.provider.calls) == WORKERS)
    await bench.auditor.close(1.0)
    assert bench.told.skipped == ["stopping"] * 2
    assert [(a.verdict, a.attempts) for a in bench.told.written] == [(AuditVerdict.UNKNOWN, 1)] * WORKERS
    bench.consider(99)
    await bench.done()
    assert len(bench.told.audits) == WORKERS


async def test_a_reload_waits_for_the_audits_of_the_configuration_before_it() -> None:
    bench = Bench()
    bench.provider.hold = asyncio.Event()
    bench.consider(1)
    idle = asyncio.ensure_future(bench.generation.idle())
    await until(lambda: len(bench.provider.calls) == 1)
    assert not idle.done()
    bench.provider.hold.set()
    await bench.done()
    await idle


@pytest.mark.parametrize(
    "left_alone",
    [
        {"recorded": False},
        {"outcome": make.outcome(1, workload="w", attempts=[make.attempt("opus")])},
    ],
)
async def test_what_cannot_be_audited_is_counted(left_alone: dict[str, Any]) -> None:
    bench = Bench()
    bench.consider(**left_alone)
    await bench.done()
    assert len(bench.told.skipped) == 1
    assert bench.provider.calls == []


async def test_a_day_without_money_has_no_audits() -> None:
    bench = Bench(audit_usd_per_day=1e-6)
    bench.consider(1)
    await bench.done()
    assert (bench.told.skipped, bench.provider.calls) == (["day_cap"], [])


async def test_what_other_replicas_spent_today_is_spent() -> None:
    bench = Bench(audit_usd_per_day=1.0)
    bench.told.spent_usd = {"w": 1.0}
    bench.consider(1)
    await bench.done()
    assert (bench.told.skipped, bench.provider.calls) == (["day_cap"], [])


async def test_all_replicas_spending_is_read_again_when_it_is_old_and_not_for_every_audit() -> None:
    bench = Bench(audit_usd_per_day=1.0)
    for n in (1, 2):
        bench.consider(n)
        await until(lambda n=n: len(bench.told.written) == n)
    assert bench.told.asked_spending == 1
    bench.told.spent_usd = {"w": 1.0}
    bench.clock.advance(SPEND_KNOWN_S)
    bench.consider(3)
    await bench.done()
    assert (bench.told.asked_spending, bench.told.skipped) == (2, ["day_cap"])


async def test_while_nobody_can_say_what_was_spent_nothing_is() -> None:
    bench = Bench()
    bench.told.spending_unknown = True
    bench.consider(1)
    await until(lambda: bool(bench.told.skipped))
    assert (bench.told.skipped, bench.provider.calls) == (["spend_unknown"], [])
    bench.told.spending_unknown = False
    bench.consider(2)
    await bench.done()
    assert bench.audited == [2]


async def test_what_was_found_is_written_when_the_store_is_back_and_one_bad_row_costs_itself() -> None:
    bench = Bench()
    bench.told.problems = [StoreError("busy"), StoreError("busy")]
    bench.told.poison = make.request_id(2)
    for n in (1, 2, 3):
        bench.consider(n)
    await until(lambda: len(bench.told.audits) == 3)
    await until(lambda: len(bench.told.written) == 2)
    await bench.done()
    assert (sorted(bench.audited), bench.told.skipped) == ([1, 3], ["lost"])


# --- comparing -------------------------------------------------------------------------------


def calls(**arguments: Any) -> Reply:
    return fakes.reply(blocks=(ToolUseBlock("id", "book", arguments),))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (fakes.reply("Step by step.\nAnswer: 42"), fakes.reply("Answer: 42.0"), True),
        (fakes.reply("Answer: 42"), fakes.reply("Answer: 41"), False),
        (fakes.reply("Refund"), fakes.reply("refund"), True),
        (fakes.reply('{"a": 1, "b": [2]}'), fakes.reply('{"b":[2],"a":1}'), True),
        (fakes.reply('{"a": 2, "b": 2}'), fakes.reply('{"a": 1, "b": 2}'), False),
        (fakes.reply("{broken"), fakes.reply("{broken too"), False),
        (calls(day=1), calls(day=1), True),
        (calls(day=1), calls(day=2), False),
        (calls(day=1), fakes.reply("day 1"), False),
    ],
)
def test_what_the_same_answer_is(one: Reply, other: Reply, *, same: bool) -> None:
    assert same_answer(one, other) is same_answer(other, one) is same


def test_only_a_judgement_of_content_can_have_sent_on_in_error() -> None:
    def after(check: str) -> Outcome:
        first, second = make.escalated_attempts()
        rejected = make.check(Reject("no"), name=check)
        return make.outcome(1, attempts=[make.replace(first, checks=(rejected,)), second])

    assert [attempt.tier for attempt in sent_on(after("scorer"))] == ["haiku"]
    assert [attempt.tier for attempt in sent_on(after("verifier"))] == ["haiku"]
    assert list(sent_on(after("json_schema"))) == []
    assert list(sent_on(make.outcome(1, attempts=make.escalated_attempts(), accepted=False))) == []
