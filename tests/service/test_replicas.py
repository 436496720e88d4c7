"""Two replicas on loopback: one store, one folder of models, callers that balance by health."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource
from tests.service.test_complete import until
from tests.service.test_learning import publish
from tests.support.replicas import Callers, Replica, kept


async def test_a_rolling_restart_and_a_new_model_cost_no_call(tmp_path: Any) -> None:
    folder = Path(tmp_path)
    emulator = Emulator(StaticSource())
    upstream = await emulator.start()
    store_url = f"sqlite:///{folder}/outcomes.db"
    replicas = [Replica(name, folder, upstream, store_url) for name in ("one", "two")]
    await replicas[0].start()
    await replicas[1].start()
    callers = Callers()
    target = "ipv4:" + ",".join(f"127.0.0.1:{each.port}" for each in replicas)
    calling = asyncio.ensure_future(callers.call(target))
    try:
        for replica, other in (replicas, replicas[::-1]):
            await until(lambda: callers.answered_by["one"] > 0 < callers.answered_by["two"])
            assert await replica.stop() == 0
            callers.answered_by.clear()
            await until(lambda other=other: callers.answered_by[other.name] > 20)  # it answers alone
            assert not callers.answered_by[replica.name]
            await replica.start()
        publish(folder / "models", "fresh")
        for replica in replicas:
            await replica.decides_with("fresh")
    finally:
        callers.over = True
        await calling
        for replica in replicas:
            await replica.stop()
        await emulator.stop()
    assert set(callers.statuses) == {"OK"}
    assert len(callers.recorded) == callers.statuses["OK"]
    assert set(callers.recorded) <= kept(store_url, folder).keys()
