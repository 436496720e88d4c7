"""A real Envoy with the configuration of deploy/, in front of replicas on loopback."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

SHIPPED = Path(__file__).parents[2] / "deploy" / "envoy.yaml"
MISSING = "no Envoy: make test-replicas installs it (requirements/proxy.txt)"
_ADMIN, _LISTENER, _REPLICAS = 9901, 50050, (50051, 50052)


def binary() -> str | None:
    """Envoy's program: beside this Python, else on the path."""
    return shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")


def configuration(replicas: tuple[int, int]) -> str:
    """What is shipped, with ports of the test's own; 0 is a free one."""
    text = SHIPPED.read_text(encoding="utf-8")
    for shipped, here in ((_ADMIN, 0), (_LISTENER, 0), *zip(_REPLICAS, replicas, strict=True)):
        assert text.count(f"port_value: {shipped} ") == 1
        text = text.replace(f"port_value: {shipped} ", f"port_value: {here} ")
    return text


class Envoy:
    """One process of it. `target` is where callers go."""

    def __init__(self, folder: Path, replicas: tuple[int, int]) -> None:
        self._folder = folder
        self._config = folder / "envoy.yaml"
        self._config.write_text(configuration(replicas), encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None
        self._admin = self.target = ""

    async def start(self) -> None:
        """Until it listens."""
        program, told = binary(), self._folder / "envoy.admin"
        assert program is not None, MISSING
        with (self._folder / "envoy.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(program, "-c", str(self._config), "--concurrency", "1", "--log-level", "warning"),
                *("--disable-hot-restart", "--admin-address-path", str(told)),
                stderr=log,
            )
        while not (self._admin and (listening := await self._asked("listeners?format=json"))):
            assert self._process.returncode is None, (self._folder / "envoy.log").read_text(encoding="utf-8")
            self._admin = told.read_text(encoding="utf-8").strip() if told.exists() else ""
            await asyncio.sleep(0.02)
        address = listening["listener_statuses"][0]["local_address"]["socket_address"]
        self.target = f"{address['address']}:{address['port_value']}"

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def sees(self, ports: set[int]) -> None:
        """Until these are the replicas to which it sends calls."""
        while await self.healthy() != ports:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.05)

    async def healthy(self) -> set[int]:
        """The ports of the replicas to which it would send a call now."""
        found = await self._asked("clusters?format=json")
        return {
            host["address"]["socket_address"]["port_value"]
            for host in found["cluster_statuses"][0]["host_statuses"]
            if host["health_status"].get("eds_health_status") == "HEALTHY"
            and not {"failed_active_health_check", "failed_outlier_check", "pending_active_hc"}
            & host["health_status"].keys()
        }

    async def count(self, name: str) -> int:
        """A counter of the cluster's, such as `upstream_rq_retry`."""
        found = await self._asked(f"stats?format=json&filter=^cluster.tierwise.{name}$")
        return int(found["stats"][0]["value"])

    async def _asked(self, what: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            with urlopen(f"http://{self._admin}/{what}", timeout=5) as response:
                return dict(json.load(response))

        return await asyncio.to_thread(ask)
