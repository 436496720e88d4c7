"""One seed, tried by a worker process of `python -m tests.simulation`."""

from __future__ import annotations

import logging
from collections import Counter

from tests.simulation.scenario import play


def try_seed(seed: int) -> tuple[int, str, Counter[str]]:
    """(seed, what broke, counts of events)."""
    logging.disable(logging.CRITICAL)  # planned trouble is no news
    try:
        return seed, "", play(seed).counts
    except Exception as error:  # noqa: BLE001 - any end but a good one is a finding
        return seed, f"{type(error).__name__}: {error}", Counter()
