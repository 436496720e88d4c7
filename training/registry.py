"""The model registry: a folder, a pointer file, and no moment at which `current` is absent.

    models/
      versions/<version>/   the model's files, entry.json, night.json; immutable once it is there
      current               text: the version that serves, then those it replaced, newest first
      history.jsonl         what happened and when, one JSON object a line; for people
      staging/              half-built versions; never looked at, emptied by the next night
      night.lock  switch.lock

**The service reads `current`:** its first line names the version; `versions/<version>` is the directory
to load. A version is complete when its name exists, because it is built in `staging/`, flushed to disk
and then renamed; `current` is replaced by a rename too. A kill at any point leaves the old pointer or
the new one. Names are checked and symbolic links refused, so that neither file leads elsewhere.

**Two locks** (fcntl, released when the process dies): `night.lock` is held by a whole night, so that
two nights cannot run at once; `switch.lock` for the milliseconds of a publish or rollback, so that a
rollback never waits for a training run.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.disk import RegistryError, flush, flush_tree, read_text, real, write

__all__ = ["CurrentChanged", "Entry", "Event", "LockHeld", "NoPrevious", "Registry", "RegistryError"]

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POINTER_LIMIT = 64 * 1024
_HISTORY_LIMIT = 8 * 1024 * 1024


class LockHeld(RegistryError):
    """Another process is at it."""


class NoPrevious(RegistryError):
    """There is no earlier version to roll back to."""


class CurrentChanged(RegistryError):
    """`current` is not what it was when the model was judged against it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the registry knows of a version. `sequence` orders versions; `metrics` are the gate's figures."""

    version: str
    sequence: int
    created_at_s: float
    champion: str
    fingerprint: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the history: `published`, `rolled_back` or `pruned`."""

    at_s: float
    event: str
    version: str
    previous: str = ""


class Registry:
    """One folder of models. Reading needs no lock. `step` is told each thing done on disk, before it is done."""

    def __init__(self, root: Path, *, keep: int = 10, step: Callable[[str], None] = lambda _: None) -> None:
        if keep < 2:
            raise ValueError("keep must be at least 2: the current version and the one to roll back to")
        self.root = root
        self._keep = keep
        self._step = step

    # --- reading -----------------------------------------------------------------------------

    def current(self) -> str | None:
        """The version that serves; None before the first one."""
        lineage = self.lineage()
        return lineage[0] if lineage else None

    def lineage(self) -> tuple[str, ...]:
        """The current version and those it replaced, newest first."""
        names = read_text(self.root / "current", _POINTER_LIMIT).split()
        for name in names:
            _check_name(name)
        return tuple(names)

    def versions(self) -> list[Entry]:
        """Every complete version, oldest first."""
        folder = self._versions()
        names = [item.name for item in os.scandir(folder) if item.is_dir(follow_symlinks=False)] if real(folder) else []
        entries = [self._entry(name) for name in names if _VERSION.fullmatch(name)]
        return sorted((entry for entry in entries if entry), key=lambda entry: (entry.sequence, entry.version))

    def path(self, version: str) -> Path:
        """The version's directory; RegistryError when there is none."""
        _check_name(version)
        directory = self._versions() / version
        if not real(directory):
            raise RegistryError(f"there is no version {version} in {self.root}")
        return directory

    def history(self) -> list[Event]:
        """What happened, oldest first. A line torn by a kill is left out."""
        events = []
        for line in read_text(self.root / "history.jsonl", _HISTORY_LIMIT).splitlines():
            try:
                events.append(Event(**json.loads(line)))
            except (ValueError, TypeError):
                continue
        return events

    def was_current(self, version: str) -> bool:
        """Whether the version serves, or ever did."""
        return version in self.lineage() or any(
            version == event.version and event.event == "published" for event in self.history()
        )

    def _versions(self) -> Path:
        folder = self.root / "versions"
        if folder.is_symlink():
            raise RegistryError(f"{folder} is a symbolic link")
        return folder

    def _entry(self, version: str) -> Entry | None:
        try:
            return Entry(**json.loads(read_text(self.path(version) / "entry.json", _POINTER_LIMIT)))
        except (ValueError, TypeError, RegistryError):
            return None  # not one that this registry made

    # --- writing -----------------------------------------------------------------------------

    @contextmanager
    def night(self) -> Iterator[Path]:
        """Holds the night's lock and gives an empty directory to build a version in. LockHeld when taken."""
        with self._lock("night.lock"):
            staging = self.root / "staging"
            if staging.is_symlink():
                raise RegistryError(f"{staging} is a symbolic link")
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)

    def publish(self, built: Path, entry: Entry, *, expected: str | None, now_s: float) -> None:
        """Make the directory `built` (inside `night()`'s) the current version.

        `expected` is the current version that it was judged against: CurrentChanged if it is not any
        more (somebody rolled back meanwhile). A version of this name that a killed night left behind
        is taken as it is.
        """
        _check_name(entry.version)
        versions = self._versions()
        versions.mkdir(exist_ok=True)
        target = versions / entry.version
        if not real(target):
            numbered = {**asdict(entry), "sequence": 1 + max((known.sequence for known in self.versions()), default=0)}
            (built / "entry.json").write_text(json.dumps(numbered, indent=2, sort_keys=True) + "\n", encoding="utf-8")
            self._step("publish: flush")
            flush_tree(built)
        with self._lock("switch.lock"):
            if self.current() != expected:
                raise CurrentChanged(
                    f"current is {self.current()}, not {expected}: the model was not judged against it"
                )
            if not real(target):
                self._step("publish: rename")
                built.rename(target)
                flush(versions)
            lineage = self.lineage()
            self._switch((entry.version, *(name for name in lineage if name != entry.version))[: self._keep])
            self._record(Event(now_s, "published", entry.version, expected or ""))
            self._prune(now_s)

    def rollback(self, *, now_s: float) -> tuple[str, str]:
        """Return to the version before the current one: (left, serving now). NoPrevious when there is none."""
        with self._lock("switch.lock"):
            lineage = self.lineage()
            usable = [name for name in lineage[1:] if real(self._versions() / name)]
            if not usable:
                raise NoPrevious(f"{lineage[0] if lineage else 'nothing'} is current and nothing is before it")
            self._switch(tuple(usable))
            self._record(Event(now_s, "rolled_back", lineage[0], usable[0]))
            return lineage[0], usable[0]

    def _switch(self, lineage: tuple[str, ...]) -> None:
        self._step("switch: write")
        fresh = self.root / "current.new"
        write(fresh, "".join(f"{name}\n" for name in lineage))
        self._step("switch: rename")
        fresh.rename(self.root / "current")
        flush(self.root)
        self._step("switch: done")

    def _record(self, event: Event) -> None:
        path = self.root / "history.jsonl"
        torn = read_text(path, _HISTORY_LIMIT)[-1:] not in ("", "\n")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(descriptor, ("\n" * torn + json.dumps(asdict(event)) + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _prune(self, now_s: float) -> None:
        """Delete all but the newest `keep` versions and those that can be rolled back to."""
        kept = {entry.version for entry in self.versions()[-self._keep :]} | set(self.lineage())
        for entry in self.versions():
            if entry.version not in kept:
                self._step("prune: rename")
                doomed = self.root / "staging" / f"pruned-{entry.version}"
                doomed.parent.mkdir(exist_ok=True)
                self.path(entry.version).rename(doomed)
                self._step("prune: delete")
                shutil.rmtree(doomed)
                self._record(Event(now_s, "pruned", entry.version))

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self.root / name
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RegistryError(f"{path} cannot be opened: {error.strerror}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 32).decode(errors="replace").strip()
                raise LockHeld(
                    f"{path} is held by process {holder or 'unknown'}; it is released when that ends"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(descriptor)


def _check_name(version: str) -> None:
    if not _VERSION.fullmatch(version):
        raise RegistryError(f"{version!r} is not a version name: letters, digits and . _ - only, 1 to 64 of them")
