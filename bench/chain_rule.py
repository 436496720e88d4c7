"""What the night measures for the chain rule, against the guesses that stand there without evidence.

Simulated: requests, replies, their truth, feedback, time. Real: checks, features, chain, policy, the night's fit. A day
without a model, a night, and a day decided by its model, on which half of the replies are judged again; then another
night on both, and a third day. Each model decides the same requests with the guesses (half of the bad replies noticed,
odds ratio 3), with what was measured, and with that and a margin that every further
call has to save (`call_margin`).
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from demo import _ROUND, cases
from rich.console import Console
from rich.table import Table

from fallback.emulator.answers import Ask as Asked
from fallback.emulator.answers import count_tokens
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import grade
from fallback.emulator.workloads.base import Case
from fallback.guards import Guards, GuardSettings
from fallback.providers import Endpoint
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Tier, Usage
from router.build import make_generation
from router.completer import Ask
from router.completion import Completion
from router.config import Config, load_config
from router.drift import Drift
from router.experience import Experience
from router.outcome import Feedback, Outcome, RequestIds
from router.scoring import RouterModel, Tied
from router.sequential import DriftSettings
from router.store import Recorded
from router.translate import Bounds
from tests.support.fakes import FakeClock
from training.dataset import read_dataset
from training.fit import Fitted, fit_router
from training.learner import choose_mistake_costs, states_of, training_set
from training.noticed import with_habits
from training.served import Terms

TARGET = 0.95
MISTAKE_USD = (0.01, 0.03, 0.1)
MARGIN = 0.5
_GIVEN = Terms(("haiku", "sonnet", "opus"), quality_target=TARGET)


@dataclass
class Simulated:
    """All three tiers, as the emulator simulates them."""

    source: SimulatedSource

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        """One reply, whatever its limits."""
        del max_tokens, timeout_s
        block = request.messages[-1].content[0]
        assert isinstance(block, TextBlock)
        answer = self.source.answer(Asked(tier=tier.name, model=model, prompt=block.text, thinking=False))
        usage = Usage(count_tokens(block.text), answer.output_tokens or count_tokens(answer.text))
        return Reply((TextBlock(answer.text),), StopReason.END_TURN, usage, model)

    async def close(self) -> None:
        """Nothing is open."""


class Kept:
    """Stands in for the recorder."""

    async def record(self, _outcome: Outcome, *, within_s: float) -> bool:
        """Always written."""
        del within_s
        return True


@dataclass(frozen=True)
class Day:
    """The records of a day's requests, and of each whether its reply was right, its cost and its calls; all (n,)."""

    records: list[Recorded]
    good: np.ndarray
    cost_usd: np.ndarray

    @property
    def calls(self) -> np.ndarray:
        """Upstream calls."""
        return np.array([len(each.outcome.attempts) for each in self.records], dtype=float)


async def live(config: Config, requests: Sequence[Case], seed: int, model: RouterModel | None, **policy: float) -> Day:
    """One day. Callers judge the replies of every second round."""
    clock, rng = FakeClock(wall_s=1_790_000_000.0), np.random.default_rng(seed)
    generation = make_generation(
        config,
        endpoints={"claude": Endpoint("claude", Simulated(SimulatedSource(seed)), "anthropic")},
        guards=Guards(GuardSettings(), clock, rng.random),
        experience=Experience(config.ladder),
        drift=Drift(DriftSettings(), lambda _: None),
        model=lambda: model,
        recorder=Kept(),  # type: ignore[arg-type]
        ids=RequestIds(),
        clock=clock,
        uniform=rng.random,
    )
    records, good = [], []
    for number, case in enumerate(requests):
        clock.advance(5.0)
        request = Request(case.workload, (Message("user", (TextBlock(case.prompt),)),), 2_000, 2_000)
        own, checks = generation.policy(case.workload)
        ask = Ask(request, own.model_copy(update=policy), checks, Bounds(config.ladder))
        done = await Completion(generation.completer, ask).run()
        good.append(grade(case, done.reply.text))
        told = Feedback(done.outcome.request_id, good[-1]) if number // _ROUND % 2 == 0 else None
        records.append(Recorded(done.outcome, told))
    return Day(records, np.array(good, dtype=float), np.array([each.outcome.cost_usd for each in records]))


def models(records: Sequence[Recorded], seed: int) -> dict[str, tuple[RouterModel, float]]:
    """The night's model and the margin in each form, with the mistake cost that it would be tuned to."""
    data = read_dataset(records)
    made = training_set(data)
    fitted = fit_router(made, version="night", states=states_of(made), seed=seed)
    measured = with_habits(fitted, data).model
    forms = {
        "guessed": (replace(measured, caught={}, tied=Tied()), 0.0),
        "measured": (measured, 0.0),
        "with margin": (measured, MARGIN),
    }
    return {
        name: (tuned(replace(fitted, model=model), records, margin), margin) for name, (model, margin) in forms.items()
    }


def tuned(fitted: Fitted, records: Sequence[Recorded], margin: float) -> RouterModel:
    """With the cost of a mistake that the night chooses for the target."""
    own = replace(_GIVEN, call_margin=margin)
    costs = choose_mistake_costs(fitted, read_dataset(records), lambda _: own, targets=[TARGET])
    return replace(fitted.model, quality_costs_usd=costs)


async def compare(seed: int, rounds: int, config: Config, table: Table) -> None:
    """Two nights and the days after them."""
    records = (await live(config, cases(1, rounds, seed), seed, None)).records
    for night in (1, 2):
        forms, requests = models(records, seed), cases(1 + night, rounds, seed)
        for given_usd in (None, *MISTAKE_USD):
            policy = {"explore": 0.0} | ({} if given_usd is None else {"mistake_cost_usd": given_usd})
            days = {
                name: await live(config, requests, seed, model, **policy, call_margin=margin)
                for name, (model, margin) in forms.items()
            }
            show(table, f"{seed}", night, given_usd, days)
        lived = await live(config, requests, seed, forms["with margin"][0])
        # Ids of a day begin anew with its clock.
        shift = f"{night:x}"
        records += [_again(each, shift) for each in lived.records]


def _again(record: Recorded, prefix: str) -> Recorded:
    named = prefix.rjust(1, "0") + record.outcome.request_id[1:]
    told = replace(record.feedback, request_id=named) if record.feedback else None
    return replace(record, outcome=replace(record.outcome, request_id=named), feedback=told)


def show(table: Table, seed: str, night: int, given_usd: float | None, days: Mapping[str, Day]) -> None:
    """A line for each form; differences are paired, request by request."""
    before = days["guessed"]
    for name, day in days.items():
        cost = _mean_interval(day.cost_usd - before.cost_usd, 100 / before.cost_usd.mean())
        quality = _mean_interval(day.good - before.good, 100.0)
        mistake_usd = given_usd or 0.0
        value = (mistake_usd * day.good - day.cost_usd) - (mistake_usd * before.good - before.cost_usd)
        worth = "" if given_usd is None else _mean_interval(value, 1000.0)
        table.add_row(
            seed, str(night), "tuned" if given_usd is None else f"${given_usd:g}", name, f"{day.good.mean():.2%}",
            f"{1000 * day.cost_usd.mean():.3f}", f"{day.calls.mean():.2f}", cost, quality, worth,
        )  # fmt: skip


def _mean_interval(values: np.ndarray, scale: float) -> str:
    half = 1.96 * scale * values.std(ddof=1) / np.sqrt(len(values))
    return f"{scale * values.mean():+.2f} ± {half:.2f}"


def main() -> None:
    """One table over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=400, help=f"a day, {_ROUND} requests each")
    parser.add_argument("--config", default="deploy/tierwise.toml")
    options = parser.parse_args()
    config = load_config(options.config)
    served = {
        name: workload.model_copy(update={"quality_target": TARGET, "static_plan": "measured"})
        for name, workload in config.workloads.items()
    }
    table = Table(
        "seed", "night", "mistake", "model", "good", "$ per 1,000", "calls", "cost, %", "quality, points",
        "value, $ per 1,000",
        title="SIMULATED; differences from `guessed` on the same requests, 95 %",
    )  # fmt: skip
    for seed in options.seeds:
        asyncio.run(compare(seed, options.rounds, config.model_copy(update={"workloads": served}), table))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
