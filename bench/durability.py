"""kill -9 under load: is there a reply received whose outcome is missing?

    python bench/durability.py [--kills 20] [--seed 0]

The service runs as its own process in front of the emulator. Callers keep asking; at a random moment
the service is killed with SIGKILL and started again on the same store. At the end every request id that
a caller holds is looked up (Jepsen's total-queue: what goes in must come out).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import tempfile
import time
from pathlib import Path

import grpc
from overhead import request
from processes import child

from router.journal import Journal
from router.store.sql import SqlStore
from router.v1 import router_pb2_grpc

_CALLERS = 8


async def load_until_killed(port: int, kill: object, after_s: float) -> list[tuple[str, bool]]:
    """(request id, recorded) of every reply received before and after the kill."""
    replies: list[tuple[str, bool]] = []
    ended = asyncio.Event()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)

        async def caller() -> None:
            while not ended.is_set():
                try:
                    response = await stub.Complete(request(), timeout=5)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        continue
                    return
                replies.append((response.request_id, response.recorded))

        callers = [asyncio.create_task(caller()) for _ in range(_CALLERS)]
        await asyncio.sleep(after_s)
        kill()  # type: ignore[operator]
        ended.set()
        await asyncio.gather(*callers)
    return replies


def drain(store: SqlStore, folder: Path) -> int:
    """Do what the next process would: bring what waits in the journal into the store. How many there were."""
    journal = Journal(folder, max_bytes=1 << 30)
    waiting = journal.depth
    while group := journal.peek(64):
        store.write(group)
        journal.drop(len(group))
    journal.close()
    return waiting


def measure(kills: int, seed: int) -> dict[str, object]:
    """The counts."""
    rng = random.Random(seed)
    received: list[tuple[str, bool]] = []
    ready_s: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        child("bench/static_emulator.py", environ={"PYTHONPATH": "."}) as (_, upstream),
    ):
        url = f"sqlite:///{folder}/outcomes.db"
        config = Path(folder) / "tierwise.toml"
        config.write_text(
            f'[endpoints.claude]\nbase_url = "http://127.0.0.1:{upstream}"\n[server]\nlisten = "127.0.0.1:0"\n'
            f'[store]\nurl = "{url}"\n[model]\ndirectory = "{folder}/models"\n[telemetry]\nlog_level = "error"\n'
        )
        for _ in range(kills):
            started = time.monotonic()
            command = ("-m", "router.cli", "serve", "--config", str(config))
            with child(*command, environ={"ANTHROPIC_API_KEY": "bench"}) as (process, port):
                ready_s.append(time.monotonic() - started)
                received += asyncio.run(load_until_killed(port, process.kill, rng.uniform(0.1, 1.5)))
                with contextlib.suppress(Exception):
                    process.wait(5)
        store = SqlStore(url)
        journalled = drain(store, Path(folder) / "outcomes.journal")
        stored = [recorded.outcome.request_id for recorded in store.read()]
        corrupt = store.corrupt_rows
        store.close()
    acknowledged = {request_id for request_id, recorded in received if recorded}
    return {
        "kills": kills,
        "replies": len(received),
        "acknowledged": len(acknowledged),
        "stored": len(stored),
        "lost": len(acknowledged - set(stored)),
        "unrecorded_replies": len(received) - len(acknowledged),
        "waited_in_the_journal": journalled,
        "duplicates": len(stored) - len(set(stored)),
        "corrupt_rows": corrupt,
        "ready_s_max": round(max(ready_s), 2),
        "seed": seed,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.kills, arguments.seed), indent=2))
