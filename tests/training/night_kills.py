"""Driver of `test_nightly.py`: a night that replaces a champion, killed as each of its steps begins."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.kill import die, in_child
from tests.support.nights import START_S, FixedLearner, Log, World
from training.nightly import NightSettings, run_night
from training.progress import Silent
from training.registry import Registry
from training.results import Night

RECORDS = World(feedback=1.0, caught=1.0, start="sonnet").log(1000, seed=5)
FIRST, SECOND = 900, 1000  # requests of the two nights


class Mortal(Silent):
    """Dies as the k-th step begins; keeps the names of those before."""

    def __init__(self, k: int = 0) -> None:
        self.k = k
        self.names: list[str] = []

    def step(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self.k:
            die()


def night(root: Path, records: int, learner: str, progress: Mortal, *, report: bool = False) -> Night:
    return run_night(
        Log(RECORDS[:records]),
        Registry(root, step=progress.step),
        FixedLearner(learner),
        NightSettings(seed=3),
        now_s=START_S + 86_400,
        progress=progress,
        report=root / "report.html" if report else None,  # the slowest step, so only where it is looked at
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        before, models = Path(folder) / "before", Path(folder) / "models"
        first = night(before, FIRST, "careful", Mortal())
        assert first.result == "published", first.reasons
        shutil.copytree(before, models)
        second = night(models, SECOND, "good", steps := Mortal())
        assert second.result == "published", second.reasons
        for k, name in enumerate(steps.names, start=1):
            shutil.rmtree(models)
            shutil.copytree(before, models)
            kill_at(models, k, name, first.version, second.version, report=k == len(steps.names))
    sys.stdout.write("\n".join(steps.names) + "\n")


def kill_at(models: Path, k: int, name: str, old: str, new: str, *, report: bool) -> None:
    assert in_child(lambda: night(models, SECOND, "good", Mortal(k), report=report) and None) == 9, name
    registry = Registry(models)
    current = registry.current()
    assert current in (old, new), (name, current)
    assert (registry.path(str(current)) / "manifest.json").exists(), name
    again = night(models, SECOND, "good", Mortal(), report=report)
    assert again.result == ("published" if current == old else "nothing_to_do"), (name, again.reasons)
    assert registry.current() == new
    assert [entry.version for entry in registry.versions()] == [old, new]
    assert not report or new in (models / "report.html").read_text()
    assert registry.rollback(now_s=0.0) == (new, old)


if __name__ == "__main__":
    main()
