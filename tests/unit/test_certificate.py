"""What a certificate means for a request, and that a manifest's is refused unless it is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from router.certificate import (
    NEVER,
    Certificate,
    Promise,
    State,
    Threshold,
    TierCertificate,
    from_json,
    standing,
    to_json,
)
from tests.support.certificates import certificate, certified, infeasible, not_certified

TIERS = ("haiku", "sonnet", "opus")
PROMISE = Promise(false_accept_max=0.05)


def test_a_certified_tier_is_taken_at_its_word_from_its_threshold() -> None:
    found = standing(PROMISE, certificate(haiku=certified(0.8, direct=0.9)), {}, TIERS)
    assert (found.accept["haiku"], found.direct["haiku"], found.barred("haiku")) == (0.8, 0.9, False)
    assert found.words["haiku"].startswith("haiku certified from P(good) 0.80: at most 3.0% bad with 95% confidence")


def test_an_infeasible_tier_is_barred_and_an_unknown_one_is_not() -> None:
    found = standing(PROMISE, certificate(haiku=infeasible(), sonnet=not_certified(12, 86)), {}, TIERS)
    assert found.barred("haiku")
    assert found.direct["haiku"] == NEVER
    assert found.words["haiku"].startswith("haiku infeasible, start higher")
    assert not found.barred("sonnet")
    assert found.words["sonnet"] == "sonnet not certified: 12 of 86 judged replies needed"


def test_a_suspended_tier_is_barred_whatever_was_certified_and_promised() -> None:
    for promise, given in ((PROMISE, certificate(haiku=certified(0.8))), (Promise(), None)):
        found = standing(promise, given, {"haiku": "its replies are judged bad more often"}, TIERS)
        assert found.barred("haiku")
        assert found.words["haiku"] == "haiku suspended: its replies are judged bad more often"


def test_the_highest_tier_that_may_answer_needs_no_certificate() -> None:
    found = standing(PROMISE, certificate(haiku=infeasible(), sonnet=infeasible()), {"sonnet": "drift"}, TIERS[:2])
    assert set(found.accept) == {"haiku"}


def test_without_a_promise_a_certificate_binds_nobody() -> None:
    assert standing(Promise(), certificate(haiku=infeasible()), {}, TIERS).accept == {}


@pytest.mark.parametrize(
    ("promise", "kept"),
    [
        (Promise(0.05, 0.95), True),
        (Promise(0.10, 0.90), True),
        (Promise(0.04, 0.95), False),  # stricter than what was tested
        (Promise(0.05, 0.99), False),
        (Promise(mistake_cost_usd=0.1), False),  # alpha was given, not made from a cost
    ],
)
def test_a_certificate_of_a_weaker_promise_is_none(promise: Promise, *, kept: bool) -> None:
    given = certificate(haiku=certified(0.8))
    assert promise.kept_by(given) is kept
    assert ("haiku" in standing(promise, given, {}, TIERS).accept) is kept


def test_a_dearer_mistake_than_the_certificate_was_made_for_needs_a_new_one() -> None:
    given = replace(certificate(haiku=certified(0.8)), mistake_cost_usd=0.1)
    assert Promise(mistake_cost_usd=0.1).kept_by(given)
    assert not Promise(mistake_cost_usd=0.2).kept_by(given)


def test_alpha_follows_from_what_a_mistake_and_asking_on_cost() -> None:
    assert Promise(mistake_cost_usd=0.1).alpha(0.002) == pytest.approx(0.02)
    assert Promise(mistake_cost_usd=0.001).alpha(0.002) == 1.0
    assert Promise(false_accept_max=0.03, mistake_cost_usd=0.1).alpha(0.002) == 0.03


# --- in the manifest -------------------------------------------------------------------------


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(to_json({"triage": certificate(haiku=certified(0.8))})))
    return made


def test_what_is_written_is_read() -> None:
    assert from_json(document()) == {"triage": certificate(haiku=certified(0.8))}


@pytest.mark.parametrize(
    ("damage", "path"),
    [
        (lambda d: d["triage"].pop("confidence"), "triage"),
        (lambda d: d["triage"].update(confidence=1.5), "triage.confidence"),
        (lambda d: d["triage"].update(tiers=[]), "triage.tiers"),
        (lambda d: d["triage"]["tiers"].update({str(i): {} for i in range(65)}), "triage.tiers"),
        (lambda d: d["triage"]["tiers"]["haiku"].update(extra=1), "triage.haiku"),
        (lambda d: d["triage"]["tiers"]["haiku"].update(since_s=-1.0), "triage.haiku.since_s"),
        (lambda d: d["triage"]["tiers"]["haiku"]["accept"].update(value=float("nan")), "triage.haiku.accept.value"),
        (lambda d: d["triage"]["tiers"]["haiku"]["accept"].update(value=True), "triage.haiku.accept.value"),
        (lambda d: d["triage"]["tiers"]["haiku"]["accept"].update(n=1e300), "triage.haiku.accept.n"),
        (lambda d: d["triage"]["tiers"]["haiku"]["direct"].update(state="maybe"), "triage.haiku.direct.state"),
        (lambda d: d.update({"w" * 65: {}}), "certificates"),
        (lambda d: d.update({str(i): {} for i in range(1_001)}), "certificates"),
    ],
)
def test_what_is_not_as_it_was_written_is_refused_by_its_path(
    damage: Callable[[dict[str, Any]], object], path: str
) -> None:
    broken = document()
    damage(broken)
    with pytest.raises(ValueError, match=f"^{path}"):
        from_json(broken)


def test_no_threshold_is_ever_above_one_but_never() -> None:
    assert Threshold(State.INFEASIBLE, 0.0, 100, 50, 86, 0.6).at_least == NEVER
    assert Certificate(0.95).tiers == {}
    assert isinstance(certified(0.8), TierCertificate)
