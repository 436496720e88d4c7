"""One life of the service's process: the real parts put together, without a network."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from fallback.clock import Clock
from fallback.guards import Guards
from fallback.providers import Endpoint
from router.admission import Admission
from router.audit.auditor import Auditor
from router.build import make_generation
from router.config import Config
from router.drift import Drift
from router.experience import Experience
from router.feedback import FeedbackServicer
from router.generation import Generation
from router.outcome import Outcome, RequestIds
from router.pacing import Pacing
from router.recorder import Recorder
from router.replays import Replays
from router.scoring import RouterModel
from router.sequential import DriftSettings
from router.servicer import RouterServicer
from tests.simulation.disk import Disk, SimJournal, SimStore, SimWorker
from tests.simulation.journal import History
from tests.simulation.provider import SimProvider


class Untold:
    """Telemetry of nobody: keeps the outcomes that it was handed, for the laws."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    @staticmethod
    def trace_id(metadata: Mapping[str, str | bytes], request_id: str) -> str:
        return request_id

    def record(self, outcome: Outcome, rpc: object) -> None:
        self.outcomes.append(outcome)

    def rpc(self, rpc: object) -> None:
        """Nothing to keep."""

    def feedback(self, workload: str, *, good: bool) -> None:
        """Nothing to keep."""

    def audit(self, audit: object, run: object) -> None:
        """Nothing to keep."""

    def audit_skipped(self, workload: str, reason: str) -> None:
        """Nothing to keep."""


class Process:
    """`alive` until it is killed or stopped; what it kept in memory is gone with it.

    `listening` until it is told to stop: the network turns new calls away from then on.
    """

    def __init__(
        self,
        config: Config,
        *,
        providers: Mapping[str, SimProvider],
        disk: Disk,
        clock: Clock,
        rng: random.Random,
        history: History,
    ) -> None:
        self.alive = self.listening = True
        self.recovering: asyncio.Task[None] | None = None
        journal: Any = SimJournal(disk, history)
        self.model: RouterModel | None = None
        self.telemetry = Untold()
        self._clock = clock
        self._uniform = rng.random
        self._endpoints = {name: Endpoint(name, each, name) for name, each in providers.items()}
        self.guards = Guards(config.resilience.guards(), clock, rng.random)
        self.experience = Experience(config.ladder)
        self.recorder = Recorder(
            SimStore(disk, history),
            clock,
            max_wait_s=config.store.max_wait_s,
            linger_s=config.store.linger_s,
            journal=journal,
            worker=lambda _: SimWorker(disk, rng, lambda: self.alive),
        )
        self._ids = RequestIds(rng.randbytes)
        self.pacing = Pacing(clock)
        self.admission = Admission(config.admission.settings(config.server.max_in_flight), self.pacing)
        self.drift = Drift(DriftSettings(), lambda _: None)
        self.generation = self.generate(config)
        telemetry: Any = self.telemetry
        self.auditor = Auditor(
            errands=self.recorder,
            telling=telemetry,
            busy=lambda: not self.recorder.healthy,
            clock=clock,
            lot=rng.random,
        )
        self.router = RouterServicer(
            generation=lambda: self.generation,
            admission=self.admission,
            pacing=self.pacing,
            replays=Replays(window_s=60.0, max_entries=50, max_bytes=1 << 20, clock=clock),
            clock=clock,
            telemetry=telemetry,
            auditor=self.auditor,
        )
        self.feedback = FeedbackServicer(
            generation=lambda: self.generation, recorder=self.recorder, clock=clock, telemetry=telemetry
        )

    def generate(self, config: Config) -> Generation:
        """Everything that follows from a configuration, as after a reload."""
        return make_generation(
            config,
            endpoints=dict(self._endpoints),
            guards=self.guards,
            experience=self.experience,
            drift=self.drift,
            model=lambda: self.model,
            recorder=self.recorder,
            ids=self._ids,
            clock=self._clock,
            uniform=self._uniform,
        )

    async def stop(self) -> int:
        """What `Service.stop` does after the network's part; how many outcomes were given up."""
        if self.recovering is not None:
            self.recovering.cancel()  # as `Service.stop` ends its background tasks
            await asyncio.wait({self.recovering})
        await self.auditor.close(5.0)
        given_up = await self.recorder.close(5.0)
        self.alive = False
        return given_up
