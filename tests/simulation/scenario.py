"""One seed's history: callers come, the operator and the weather do their worst, then all is quiet and counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from functools import cache
from typing import Any

from router.config import Config
from router.scoring import RouterModel
from tests.simulation import laws
from tests.simulation.callers import Aborted, Context, Plan, plan, reason_of, report_of
from tests.simulation.disk import CONDITIONS, Disk
from tests.simulation.guard_laws import GuardLaws
from tests.simulation.journal import History
from tests.simulation.process import Process
from tests.simulation.provider import SKIES, SimProvider
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop, run_virtually
from tests.support.small_models import small_model

CALLERS = 60
_HOUR_S = 3_600.0
_STEPS_S = (_HOUR_S, -_HOUR_S, 24 * _HOUR_S, -24 * _HOUR_S, 1.0, -1.0)
_GRACE_S = 2.0
_QUIET_S = 180.0  # longer than the longest Retry-After and any open breaker


@cache
def _config(linger_s: float) -> Config:
    good = {"check": "regex", "pattern": "^good"}
    tier = {"min_time_s": 0.2, "timeout_s": 8.0}
    return Config.model_validate(
        {
            "server": {"max_in_flight": 24},
            "tiers": [
                {"name": "haiku", "model": "claude-haiku-5-5", "endpoints": ["one", "two"], **tier},
                {"name": "sonnet", "model": "claude-sonnet-5-5", "endpoints": ["two", "one"], **tier},
                {"name": "opus", "model": "claude-opus-5-5", "endpoints": ["one"], **tier},
            ],
            "endpoints": {"one": {}, "two": {}},
            "store": {"max_wait_s": 0.5, "linger_s": linger_s},
            "resilience": {
                "breaker_failures": 4,
                "breaker_window": 8,
                "breaker_first_open_s": 1.5,
                "breaker_open_s": 5.0,
                "budget_tokens": 20.0,
                "ailing_failures": 3,
                "ailing_window": 8,
            },
            "workloads": {
                "plain": {"checks": [good], "explore": 0.1, "deadline_s": 20.0},
                "guarded": {"checks": [good], "failover_down": True, "deadline_s": 10.0, "unjudged": "escalate"},
                "bounded": {"highest_tier": "sonnet", "cost_cap_usd": 0.02, "deadline_s": 6.0},
            },
        }
    )


@cache
def _model(seed: int) -> RouterModel:
    return small_model(f"small-{seed}", seed)


def play(seed: int) -> History:
    """The history of one seed. BrokenLaw where the service did what it must not."""
    found: list[History] = []

    async def work(loop: VirtualLoop) -> None:
        scenario = Scenario(seed, loop)
        found.append(scenario.history)
        await scenario.run()

    run_virtually(work)
    return found[0]


class Scenario:
    """Everything around the process. Every source of chance has a generator of its own."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.history = History(seed, loop.time)
        self._loop = loop
        self._clock = VirtualClock(loop)
        self._rngs = {name: random.Random(f"{seed} {name}") for name in ("callers", "operator", "provider", "process")}
        self._config = _config(self._rngs["operator"].choice((0.0, 0.01)))
        self._disk = Disk()
        self._guards = GuardLaws(self._config.resilience.guards(), self._clock, self.history)
        self._providers = {
            name: SimProvider(name, self._rngs["provider"], self.history, self._guards)
            for name in self._config.endpoints
        }
        self._acknowledged: list[str] = []
        self._over = False
        self.process = self._start()

    async def run(self) -> None:
        """Unrest, then quiet, then the reckoning."""
        operator = asyncio.ensure_future(self._operate())
        rng = self._rngs["callers"]
        spacing_s = rng.choice((0.02, 0.2, 0.8))
        clients = []
        for number in range(CALLERS):
            clients.append(asyncio.ensure_future(self._call(plan(number, rng))))
            await asyncio.sleep(rng.expovariate(1 / spacing_s))
        await asyncio.gather(*clients)
        self._over = True
        await operator
        await self._quiet()

    # --- the process -------------------------------------------------------------------------------

    def _start(self) -> Process:
        self._guards.forget()
        self.history.add("start")
        process = Process(
            self._config,
            providers=self._providers,
            disk=self._disk,
            clock=self._clock,
            rng=self._rngs["process"],
            history=self.history,
        )
        process.recovering = self._inside(process.recorder.recover(), process)
        return process

    def _inside(self, work: Coroutine[Any, Any, Any], process: Process | None = None) -> asyncio.Task[Any]:
        """A task that dies with the process, the one of now unless another is given."""
        token = VirtualLoop.owner.set(process or self.process)
        try:
            return asyncio.ensure_future(work)
        finally:
            VirtualLoop.owner.reset(token)

    async def _restart(self, *, kill: bool) -> None:
        process = self.process
        self.history.add("kill" if kill else "stop")
        process.listening = False
        if kill:
            process.alive = False
        else:
            # The network's part: calls under way may finish within the grace, then they are cancelled.
            calls = [task for task in self._loop.tasks_of(process) if task.get_name().startswith("call ")]
            late = (await asyncio.wait(calls, timeout=_GRACE_S))[1] if calls else set()
            await _end(sorted(late, key=lambda task: task.get_name()))
            given_up = await self._inside(process.stop())
            self._reckon(process, given_up)
            left = {task.get_name() for task in self._loop.tasks_of(process)} - {"thread"}
            self.history.law("no task is left over", holds=not left, detail=left)
        while left := self._loop.tasks_of(process):
            await _end(left)
        self.process = self._start()

    def _reckon(self, process: Process, given_up: int) -> None:
        """A process that ended by itself leaves nothing open, and every outcome in exactly one place."""
        counters = process.recorder.counters
        self.history.add("reckoned", counters, given_up)
        law = self.history.law
        law("nothing is in flight after the end", holds=process.admission.in_flight == 0)
        law("the queue is empty after the end", holds=counters.queue_depth == 0, detail=counters)
        outcomes = process.telemetry.outcomes
        told = counters.recorded + counters.late + counters.dropped
        law("every outcome is counted once", holds=told >= len(outcomes), detail=(told, len(outcomes)))
        for outcome in outcomes:
            laws.check_outcome(self.history, outcome)
        laws.check_calls(self.history, outcomes, self._providers)
        laws.check_budgets(self.history, outcomes, self._guards.replies, self._config)

    # --- callers -----------------------------------------------------------------------------------

    async def _call(self, caller: Plan) -> None:
        deadline_s = None if caller.timeout_s is None else self._loop.time() + caller.timeout_s
        context = Context(self._loop, deadline_s)
        process = self.process
        call: Any = context
        if not process.listening:
            self.history.add("turned away", caller.number)
            return
        handler = self._inside(process.router.Complete(caller.request, call))
        handler.set_name(f"call {caller.number:04d}")
        waits_s = min(each for each in (caller.timeout_s, caller.gone_s, 1e5) if each is not None)
        done, _ = await asyncio.wait([handler], timeout=waits_s)
        if not done:
            handler.cancel()
            await asyncio.wait([handler])
        if not process.alive:
            self.history.add("lost", caller.number)
            return
        self._ended(caller, handler, context)
        if not handler.cancelled() and handler.exception() is None and caller.judges is not None:
            await self._judge(handler.result().request_id, good=caller.judges)

    def _ended(self, caller: Plan, handler: asyncio.Task[Any], context: Context) -> None:
        """What the caller sees."""
        now_s = self._loop.time()
        if handler.cancelled():
            self.history.add("gone", caller.number)
        elif isinstance(error := handler.exception(), Aborted):
            status = reason_of(context.status)
            self.history.add("refused", caller.number, status)
            laws.check_status(self.history, caller, status)
        elif error is not None:
            raise error
        else:
            reply = handler.result()
            calls = sum(provider.calls[str(caller.number)] for provider in self._providers.values())
            self.history.add(
                "reply", caller.number, reply.request_id, reply.tier, reply.accepted, f"{reply.cost_usd:.9f}"
            )
            in_time = context.deadline_s is None or now_s <= context.deadline_s
            self.history.law("no reply after the deadline", holds=in_time, detail=caller.number)
            laws.check_reply(self.history, caller, reply, self._disk, self._config, calls)
            if reply.recorded:
                self._acknowledged.append(reply.request_id)

    async def _judge(self, request_id: str, *, good: bool) -> None:
        context: Any = Context(self._loop, None)
        process = self.process
        if not process.listening:
            return
        report = self._inside(process.feedback.ReportOutcome(report_of(request_id, good=good), context))
        report.set_name(f"call about {request_id}")
        await asyncio.wait([report])
        if process.alive:
            refused = report.cancelled() or report.exception() is not None
            self.history.add("judged", request_id, "refused" if refused else "taken")

    # --- the operator, the weather and the disk ------------------------------------------------------

    async def _operate(self) -> None:
        rng = self._rngs["operator"]
        while not self._over:
            await asyncio.sleep(rng.expovariate(1 / 2.5))
            action = rng.choices(
                ("weather", "disk", "clock", "kill", "stop", "reload", "model"), (8, 3, 2, 1, 1, 1, 2)
            )[0]
            match action:
                case "weather":
                    provider = self._providers[rng.choice(sorted(self._providers))]
                    tiers = rng.choice((self._config.ladder, (rng.choice(self._config.ladder),)))
                    sky = rng.choice(SKIES)
                    provider.weather.sky.update(dict.fromkeys(tiers, sky))
                    provider.weather.share = rng.choice((0.05, 0.2, 0.5))
                    self.history.add("weather", provider.name, sky, *tiers)
                case "disk":
                    self._disk.condition = rng.choice(CONDITIONS)
                    self._disk.journal_full = rng.random() < 0.25
                    self.history.add("disk", self._disk.condition, "journal full" * self._disk.journal_full)
                case "clock":
                    self._clock.step_s += rng.choice(_STEPS_S)
                    self.history.add("clock", self._clock.step_s)
                case "kill" | "stop":
                    await self._restart(kill=action == "kill")
                case "reload":
                    self.process.generation = self.process.generate(self._config)
                    self.history.add("reload")
                case "model":
                    self.process.model = rng.choice((None, _model(1), _model(2)))
                    self.history.add("model", self.process.model.version if self.process.model else "none")

    async def _quiet(self) -> None:
        """Good weather for a while: then everything acknowledged is on disk, and nothing is left over."""
        self._disk.condition, self._disk.journal_full = "well", False
        for provider in self._providers.values():
            provider.weather.sky.clear()
        await asyncio.sleep(_QUIET_S)
        law = self.history.law
        last = plan(10_000, random.Random(1))
        last.request.prompt.max_tokens = 200
        last.request.ClearField("bounds")
        await self._call(Plan(last.number, last.request, None, None, None))
        law("serves again when the trouble is over", holds=self.history.lines[-1].split()[1] == "reply")
        await self._restart(kill=False)
        lost = [each for each in self._acknowledged if each not in self._disk.outcomes]
        law("what was acknowledged is there", holds=not lost, detail=lost)
        law("the journal is drained", holds=not self._disk.journal, detail=len(self._disk.journal))
        for provider in self._providers.values():
            law("no call is left open", holds=provider.under_way == 0, detail=provider.name)


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel these and wait until they are gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
