"""What paid checks are worth on three simulated workloads: agreement and judge on every reply, then the report.

    python bench/checks.py [--n 200]

All simulated: the judge's error rates are made up (`fallback.emulator.grading`), so the report should find them again.
Nothing here measures a real model.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import grpc
from rich.console import Console

from fallback.emulator.server import Emulator
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import WORKLOADS, grade
from router.config import Config
from router.serve import Service
from router.store.sql import SqlStore
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc
from training.checkreport import check_report
from training.checkshow import show_checks

NAMES = ("date-reasoning", "program-trace", "ticket-triage")
LADDER = ("haiku", "sonnet", "opus")
MISTAKE_USD = 0.05
AT_ONCE = 8


def policy(name: str) -> dict[str, object]:
    """Both paid checks, asked about every reply that could still be sent on."""
    answer = "label" if name == "ticket-triage" else "auto"
    agreement = {"check": "agreement", "samples": 2, "answer": answer, "uncertain": [0, 1]}
    judge = {"check": "judge", "tier": "sonnet", "rubric": "The answer is right.", "uncertain": [0, 1]}
    return {"explore": 0, "mistake_cost_usd": MISTAKE_USD, "hopeless": "escalate", "checks": [agreement, judge]}


async def asked(channel: grpc.aio.Channel, source: SimulatedSource, name: str, index: int) -> None:
    """One request, and what its caller says of it later: good or bad, and the cheapest tier that is right."""
    case = WORKLOADS[name].case(11, index)
    block = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=case.prompt))
    prompt = router_pb2.Prompt(messages=[router_pb2.Message(role="user", content=[block])], max_tokens=4_000)
    request = router_pb2.CompleteRequest(workload=name, prompt=prompt, labels={"simulated": "true"})
    response = await router_pb2_grpc.RouterServiceStub(channel).Complete(request)
    good = grade(case, "".join(block.text.text for block in response.content))
    enough = next((tier for tier in LADDER if source.is_right(case, tier)), "")
    report = feedback_pb2.ReportOutcomeRequest(
        request_id=response.request_id,
        quality=feedback_pb2.QUALITY_GOOD if good else feedback_pb2.QUALITY_BAD,
        sufficient_tier=enough,
    )
    await feedback_pb2_grpc.FeedbackServiceStub(channel).ReportOutcome(report)


async def run(folder: Path, n: int) -> None:
    """Serve, report, show."""
    source, url = SimulatedSource(), f"sqlite:///{folder}/outcomes.db"
    emulator = Emulator(source, seed=1)
    base_url = await emulator.start()
    sections = {
        "server": {"listen": "127.0.0.1:0"},
        "store": {"url": url},
        "model": {"directory": str(folder / "models")},
    }
    config = Config.model_validate({**sections, "workloads": {name: policy(name) for name in NAMES}})
    service = Service(config, emulator_url=base_url)
    await service.start()
    gate = asyncio.Semaphore(AT_ONCE)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{service.port}") as channel:

        async def one(name: str, index: int) -> None:
            async with gate:
                await asked(channel, source, name, index)

        await asyncio.gather(*(one(name, index) for name in NAMES for index in range(n)))
    await service.stop()
    upstream = emulator.stats()["requests"]
    await emulator.stop()
    store = SqlStore(url)
    records = list(store.read())
    store.close()
    attempts = [attempt for record in records for attempt in record.outcome.attempts]
    calls = sum(report.calls for attempt in attempts for report in attempt.checks)
    print(f"{len(records)} requests, {len(attempts)} attempts + {calls} check calls = {upstream} upstream requests")
    paid = [each for each in check_report(records, LADDER, lambda _: MISTAKE_USD) if each.mean_calls]
    show_checks(Console(width=190), paid)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200, help="requests per workload")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder), arguments.n))


if __name__ == "__main__":
    main()
