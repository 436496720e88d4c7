"""What the night measures for the chain rule, on recorded answers that are served as a censored log.

Recorded: prompts, every tier's reply, whether it is right. Made up: who serves them. A chain starts at haiku, or by lot
elsewhere; its check notices a bad reply with a given probability; half of the accepted replies are judged. Only
what that chain asked is in the log. The night learns from two thirds of the prompts, and its model decides the others
at given costs of a mistake: with the guesses that stand there without evidence, with both
measured, and with that and a margin that every further call has to save (`call_margin`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from fallback.cascade import Ask
from router.config import load_config
from router.scoring import RouterModel, Tied
from training.benchmark.recorded import TIERS, Recorded, read_recorded
from training.dataset import Dataset
from training.fit import fit_router, folds
from training.follow import Means
from training.labels import weighed
from training.learner import states_of, training_set
from training.noticed import with_habits
from training.rows import Label, Row, Source, Step
from training.served import Served, Terms

MISTAKE_USD = (0.01, 0.03, 0.1, 0.3)
EXPLORE, JUDGED = 0.15, 0.5
MARGIN = 0.5


@dataclass(frozen=True)
class Service:
    """The chain that served the prompts, with a check that notices this share of bad replies."""

    recorded: Recorded
    noticed: float
    rng: np.random.Generator

    def row(self, number: int, *, whole: bool = False) -> Row:
        """A prompt as the log holds it; `whole`: as if every tier had been asked, to replay it."""
        recorded, rng = self.recorded, self.rng
        workload = str(recorded.data.workloads[number])
        same = recorded.data.workloads == workload
        propensities = {tier: EXPLORE / len(TIERS) + (1 - EXPLORE) * (tier == TIERS[0]) for tier in TIERS}
        start = TIERS[0] if whole else str(rng.choice(TIERS, p=list(propensities.values())))
        steps: list[Step] = []
        labels: dict[str, Label] = {}
        for tier in TIERS[TIERS.index(start) :]:
            good = bool(recorded.correct(tier)[number])
            rejected = "free" if not good and rng.random() < self.noticed else ""
            cost_usd, reply = float(recorded.costs_usd[tier][number]), recorded.replies[tier][number]
            steps.append(Step(tier, rejected, ends=False, cost_usd=cost_usd, check_cost_usd=0.0, reply_features=reply))
            if rejected:
                labels[tier] = Label(good=False, source=Source.VERDICT, strength=0.5)
            elif rng.random() < JUDGED:
                labels[tier] = Label(good, Source.FEEDBACK, accepted=True)
            else:
                labels[tier] = Label(good=True, source=Source.VERDICT, accepted=True, strength=0.5)
            if not rejected and not whole:
                break
        return Row(
            request_id=f"{number:032x}",
            workload=workload,
            group=f"workload:{workload}",
            received_at_s=float(number),
            features=recorded.features[number],
            start=start,
            direct=False,
            propensities=propensities,
            expected_cost_usd={tier: float(recorded.costs_usd[tier][same].mean()) for tier in TIERS},
            steps=tuple(steps),
            resolved=steps[-1].tier,
            accepted=not steps[-1].rejected,
            labels=labels,
            cost_usd=sum(step.cost_usd for step in steps),
            top_tier_cost_usd=0.0,
            simulated=True,
            agree={
                pair: (float(found[0]), float(found[1]))
                for pair in combinations([step.tier for step in steps], 2)
                for found in (recorded.data.agree[pair][number],)
            },
        )


def night(rows: Sequence[Row], seed: int) -> dict[str, tuple[RouterModel, float]]:
    """The model of these rows and the margin, in each form."""
    data = Dataset(weighed(rows))
    made = training_set(data)
    fitted = fit_router(made, version="night", states=states_of(made), seed=seed)
    measured = with_habits(fitted, data).model
    return {
        "guessed": (replace(measured, caught={}, tied=Tied()), 0.0),
        "measured": (measured, 0.0),
        "with margin": (measured, MARGIN),
    }


def served(policy: Served, row: Row, recorded: Recorded, number: int) -> tuple[float, float, float]:
    """(whether the reply handed over is right, what it cost in US dollars, calls)."""
    plan, steps = policy.plan(row), {step.tier: step for step in row.steps}
    tier, spent_usd, replies = plan.tiers[0], 0.0, []
    while True:
        replies.append(steps[tier])
        spent_usd += steps[tier].cost_usd
        match policy.after(row, plan, replies):
            case Ask(source=source) if source in plan.tiers:
                tier = source
            case step:
                kept = tier if isinstance(step, Ask) else step.tier
                return float(recorded.correct(kept)[number]), spent_usd, float(len(replies))


def main() -> None:
    """A line for each cost of a mistake and form; all prompts, each decided by a model that has not seen it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recorded", type=Path, required=True)
    parser.add_argument("--generation", required=True)
    parser.add_argument("--noticed", type=float, default=0.7, help="share of bad replies that the check notices")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    prices = load_config(None).load_prices()
    recorded = read_recorded(options.recorded, options.generation, prices, second_samples=False)
    found: defaultdict[tuple[float, str], list[tuple[float, float, float]]] = defaultdict(list)
    for seed in options.seeds:
        service = Service(recorded, options.noticed, np.random.default_rng(seed))
        for inside, outside in folds(recorded.data, seed, 3):
            forms = night([service.row(number) for number in sorted(inside.tolist())], seed)
            asked = [(number, service.row(number, whole=True)) for number in outside.tolist()]
            for usd in MISTAKE_USD:
                for name, (model, margin) in forms.items():
                    own = Terms(TIERS, mistake_cost_usd=usd, call_margin=margin)
                    policy = Served(model, lambda _, own=own: own, Means(()))  # type: ignore[misc]
                    found[usd, name] += [served(policy, row, recorded, number) for number, row in asked]
    show(options, found, len(recorded))


def show(options: argparse.Namespace, found: dict[tuple[float, str], list[tuple[float, float, float]]], n: int) -> None:
    """Differences are paired. A prompt is decided once a seed: intervals take its mean over the seeds as one figure."""
    table = Table(
        "mistake", "model", "good", "$ per 1,000", "calls", "cost, %", "quality, points",
        "value, $ per 1,000",
        title=f"{options.generation}, {n} prompts, {len(options.seeds)} seeds, check notices {options.noticed:.0%}; "
        "differences from `guessed`, 95 %",
    )  # fmt: skip
    for (usd, name), each_prompt in found.items():
        good, cost_usd, calls = np.array(each_prompt).T
        before_good, before_usd, _ = np.array(found[usd, "guessed"]).T
        value = usd * (good - before_good) - (cost_usd - before_usd)
        differences = (
            (cost_usd - before_usd, 100 / before_usd.mean()),
            (good - before_good, 100.0),
            (value, 1000.0),
        )
        spread = 1.96 / np.sqrt(n)
        told = [
            f"{scale * each.mean():+.2f} ± {spread * scale * each.std():.2f}" for each, scale in differences
        ]  # n, not n · seeds: the same prompts again
        table.add_row(
            f"${usd:g}", name, f"{good.mean():.2%}", f"{1000 * cost_usd.mean():.3f}", f"{calls.mean():.2f}", *told
        )
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
