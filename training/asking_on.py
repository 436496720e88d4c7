"""What the night learns of asking on, put into the model: what is noticed, how tiers are tied, and corrections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from training.corrections import learn_corrections, read_log
from training.dataset import Dataset
from training.fit import Fitted, onehots
from training.follow import Means
from training.noticed import caught_shares, odds_ratios
from training.rows import Row
from training.served import Terms

_AT = np.geomspace(0.3, 160.0, 24)  # mistake costs, times the dearest tier's expected cost


def with_asking_on(fitted: Fitted, data: Dataset, workload_terms: Callable[[str], Terms]) -> Fitted:
    """The model with what the log shows of it. Beliefs hold the rows out: see `fit_router`."""
    rows, model = data.rows, fitted.model
    beliefs = {state: held_out[: len(rows)] for state, held_out in fitted.beliefs.items()}
    tied = odds_ratios(rows, beliefs, model.tiers)
    model = replace(model, caught=caught_shares(rows, beliefs, model.tiers), tied=tied)
    means = Means(rows)
    prices = [[_price_usd(row, tier, means, workload_terms(row.workload)) for tier in model.tiers] for row in rows]
    log = read_log(
        rows,
        beliefs,
        np.array(prices),
        tiers=model.tiers,
        caught=np.array([model.caught_in(row.workload) for row in rows]),
        tied=tied,
        onehot=onehots(np.array([row.workload for row in rows]), model.workloads),
    )
    mistake_costs = float(log.costs_usd[:, -1].mean()) * _AT
    corrections = learn_corrections(log, mistake_costs, odds_ratio=tied.unread)
    return replace(fitted, model=replace(model, mistake_costs_usd=mistake_costs, corrections=corrections))


def _price_usd(row: Row, tier: str, means: Means, terms: Terms) -> float:
    """What the service expected asking the tier to cost, its time included."""
    cost_usd = row.expected_cost_usd.get(tier) or means.get("cost", "only", tier, row.workload)
    delay = row.delay.get(tier)
    return cost_usd + (terms.second_cost_usd * delay.mean_s if delay is not None else 0.0)
