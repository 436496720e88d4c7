"""The running service: composition root, reload, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path

import grpc

from fallback.access import Alarm
from fallback.clock import SystemClock
from fallback.errors import RateLimited
from fallback.guards import Guards
from fallback.providers import Endpoint
from router import chores, counters
from router.admission import Admission
from router.audit.auditor import Auditor
from router.build import make_endpoints, make_generation, make_recorder, telemetry_settings
from router.config import Config, ConfigError, load_config
from router.config_sections import EndpointConfig
from router.experience import Experience
from router.feedback import FeedbackServicer
from router.generation import Generation
from router.health import Health
from router.listener import make_listener, turn_away
from router.logs import loop_exception
from router.model_source import ModelSource
from router.outcome import RequestIds
from router.pacing import Pacing
from router.replays import Replays
from router.servicer import RouterServicer
from router.store import Store, StoreError
from router.store.sql import SqlStore
from router.telemetry import Telemetry
from router.watch import Watch

_log = logging.getLogger(__name__)
_AUDITOR_CLOSE_S = 5.0
_WATCH_CLOSE_S = 2.0
_RECORDER_CLOSE_S = 5.0
_TELEMETRY_CLOSE_S = 2.0


class Service:
    """One process of tierwise. `start`, then `run` until a signal or `stop`."""

    def __init__(self, config: Config, *, config_path: Path | None = None, emulator_url: str = "") -> None:
        self._config_path = config_path
        self._emulator_url = emulator_url
        self._clock = SystemClock()
        self._uniform = random.Random().random  # noqa: S311 - jitter and exploration, not secrets
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.store: Store = SqlStore(config.store.url, patient=True)
        self.recorder = make_recorder(config.store, self.store, self._clock)
        self.telemetry = Telemetry.start(telemetry_settings(config))
        self.models = ModelSource(Path(config.model.directory), poll_s=config.model.poll_s, clock=self._clock)
        self.guards = Guards(config.resilience.guards(), self._clock, self._uniform, _log_alarm)
        self.experience = Experience(config.ladder, max_workloads=config.server.max_workloads)
        self._ids = RequestIds()
        self.pacing = Pacing(self._clock)
        self.admission = Admission(config.admission.settings(config.server.max_in_flight), self.pacing)
        self.watch = Watch(
            config.drift.settings(),
            max_workloads=config.server.max_workloads,
            telemetry=self.telemetry,
            errands=self.recorder,
            clock=self._clock,
        )
        self.auditor = Auditor(
            errands=self.recorder,
            telling=self.watch,
            busy=self._busy,
            clock=self._clock,
            lot=random.Random().random,  # noqa: S311 - who is audited, not a secret; its own, so that it hangs on nothing
        )
        self.health = Health(
            model=lambda: self.models.model is not None,
            store=lambda: self.recorder.healthy,
            provider=self._some_tier_usable,
            drift=lambda: self.watch.calm,
            clock=self._clock,
        )
        self.generation = self._generation(config, {})
        self._server = self._make_server(config)
        self.port = 0

    # --- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. The model is loaded first, so that the first request has it."""
        await self.models.refresh()
        await chores.seed_experience(self.experience, self.recorder, self._clock)
        await self.auditor.remember()
        await self.watch.restore()
        await self.health.update()
        listen = self.generation.config.server.listen
        self.port = self._server.add_insecure_port(listen)
        await self._server.start()
        clock, recorder = self._clock, self.recorder
        host = listen.rpartition(":")[0]
        watches = (
            self.models.watch(),
            self.health.watch(),
            self.admission.watch(clock),
            self.watch.follow(),
        )
        retention = chores.enforce_retention(lambda: self.generation.config, recorder, clock)
        for watch in (*watches, chores.recover(recorder, clock), retention):
            self._tasks.add(asyncio.create_task(watch))
        _log.info("serving on %s:%d", host, self.port)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; SIGHUP reloads the configuration. A second signal ends at once."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(loop_exception)
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_from_file)
        await self._stopping.wait()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)
            signal.signal(name, signal.SIG_DFL)
        await self.stop()

    async def stop(self) -> None:
        """Say so in health, answer on for `drain_s` while load balancers find out, then take no more.

        Requests under way finish within the grace; every outcome is on disk before the end.
        """
        config = self.generation.config
        await self.health.leave()
        await self._clock.sleep(config.server.drain_s)
        grace_s = config.server.grace_s
        await self._server.stop(grace_s - await turn_away(self.admission, self._clock, grace_s=grace_s))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.auditor.close(_AUDITOR_CLOSE_S)
        await self.watch.close(_WATCH_CLOSE_S)
        given_up = await self.recorder.close(_RECORDER_CLOSE_S)
        if given_up:
            _log.error("%d outcomes could not be written before the end", given_up)
        with suppress(StoreError):
            self.store.close()
        for endpoint in self.generation.endpoints.values():
            await endpoint.provider.close()
        await asyncio.to_thread(self.telemetry.shutdown, _TELEMETRY_CLOSE_S)
        _log.info("stopped")

    # --- reload ----------------------------------------------------------------------------------

    def reload(self, config: Config) -> None:
        """Use another configuration from the next request on; those under way finish on theirs.

        Listening address, store, model folder, telemetry, breakers and admission keep what they started with.
        """
        before = self.generation
        keep = {name: (before.config.endpoints[name], endpoint) for name, endpoint in before.endpoints.items()}
        self.generation = self._generation(config, keep)
        gone = [endpoint for endpoint in before.endpoints.values() if endpoint not in self._endpoints()]
        self._background(_close_when_idle(before, gone))

    def _reload_from_file(self) -> None:
        try:
            self.reload(load_config(self._config_path))
        except ConfigError as error:
            _log.error("reload refused, the configuration before it goes on: %s", error)
            return
        _log.info("configuration reloaded")

    def _generation(self, config: Config, keep: dict[str, tuple[EndpointConfig, Endpoint]]) -> Generation:
        return make_generation(
            config,
            endpoints=make_endpoints(config, self._clock, self.pacing, keep=keep, emulator_url=self._emulator_url),
            guards=self.guards,
            experience=self.experience,
            drift=self.watch.drift,
            model=lambda: self.models.model,
            recorder=self.recorder,
            ids=self._ids,
            clock=self._clock,
            uniform=self._uniform,
        )

    # --- parts -----------------------------------------------------------------------------------

    def _make_server(self, config: Config) -> grpc.aio.Server:
        generation: Callable[[], Generation] = lambda: self.generation  # noqa: E731
        replays = Replays(
            window_s=config.idempotency.window_s,
            max_entries=config.idempotency.max_entries,
            max_bytes=config.idempotency.max_bytes,
            clock=self._clock,
        )
        clock, telemetry = self._clock, self.telemetry
        router = RouterServicer(
            generation=generation,
            admission=self.admission,
            pacing=self.pacing,
            replays=replays,
            clock=clock,
            telemetry=telemetry,
            auditor=self.auditor,
        )
        feedback = FeedbackServicer(generation=generation, recorder=self.recorder, clock=clock, telemetry=telemetry)
        self._watch_metrics()
        return make_listener(config, router=router, feedback=feedback, health=self.health)

    def _watch_metrics(self) -> None:
        telemetry = self.telemetry
        telemetry.watch_breakers(lambda: {key: state.value for key, state in self.guards.states().items()})
        telemetry.watch_alarms(
            lambda: {(alarm.kind, alarm.endpoint, alarm.tier): 1 for alarm in self.guards.access.alarms()}
        )
        admission = self.admission
        telemetry.watch_admission(
            lambda: admission.limit,
            lambda: {each.name.lower(): n for each, n in admission.refused.items()},
        )
        models = self.models
        telemetry.watch_model(lambda: models.version, lambda: bool(models.problem), lambda: models.learned_until_s)
        telemetry.watch_store(lambda: self.store.corrupt_rows)
        telemetry.watch_health(self.health.states)
        telemetry.watch_drift(
            lambda: {(each.workload, each.tier, each.stream.value): 1.0 for each in self.watch.drift.alarms()}
        )
        recorder = self.recorder
        telemetry.watch_recorder(lambda: counters.results(recorder.counters, recorder.backlog))
        telemetry.watch_queues(
            lambda: {
                "requests": self.admission.in_flight,
                "admission": self.admission.queued,
                "outcomes": recorder.counters.queue_depth,
                "journal": recorder.backlog.depth,
                "audits": self.auditor.waiting,
            }
        )

    def _some_tier_usable(self) -> bool:
        """Whether any tier has an endpoint that is not closed for more than its rate limit."""
        generation = self.generation
        for tier in generation.completer.ladder.values():
            for name in tier.endpoints:
                hold = self.guards.hold(generation.endpoints[name], tier.name)
                if hold is None or hold.cause == RateLimited.kind:
                    return True
        return False

    def _endpoints(self) -> list[Endpoint]:
        return list(self.generation.endpoints.values())

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _busy(self) -> bool:
        """Whether callers need what audits would take: half of the places, or a store that keeps up."""
        return 2 * self.admission.in_flight >= self.admission.limit or not self.recorder.healthy


def _log_alarm(alarm: Alarm) -> None:
    """One line when an endpoint begins to refuse us and one when it has ceased to."""
    whose = f"{alarm.endpoint} for {alarm.tier or 'every tier'}"
    if alarm.over:
        _log.warning("alarm over: %s, endpoint %s", alarm.kind, whose)
    else:
        _log.error("alarm: %s, endpoint %s; it is not called until a probe is answered", alarm.kind, whose)


async def _close_when_idle(generation: Generation, endpoints: list[Endpoint]) -> None:
    await generation.idle()
    for endpoint in endpoints:
        await endpoint.provider.close()
