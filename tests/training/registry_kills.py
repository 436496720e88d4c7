"""Driver of `test_registry.py`: a publish, a rollback and a pruning publish, killed before every change on disk."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.kill import die_at_change, in_child
from training.registry import Entry, Registry


def publish(registry: Registry, version: str) -> None:
    with registry.night() as staging:
        if registry.was_current(version):
            return
        built = staging / "model"
        built.mkdir()
        (built / "manifest.json").write_text(version)
        entry = Entry(version, 0, 0.0, registry.current() or "", "f")
        registry.publish(built, entry, expected=registry.current(), now_s=1.0)


def prepared(root: Path) -> Registry:
    registry = Registry(root, keep=2)
    for version in ("v1", "v2"):
        publish(registry, version)
    return registry


def sweep(work: Callable[[Registry], None], before: str, after: str) -> int:
    """How many points were killed at: all of them, until the work gets through."""
    points = 0
    while killed_at(points + 1, work, before, after):
        points += 1
    return points


def killed_at(k: int, work: Callable[[Registry], None], before: str, after: str) -> bool:
    """Whether there is a k-th change to die at. `current` must be whole, and a second try must finish."""
    with tempfile.TemporaryDirectory() as folder:
        registry = prepared(Path(folder))

        def doomed() -> None:
            die_at_change(k, folder)
            work(registry)

        ended = in_child(doomed)
        assert ended in (0, 9), ended
        check(registry, (before, after))
        if registry.current() == before:
            assert ended == 9
            assert in_child(lambda: work(registry)) == 0
        check(registry, (after,))
        publish(registry, "v9")
        check(registry, ("v9",))
        return ended == 9


def check(registry: Registry, allowed: tuple[str, ...]) -> None:
    current = registry.current()
    assert current in allowed, (current, allowed)
    assert (registry.path(current) / "manifest.json").read_text() == current
    for entry in registry.versions():
        assert (registry.path(entry.version) / "manifest.json").read_text() == entry.version
    for event in registry.history():
        assert event.event in ("published", "rolled_back", "pruned")


if __name__ == "__main__":
    published = sweep(lambda registry: publish(registry, "v3"), "v2", "v3")
    rolled_back = sweep(lambda registry: registry.rollback(now_s=2.0) and None, "v2", "v1")
    sys.stdout.write(f"{published} {rolled_back}\n")
