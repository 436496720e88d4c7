"""What audits found in the window of a night, by workload."""

from __future__ import annotations

import math

from router.rates import false_accept, false_escalate
from router.store import Store
from training.results import Audited


def audited(store: Store, since_s: float) -> tuple[Audited, ...]:
    """Of requests received since then; workloads without an audit are left out. Raises StoreError."""
    return tuple(
        Audited(
            workload=stats.workload,
            cost_usd=math.fsum(tally.cost_usd for tally in stats.audits),
            false_accept=false_accept(stats.audits),
            false_escalate=false_escalate(stats.audits),
        )
        for stats in store.stats(since_s=since_s)
        if stats.audits
    )
