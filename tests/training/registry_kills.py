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
    """How many points were killed at. `current` must be one of the two, whole, and a second try must finish."""
    points = 0
    while True:
        with tempfile.TemporaryDirectory() as folder:
            registry = prepared(Path(folder))
            ended = in_child(lambda: (die_at_change(points + 1, folder), work(registry))[1])
            assert ended in (0, 9), ended
            check(registry, (before, after))
            if ended == 0:
                assert registry.current() == after
                return points
            if registry.current() == before:
                assert in_child(lambda: work(registry)) == 0
            check(registry, (after,))
            publish(registry, "v9")
            check(registry, ("v9",))
        points += 1


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
