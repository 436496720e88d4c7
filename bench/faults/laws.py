"""R8: escalation is not failure. R9: the deterministic simulation. R15: clocks that jump. R17: the nightly run."""

from __future__ import annotations

import asyncio
import os
import random
import re
import resource
import subprocess
import sys

from processes import ROOT

from bench.faults.result import Result
from fallback.errors import Failure, Overloaded
from fallback.guards import GuardSettings
from router.outcome import RequestIds
from tests.support.fakes import Bench, Delayed, FakeClock, reply
from tests.support.fakes import Call as Sent


def _run(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def escalation(scale: float, seed: int) -> Result:
    """R8: a thousand scenarios against a reference model of the chain."""
    del scale
    result = Result("R8", "escalation is not failure", n="1,000 scenarios", seed=seed)
    tried = _run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_chain_model.py", f"--hypothesis-seed={seed}"
    )
    result.true("the reference model agrees on all", holds=tried.returncode == 0)
    return result


def simulation(scale: float, seed: int) -> Result:
    """R9: histories of the whole service on a virtual clock."""
    seeds = int(300 * scale)
    result = Result("R9", "deterministic simulation", n=f"{seeds:,} seeds", seed=seed)
    tried = _run("-m", "tests.simulation", "--seeds", str(seeds), "--first", str(seed))
    found = re.search(r"(\d+) broken, (.*)", tried.stdout)
    result.none("seeds that break a law", int(found.group(1)) if found else seeds)
    result.told("events", found.group(2) if found else tried.stderr[-200:])
    code = "import logging; logging.disable(50); from tests.simulation.scenario import play; print(play(1).digest)"
    digests = {_run("-c", code, PYTHONHASHSEED=hash_seed).stdout for hash_seed in ("1", "2", "3")}
    result.equal("histories of one seed in three processes", len(digests), 1)
    return result


def clocks(scale: float, seed: int) -> Result:
    """R15: the wall clock steps by an hour or a day every second; nothing that matters may notice."""
    requests = int(2_000 * scale)
    result = Result("R15", "clock jumps", n=f"{requests:,} requests with and without steps, fake clock", seed=seed)
    still = asyncio.run(_story(requests, seed, steps=False))
    stepped = asyncio.run(_story(requests, seed, steps=True))
    result.true("attempts, budget and breakers the same, to the letter", holds=still == stepped)
    rng, ids = random.Random(seed), RequestIds()
    wall_s, made = 1_790_000_000.0, []
    for _ in range(requests):
        wall_s += rng.choice((0.01, 3_600.0, -3_600.0, 86_400.0, -86_400.0))
        made.append(ids.next(wall_s))
    result.true("request ids ascend all the same", holds=made == sorted(made) and len(set(made)) == len(made))
    return result


async def _story(requests: int, seed: int, *, steps: bool) -> list[object]:
    clock, rng = FakeClock(), random.Random(seed)
    wall = random.Random(seed + 1)

    def script(_: Sent) -> Delayed:
        return Delayed(rng.uniform(0.1, 2.0), Overloaded() if rng.random() < 0.3 else reply())

    bench = Bench(script, guards=GuardSettings(), clock=clock, uniform=random.Random(seed).random)
    told: list[object] = []
    for _ in range(requests):
        if steps:
            clock.wall_now_s += wall.choice((3_600.0, -3_600.0, 86_400.0, -86_400.0))
        try:
            await bench.run(bench.job(checks=()))
        except Failure as failure:
            told.append(failure.kind)
        told.append((bench.story, bench.tokens, sorted(bench.guards.states().items()), clock.monotonic_s()))
    return told


def night(scale: float, seed: int) -> Result:
    """R17: the nightly run killed as each of its steps begins, and before every change on disk of a publish."""
    result = Result("R17", "nightly run", seed=seed)
    steps = _run("-m", "tests.training.night_kills")
    changes = _run("-m", "tests.training.registry_kills")
    points = len(steps.stdout.split("\n")) - 1
    result.n = f"killed at {points} steps and before every change on disk of publish, rollback and prune"
    result.true("`current` is the old version or the new one, and a second run ends well", holds=steps.returncode == 0)
    result.true("a publish, a rollback and a prune survive a kill anywhere", holds=changes.returncode == 0)
    rows = int(60_000 * scale)
    memory = _run("-m", "bench.faults.big_night", str(rows), PYTHONPATH=f"{ROOT}:{ROOT / 'bench'}")
    peak = float(memory.stdout.split()[-1]) if memory.returncode == 0 else float("inf")
    result.most(f"memory with {rows:,} outcomes in the log", peak, 1024.0, " MB")
    return result


def peak_mb() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
