"""How often the checks are wrong, from audits: the false-accept and the false-escalate rate. Pure.

Every audited reply stands for the inverse of the probability with which it was drawn (Hájek's estimator). Intervals
are Clopper & Pearson's at the effective sample size (Kish: (Σw)²/Σw²), as Korn & Graubard (1998) advise for
weighted samples with few cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.outcome import AuditMethod, AuditVerdict
from router.store import AuditTally


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % interval, from `n` audits worth `effective` equally weighted ones; `bad` is its numerator.

    `undetermined` of the n could not be decided: the interval holds whatever they were, from none to all bad.
    `value` is the share among the others; with no audit it is 0 in (0, 1).
    """

    value: float
    low: float
    high: float
    n: int
    bad: int
    undetermined: int
    effective: float


def clopper_pearson(count: float, of: float) -> tuple[float, float]:
    """Exact 95 % interval of a share; (0, 1) when `of` is 0."""
    from scipy.special import betaincinv

    low = float(betaincinv(count, of - count + 1, 0.025)) if count > 0 else 0.0
    high = float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0
    return low, high


def false_accept(tallies: Iterable[AuditTally]) -> Rate:
    """Of the accepted replies, the share that is bad.

    Replies whose auditor gave none say nothing and are left out.
    """
    found = [t for t in tallies if t.accepted and t.method is not AuditMethod.FAILURE]
    bad = [t for t in found if t.verdict is AuditVerdict.BAD]
    return _rate(found, bad, [t for t in found if t.verdict is AuditVerdict.UNKNOWN])


def false_escalate(tallies: Iterable[AuditTally]) -> Rate:
    """Of the replies that a judgement of their content sent on, the share that need not have been.

    That is one that the audit verifier found good or, without one, that gave the answer of the accepted reply
    which replaced it. One with another answer counts as rightly sent on.
    """
    found = [t for t in tallies if not t.accepted and t.method is not AuditMethod.FAILURE]
    needless = [t for t in found if t.verdict is AuditVerdict.GOOD]
    unclear = [t for t in found if t.verdict is AuditVerdict.UNKNOWN and t.method is AuditMethod.VERIFIER]
    return _rate(found, needless, unclear)


def _rate(found: Sequence[AuditTally], bad: Sequence[AuditTally], unclear: Sequence[AuditTally]) -> Rate:
    whole, squares = _weight(found), math.fsum(t.weight_squared for t in found)
    if whole <= 0 or squares <= 0:
        return Rate(0.0, 0.0, 1.0, 0, 0, 0, 0.0)
    effective = whole * whole / squares
    least, most = _weight(bad) / whole, (_weight(bad) + _weight(unclear)) / whole
    decided = whole - _weight(unclear)
    return Rate(
        value=_weight(bad) / decided if decided > 0 else 0.0,
        low=clopper_pearson(least * effective, effective)[0],
        high=clopper_pearson(min(most, 1.0) * effective, effective)[1],
        n=sum(t.count for t in found),
        bad=sum(t.count for t in bad),
        undetermined=sum(t.count for t in unclear),
        effective=effective,
    )


def _weight(tallies: Iterable[AuditTally]) -> float:
    return math.fsum(t.weight for t in tallies)
