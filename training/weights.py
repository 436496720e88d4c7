"""The ceiling on what one tenant or workload may weigh. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GROUP_CEILING = 0.10

Array = NDArray[np.float64]


def cap_groups(weight: Array, groups: Sequence[str], *, ceiling: float = GROUP_CEILING) -> Array:
    """Weights (n,) scaled down so that no group holds more than its ceiling of the total; none is raised.

    The ceiling is `ceiling`, or 2/k of the total where k groups are too few for it; one or two groups
    are left alone. With m groups held at share c, the others keep their weight W and the total is
    W/(1 - m·c); the m largest are held, for the least m at which the next one fits.
    """
    names, of = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    share = max(ceiling, 2.0 / max(len(names), 1))
    if share >= 1.0:
        return weight.copy()
    totals = np.bincount(of, weights=weight, minlength=len(names))
    descending = np.sort(totals)[::-1]
    rest = descending.sum()
    limit = math.inf
    for held, largest in enumerate(descending):
        total = rest / (1.0 - held * share)
        if largest <= share * total or (held + 1) * share >= 1.0:
            break
        rest -= largest
        limit = share * rest / (1.0 - (held + 1) * share)
    factors = np.minimum(1.0, limit / np.maximum(totals, np.finfo(float).tiny))
    return np.asarray(weight * factors[of], dtype=float)
