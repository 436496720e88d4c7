from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.training.registry_kills import publish
from training.registry import CurrentChanged, Entry, LockHeld, NoPrevious, Registry, RegistryError

REPOSITORY = Path(__file__).parents[2]


def test_an_empty_registry_has_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "none")
    assert (registry.current(), registry.lineage(), registry.versions(), registry.history()) == (None, (), [], [])
    with pytest.raises(NoPrevious):
        registry.rollback(now_s=0.0)


def test_publishing_makes_current_and_rolling_back_returns(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for version in ("v1", "v2", "v3"):
        publish(registry, version)
    assert registry.lineage() == ("v3", "v2", "v1")
    assert (tmp_path / "current").read_text().splitlines()[0] == "v3"
    assert registry.rollback(now_s=2.0) == ("v3", "v2")
    assert registry.rollback(now_s=3.0) == ("v2", "v1")
    with pytest.raises(NoPrevious, match="v1 is current"):
        registry.rollback(now_s=4.0)
    assert [entry.version for entry in registry.versions()] == ["v1", "v2", "v3"]
    assert [(event.event, event.version, event.previous) for event in registry.history()] == [
        ("published", "v1", ""),
        ("published", "v2", "v1"),
        ("published", "v3", "v2"),
        ("rolled_back", "v3", "v2"),
        ("rolled_back", "v2", "v1"),
    ]
    assert registry.was_current("v3")
    assert not registry.was_current("v4")


def test_what_was_rolled_back_is_not_returned_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for version in ("v1", "v2"):
        publish(registry, version)
    registry.rollback(now_s=2.0)
    publish(registry, "v3")
    assert registry.rollback(now_s=3.0) == ("v3", "v1")


def test_the_first_line_of_current_leads_to_the_models_directory(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    publish(registry, "v1")
    assert registry.path("v1") == tmp_path / "versions" / "v1"
    assert (registry.path("v1") / "manifest.json").read_text() == "v1"
    assert not (tmp_path / "staging").exists()


def test_old_versions_are_pruned_but_never_one_that_can_be_rolled_back_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path, keep=3)
    for version in ("v1", "v2", "v3", "v4", "v5"):
        publish(registry, version)
    assert [entry.version for entry in registry.versions()] == ["v3", "v4", "v5"]
    assert registry.lineage() == ("v5", "v4", "v3")
    assert [event.version for event in registry.history() if event.event == "pruned"] == ["v1", "v2"]


def test_at_least_two_versions_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Registry(tmp_path, keep=1)


def test_a_model_is_not_published_over_a_rollback_that_came_between(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for version in ("v1", "v2"):
        publish(registry, version)
    with registry.night() as staging:
        judged_against = registry.current()
        registry.rollback(now_s=2.0)  # the night's lock does not keep it waiting
        (staging / "model").mkdir()
        with pytest.raises(CurrentChanged, match="current is v1, not v2"):
            registry.publish(staging / "model", Entry("v3", 0, 0.0, "v2", "f"), expected=judged_against, now_s=3.0)
    assert registry.current() == "v1"
    assert [entry.version for entry in registry.versions()] == ["v1", "v2"]


def test_half_built_versions_are_invisible(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    publish(registry, "v1")
    half = tmp_path / "versions" / "v2"
    half.mkdir()
    (half / "manifest.json").write_text("half")
    assert [entry.version for entry in registry.versions()] == ["v1"]


@pytest.mark.parametrize("content", ["[]", "{}", "{", '{"version": 1}', "\x00"])
def test_a_damaged_entry_hides_its_version_and_nothing_else(tmp_path: Path, content: str) -> None:
    registry = Registry(tmp_path)
    for version in ("v1", "v2"):
        publish(registry, version)
    (tmp_path / "versions" / "v1" / "entry.json").write_text(content)
    assert [entry.version for entry in registry.versions()] == ["v2"]


def test_a_torn_line_of_history_is_left_out_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    publish(registry, "v1")
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"at_s": 3, "ev')
    publish(registry, "v2")
    assert [event.version for event in registry.history()] == ["v1", "v2"]


# --- locks -----------------------------------------------------------------------------------


def test_two_nights_do_not_run_at_once(tmp_path: Path) -> None:
    with (
        Registry(tmp_path).night(),
        pytest.raises(LockHeld, match=f"held by process {os.getpid()}"),
        Registry(tmp_path).night(),
    ):
        pass
    with Registry(tmp_path).night():
        pass


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from training.registry import Registry\n"
        f"with Registry(Path({str(tmp_path)!r})).night(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockHeld, match=str(process.pid)), Registry(tmp_path).night():
            pass
        process.kill()
        process.wait()
    with Registry(tmp_path).night() as staging:
        assert list(staging.iterdir()) == []


# --- names and links -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "..", "../v1", "a/b", ".hidden", "v 1", "v" * 65, "v1\n"])
def test_a_name_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(RegistryError, match="not a version name"):
        registry.path(name)
    with registry.night() as staging, pytest.raises(RegistryError, match="not a version name"):
        registry.publish(staging, Entry(name, 0, 0.0, "", "f"), expected=None, now_s=0.0)


def test_a_pointer_that_names_a_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("../../etc\n")
    with pytest.raises(RegistryError, match="not a version name"):
        Registry(tmp_path).current()


def test_an_oversized_pointer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("v1\n" * 100_000)
    with pytest.raises(RegistryError, match="larger than"):
        Registry(tmp_path).current()


@pytest.mark.parametrize("linked", ["current", "history.jsonl", "night.lock", "switch.lock", "staging", "versions"])
def test_symbolic_links_are_not_followed(tmp_path: Path, linked: str) -> None:
    root, elsewhere = tmp_path / "models", tmp_path / "elsewhere"
    publish(Registry(root), "v1")
    if linked == "staging":
        elsewhere.mkdir()
        (elsewhere / "precious").touch()
    else:
        (root / linked).rename(elsewhere)
    (root / linked).symlink_to(elsewhere)
    before = sorted(str(path) for path in elsewhere.rglob("*"))
    with pytest.raises((RegistryError, OSError)):
        publish(Registry(root), "v2")
    assert sorted(str(path) for path in elsewhere.rglob("*")) == before


def test_a_linked_version_is_no_version(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    publish(registry, "v1")
    (tmp_path / "versions" / "v2").symlink_to(tmp_path / "versions" / "v1")
    assert [entry.version for entry in registry.versions()] == ["v1"]
    with pytest.raises(RegistryError, match="no version v2"):
        registry.path("v2")


def test_a_model_that_contains_a_link_is_not_published(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with registry.night() as staging:
        built = staging / "model"
        built.mkdir()
        (built / "weights.npz").symlink_to("/etc/hostname")
        with pytest.raises(RegistryError, match="symbolic link"):
            registry.publish(built, Entry("v1", 0, 0.0, "", "f"), expected=None, now_s=0.0)
    assert registry.current() is None


# --- kill -9 ---------------------------------------------------------------------------------


def test_killed_before_any_change_on_disk_current_is_the_old_version_or_the_new_one() -> None:
    driver = [sys.executable, "-m", "tests.training.registry_kills"]
    done = subprocess.run(driver, cwd=REPOSITORY, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    published, rolled_back = map(int, done.stdout.split())
    assert published >= 15
    assert rolled_back >= 4


# --- any sequence ----------------------------------------------------------------------------


class AnySequence(RuleBasedStateMachine):
    """Publishes, rollbacks and what a killed process leaves, against a list."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.registry = Registry(self.root, keep=3)
        self.lineage: list[str] = []
        self.made = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule()
    def publish(self) -> None:
        self.made += 1
        publish(self.registry, f"v{self.made}")
        self.lineage = [f"v{self.made}", *self.lineage][:3]

    @precondition(lambda self: self.made)
    @rule(back=st.integers(0, 5))
    def publish_again(self, back: int) -> None:
        publish(self.registry, f"v{max(1, self.made - back)}")

    @precondition(lambda self: len(self.lineage) >= 2)
    @rule()
    def roll_back(self) -> None:
        assert self.registry.rollback(now_s=1.0) == (self.lineage[0], self.lineage[1])
        del self.lineage[0]

    @precondition(lambda self: len(self.lineage) < 2)
    @rule()
    def roll_back_too_far(self) -> None:
        with pytest.raises(NoPrevious):
            self.registry.rollback(now_s=1.0)

    @rule()
    def leave_rubbish(self) -> None:
        (self.root / "staging").mkdir(exist_ok=True)
        (self.root / "staging" / "half").touch()
        (self.root / "current.new").write_text("v0\n")

    @invariant()
    def current_is_whole(self) -> None:
        assert self.registry.lineage() == tuple(self.lineage)
        versions = [entry.version for entry in self.registry.versions()]
        assert set(self.lineage) <= set(versions)
        assert len(versions) <= 6
        for version in versions:
            assert (self.registry.path(version) / "manifest.json").read_text() == version
        sequences = [json.loads((self.registry.path(v) / "entry.json").read_text())["sequence"] for v in versions]
        assert sequences == sorted(set(sequences))


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
