"""Two simulated days and the night between them: `make demo`.

Day 1 is the fallback chain that one would write by hand: haiku, then sonnet, then opus, up whenever a check
rejects. `--static-plan measured` lets it move its start and skip tiers by its own escalations instead, as the
service does where the configuration does not say otherwise.

Real parts throughout: the service as its own process, called over gRPC; the real anthropic SDK over
real HTTP to the emulator; SQLite; the nightly run as the command that the data team uses. Only the
tiers' answers are simulated, by workloads whose right answers are known, so that quality can be counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import grpc
from demo_figures import Answered, Day, oracle_and_constants, saving, summary, unexplored
from processes import ROOT, child
from rich.console import Console

from fallback.emulator.workloads import WORKLOADS, grade
from fallback.emulator.workloads.base import Case
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc

_EMULATOR_SEED = 7
_CONCURRENCY = 24
# Callers come back with good or bad to all replies of every second round.
_FEEDBACK_EVERY = 2
# The promise that is optimised: this share of the best tier's quality, and no less than day 1's.
_TARGET = 0.95
# A gate that refuses after one day is right to: then the service goes on as it was and learns more.
_MOST_NIGHTS = 3
_PLANS = {"fixed": "the chain haiku → sonnet → opus", "measured": "a chain that moves its start by itself"}
# Requests of each workload in a round of traffic; one where it is not named.
_MIX = {"program-trace": 3, "word-arithmetic": 2}
_ROUND = sum(_MIX.get(name, 1) for name in WORKLOADS)
# A caller that is told to come back comes back: gRPC's own retry policy, as in any client.
_COMES_BACK = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.5s",
                "maxBackoff": "8s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["RESOURCE_EXHAUSTED", "UNAVAILABLE"],
            },
        }
    ]
}

console = Console(highlight=False, width=110)


def cases(day: int, rounds: int, seed: int = 0) -> list[Case]:
    """The day's requests, workloads in turn; no prompt of one day or seed is asked on another."""
    return [
        workload.case(1_000 * (seed + 1) + day, number * _MIX.get(workload.name, 1) + again)
        for number in range(rounds)
        for workload in WORKLOADS.values()
        for again in range(_MIX.get(workload.name, 1))
    ]


def request_for(case: Case) -> router_pb2.CompleteRequest:
    """The case as a caller sends it: with its workload's name, and nothing else that would help."""
    text = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=case.prompt))
    prompt = router_pb2.Prompt(messages=[router_pb2.Message(role="user", content=[text])], max_tokens=2_000)
    return router_pb2.CompleteRequest(workload=case.workload, prompt=prompt, labels={"simulated": "true"})


async def live(target: str, requests: Sequence[Case]) -> Day:
    """One day: every request asked once, half of the replies judged by their callers afterwards."""
    answered: list[Answered] = []
    waiting = iter(enumerate(requests))
    options = (("grpc.service_config", json.dumps(_COMES_BACK)),)
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        router = router_pb2_grpc.RouterServiceStub(channel)
        feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)

        async def caller() -> None:
            for number, case in waiting:
                response = await router.Complete(request_for(case), timeout=60)
                good = grade(case, response.content[0].text.text if response.content else "")
                answered.append(Answered(case, good, response))
                if number // _ROUND % _FEEDBACK_EVERY == 0:
                    quality = feedback_pb2.QUALITY_GOOD if good else feedback_pb2.QUALITY_BAD
                    report = feedback_pb2.ReportOutcomeRequest(request_id=response.request_id, quality=quality)
                    await feedback.ReportOutcome(report, timeout=10)

        await asyncio.gather(*(caller() for _ in range(_CONCURRENCY)))
    answered.sort(key=lambda one: one.case.prompt)
    return Day(tuple(answered))


def night(config: Path, report: Path) -> bool:
    """The data team's command, as they run it; whether the gate published a model."""
    command = ["tierwise-training", "nightly", "--target", str(_TARGET), "--config", str(config)]
    command += ["--report", str(report)]
    console.print(f"[bold]night[/bold]: {' '.join(command[:4])} --config … --report {report.name}")
    started = time.monotonic()
    command[0] = str(Path(sys.executable).parent / command[0])
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        console.print(done.stdout + done.stderr)
        raise SystemExit(f"the nightly run failed with exit code {done.returncode}")
    for line in done.stdout.strip().splitlines():
        console.print(f"  {line}", markup=False)
    console.print(f"  took {time.monotonic() - started:.0f} s\n")
    return done.returncode == 0


async def model_in_use(target: str) -> str:
    """The version that the service decides with, once it has picked one up; empty after 10 seconds."""
    async with grpc.aio.insecure_channel(target) as channel:
        router = router_pb2_grpc.RouterServiceStub(channel)
        case = cases(0, 1)[0]
        for _ in range(100):
            asked = router_pb2.RouteRequest(workload=case.workload, prompt=request_for(case).prompt)
            version = (await router.Route(asked)).decision.model_version
            if version:
                return str(version)
            await asyncio.sleep(0.1)
    return ""


def write_config(folder: Path, upstream: str, static_plan: str) -> Path:
    """The example configuration, with this run's folder, upstream, plan without a model and quality target."""
    text = (ROOT / "deploy" / "tierwise.toml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:50051", "127.0.0.1:0").replace("127.0.0.1:9464", "127.0.0.1:0")
    text = text.replace("sqlite:///var/", f"sqlite:///{folder}/").replace("var/models", str(folder / "models"))
    text = text.replace("explore = 0.10", f'explore = 0.10\nstatic_plan = "{static_plan}"\nquality_target = {_TARGET}')
    path = folder / "tierwise.toml"
    path.write_text(f'{text}\n[endpoints.claude]\nbase_url = "{upstream}"\n', encoding="utf-8")
    return path


def main(rounds: int, folder: Path, seed: int, static_plan: str) -> None:
    """Day 1, the night, day 2, and what changed."""
    started = time.monotonic()
    n = rounds * _ROUND
    console.print("[bold]tierwise demo[/bold]: every answer is SIMULATED by the emulator; everything else is real.\n")
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.html"
    with child("-m", "router.cli", "emulate", "--port", "0", "--seed", str(_EMULATOR_SEED + seed)) as (_, port):
        config = write_config(folder, f"http://127.0.0.1:{port}", static_plan)
        keyed = {"ANTHROPIC_API_KEY": "emulated"}
        with child("-m", "router.cli", "serve", "--config", str(config), environ=keyed) as (_, listening):
            target = f"127.0.0.1:{listening}"
            console.print(
                f"[bold]day 1[/bold]: {n} requests of {len(WORKLOADS)} workloads, no model yet: {_PLANS[static_plan]}"
            )
            first = asyncio.run(live(target, cases(1, rounds, seed)))
            console.print(summary(unexplored(first)))
            tried = len(first.answered) - len(unexplored(first).answered)
            console.print(f"  the chain's own: without {tried} requests on which another start was tried on purpose\n")
            published = night(config, report)
            for again in range(1, _MOST_NIGHTS):
                if published:
                    break
                console.print(f"the gate wants more evidence: {n} more requests without a model, and another night")
                asyncio.run(live(target, cases(2 + again, rounds, seed)))
                published = night(config, report)
            version = asyncio.run(model_in_use(target)) if published else ""
            if not version:
                raise SystemExit("the gate published no model: day 2 would be like day 1")
            console.print(
                f"[bold]day 2[/bold]: {n} requests never seen before, decided by model {version}, all counted"
            )
            second = asyncio.run(live(target, cases(2, rounds, seed)))
            console.print(summary(second))
    console.print(oracle_and_constants(unexplored(first), second, seed=_EMULATOR_SEED + seed))
    console.print(saving(second, unexplored(first)))
    console.print(f"report: {report}\ntook {time.monotonic() - started:.0f} s in all", markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help=f"rounds of traffic a day, {_ROUND} requests each")
    parser.add_argument("--seed", type=int, default=0, help="other requests and other answers")
    parser.add_argument("--folder", type=Path, help="where store, models and report go; a new one by default")
    parser.add_argument("--static-plan", choices=list(_PLANS), default="fixed", help="the chain without a model")
    arguments = parser.parse_args()
    new_folder = Path(tempfile.mkdtemp(prefix="tierwise-demo-"))
    main(arguments.rounds, arguments.folder or new_folder, arguments.seed, arguments.static_plan)
