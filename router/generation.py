"""Everything that follows from one configuration. A reload makes a new one; requests finish on theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fallback.checks import Check
from fallback.providers import Endpoint
from router.audit.examination import Bench
from router.completer import Completer
from router.config import Config
from router.config_workloads import WorkloadConfig
from router.fields import Limits


class Generation:
    """A configuration with its chain and policies, and how many requests are still on it."""

    def __init__(self, config: Config, completer: Completer, bench: Bench, endpoints: Mapping[str, Endpoint]) -> None:
        self.config = config
        self.completer = completer
        self.bench = bench
        self.endpoints = endpoints
        self.limits = Limits(config.ladder, config.server.max_text_chars)
        self._checks = {name: config.checks(policy) for name, policy in config.workloads.items()}
        self._default = config.workload("default")
        self._default_checks = config.checks(self._default)
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def knows(self, workload: str) -> bool:
        """Whether the workload is served: always, unless the service is set to refuse unknown ones."""
        refuses = self.config.server.unknown_workloads == "refuse"
        return not refuses or workload == "default" or workload in self.config.workloads

    def policy(self, workload: str) -> tuple[WorkloadConfig, tuple[Check, ...]]:
        """The workload's policy and checks; those of `default` where it has none of its own."""
        if workload in self._checks:
            return self.config.workloads[workload], self._checks[workload]
        return self._default, self._default_checks

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """One request runs on this generation."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self._idle.set()

    async def idle(self) -> None:
        """Until no request runs on it."""
        await self._idle.wait()
