"""Certificates for tests."""

from __future__ import annotations

from router.certificate import Certificate, State, Threshold, TierCertificate


def certified(accept: float, *, direct: float = 0.95, allowed: float = 0.05) -> TierCertificate:
    """A tier that passed at these thresholds."""

    def threshold(value: float) -> Threshold:
        return Threshold(State.CERTIFIED, value, 400, 5, 86, 0.03)

    return TierCertificate(allowed, threshold(accept), threshold(direct), 1_000.0, 2_000.0)


def infeasible(*, allowed: float = 0.05) -> TierCertificate:
    """A tier for which no threshold passed."""
    none = Threshold(State.INFEASIBLE, 0.0, 400, 100, 86, 0.29)
    return TierCertificate(allowed, none, none, 1_000.0, 2_000.0)


def not_certified(n: int, needed: int, *, allowed: float = 0.05) -> TierCertificate:
    """A tier with too little evidence."""
    none = Threshold(State.NOT_CERTIFIED, 0.0, n, 0, needed, 0.3)
    return TierCertificate(allowed, none, none, 1_000.0, 2_000.0)


def certificate(**tiers: TierCertificate) -> Certificate:
    """With 95 % confidence."""
    return Certificate(0.95, 0.0, tiers)
