from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from router.outcome import AuditMethod, AuditVerdict
from router.store import AuditTally
from tests.support.certificates import certificate, certified, infeasible
from tests.support.nights import START_S, FixedLearner, Log, World
from tests.unit.test_stats import workload
from training.audited import audited
from training.nightly import NightSettings, run_night
from training.registry import Registry
from training.report import headline, render, write_report
from training.results import Night

EVIL = '<script>alert("x")</script>$x$&"\''


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Night:
    root = tmp_path_factory.mktemp("models")
    for records, learner in ((1900, "careful"), (2000, "good")):
        log = Log(World(feedback=1.0, caught=1.0, start="sonnet", labels={"simulated": "true"}).log(records, seed=5))
        night = run_night(log, Registry(root), FixedLearner(learner), NightSettings(), now_s=START_S + 86_400)
    assert night.result == "published"
    return night


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_it_needs_nothing_from_anywhere(published: Night) -> None:
    html = render(published)
    elements = Elements(html)
    assert not {tag for tag, _ in elements.tags} & {"script", "link", "img", "iframe", "object", "embed", "base"}
    for _, attributes in elements.tags:
        for name in ("href", "xlink:href", "src", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"url\((?!#)|@import|https?:", html)


def test_it_says_what_happened_and_shows_every_policy(published: Night) -> None:
    html = render(published)
    text = Elements(html).text
    assert headline(published) in text
    assert headline(published).startswith(f"Published {published.version} in place of {published.champion}: ")
    assert published.evaluation is not None
    for each in published.evaluation.results:
        assert each.name in text
        assert f"{each.support:,}" in text
    for reason in published.reasons:
        assert reason in text
    assert html.count("<svg") == 3


def test_what_is_certified_is_in_the_report(published: Night) -> None:
    certificates = {
        "easy": certificate(haiku=certified(0.84), sonnet=infeasible()),
        EVIL: certificate(haiku=certified(0.5)),
    }
    html = render(replace(published, certificates=certificates, recertified="v1.c1234"))
    text = Elements(html).text
    assert "What is certified" in text
    assert "0.84" in text
    assert text.count("infeasible: start higher") == 2  # to accept, and for DIRECT
    assert "serves as v1.c1234" in text
    assert EVIL in text
    assert EVIL not in html
    assert "What is certified" not in Elements(render(published)).text


def test_what_audits_found_is_in_the_night_and_in_its_report(published: Night) -> None:
    log = Log([])
    found = AuditTally("haiku", True, AuditMethod.JUDGE, AuditVerdict.GOOD, 95, 1900.0, 38_000.0, 0.25)
    bad = replace(found, verdict=AuditVerdict.BAD, count=5, weight=100.0, weight_squared=2_000.0)
    log.workloads = [workload(audits=(found, bad)), workload(workload="quiet")]
    night = replace(published, audits=audited(log, 0.0))
    assert [each.workload for each in night.audits] == ["triage"]
    text = Elements(render(night)).text
    for expected in ("What audits found", "5.0% [1.6%, 11.3%]", "not measured", "$0.5"):
        assert expected in text, expected
    assert "What audits found" not in render(published)


def test_simulated_data_are_labelled_everywhere(published: Night) -> None:
    assert "Simulated data." in render(published)
    real = replace(published, data=replace(published.data, simulated=False))
    assert "imulated" not in render(real)


def test_it_is_readable_in_the_light_and_in_the_dark(published: Night) -> None:
    html = render(published)
    assert "prefers-color-scheme: dark" in html
    svg = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--challenger)" in svg
    assert not re.search(r"#0101", svg)
    assert not re.search(r"(?:fill|stroke): #(?!none)", svg)


def test_whatever_a_name_says_it_stays_text(published: Night) -> None:
    assert published.evaluation is not None
    evil = replace(
        published,
        version=EVIL,
        champion=EVIL,
        reasons=(EVIL,),
        thresholds={EVIL: 0.5},
        data=replace(published.data, labels={EVIL: {EVIL: 3}}, skipped={EVIL: 1}, fingerprint=EVIL),
        evaluation=replace(
            published.evaluation,
            results=tuple(replace(each, name=EVIL, mix={EVIL: 1.0}) for each in published.evaluation.results),
            differences=tuple(replace(each, versus=EVIL) for each in published.evaluation.differences),
            calibration=tuple(replace(each, tier=EVIL) for each in published.evaluation.calibration),
            escalation=tuple(replace(each, workload=EVIL, start=EVIL) for each in published.evaluation.escalation),
            notes=(EVIL,),
        ),
    )
    html = render(evil)
    assert "script" not in {tag for tag, _ in Elements(html).tags}
    assert EVIL not in html
    assert EVIL in Elements(html).text
    svg = html[html.index("<svg") : html.rindex("</svg>")]
    assert EVIL in Elements(svg).text  # dollar signs are not read as mathematics


def test_ids_are_unique(published: Night) -> None:
    ids = [attributes["id"] for _, attributes in Elements(render(published)).tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_same_night_gives_the_same_bytes(published: Night) -> None:
    assert render(published) == render(published)


@pytest.mark.parametrize("n", [0, 100])
def test_a_night_without_enough_data_has_a_report_too(tmp_path: Path, n: int) -> None:
    night = run_night(Log(World().log(n)), Registry(tmp_path), FixedLearner(), NightSettings(), now_s=START_S + 86_400)
    text = Elements(render(night)).text
    assert headline(night).startswith("Refused, the static plans stay: too little data")
    assert headline(night) in text
    assert ("There were no outcomes to learn from." in text) is (n == 0)


def test_the_other_headlines(published: Night) -> None:
    refused = replace(published, result="refused", reasons=("worse than the champion",))
    assert headline(refused) == f"Refused, {published.champion} stays: worse than the champion."
    idle = replace(published, result="nothing_to_do", reasons=("nothing new",))
    assert headline(idle) == "Nothing to do: nothing new."
    first = replace(published, champion="", evaluation=None)
    assert headline(first) == f"Published {published.version}, the first model."


def test_it_is_written_whole_or_not_at_all(published: Night, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(published, path)
    assert path.read_text(encoding="utf-8") == render(published)
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
