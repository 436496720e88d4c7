"""kill -9 of the whole service under load: no reply received whose outcome is missing (bench/durability.py does 20)."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import grpc

from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource
from router.journal import Journal
from router.store.sql import SqlStore
from router.v1 import router_pb2_grpc
from tests.support.service import text_request

KILLS = 3
REPLIES_BEFORE_EACH = 40


async def test_every_acknowledged_outcome_survives_a_kill(tmp_path: Any) -> None:
    emulator = Emulator(StaticSource())
    base_url = await emulator.start()
    url = f"sqlite:///{tmp_path}/outcomes.db"
    config = Path(tmp_path) / "tierwise.toml"
    config.write_text(
        f'[endpoints.claude]\nbase_url = "{base_url}"\n[server]\nlisten = "127.0.0.1:0"\n'
        f'[store]\nurl = "{url}"\n[model]\ndirectory = "{tmp_path}/models"\n',
        encoding="utf-8",
    )
    acknowledged: set[str] = set()
    try:
        for _ in range(KILLS):
            acknowledged |= await _load_and_kill(config)
    finally:
        await emulator.stop()
    store = SqlStore(url)
    journal = Journal(Path(tmp_path) / "outcomes.journal", max_bytes=1 << 30)  # of the last one killed, if any waits
    while group := journal.peek(64):
        store.write(group)
        journal.drop(len(group))
    stored = [recorded.outcome.request_id for recorded in store.read()]
    store.close()
    assert len(acknowledged) >= KILLS * REPLIES_BEFORE_EACH
    assert acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert store.corrupt_rows == 0


async def _load_and_kill(config: Path) -> set[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router.cli", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "ANTHROPIC_API_KEY": "emulated"},
    )
    assert process.stdout is not None
    port = ""
    while not port:
        line = (await process.stdout.readline()).decode()
        assert line, "the service ended before it listened"
        port = line.rpartition(":")[2].strip() if "tierwise is serving on" in line else ""
    acknowledged: set[str] = set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        router: Any = router_pb2_grpc.RouterServiceStub(channel)

        async def caller() -> None:
            while True:
                try:
                    response = await router.Complete(text_request(), timeout=10)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        continue
                    return
                if response.recorded:
                    acknowledged.add(response.request_id)
                if len(acknowledged) >= REPLIES_BEFORE_EACH and process.returncode is None:
                    process.kill()  # SIGKILL, with seven other calls at some point of their way

        await asyncio.gather(*(caller() for _ in range(8)))
    await process.wait()
    return acknowledged
