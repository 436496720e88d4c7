"""One file of a journal: made, locked, appended to, taken over, removed. Blocking; every function may raise OSError."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from router import frames

SUFFIX: Final = ".outcomes"
UNREADABLE: Final = ".unreadable"  # whole frames of another version: kept for it


@dataclass(slots=True)
class Segment:
    """One file, locked by this process. `outcomes` waiting in it; `pending` payloads once it is being read."""

    path: Path
    fd: int
    size: int = 0
    outcomes: int = 0
    pending: deque[bytes] | None = field(default=None, repr=False)
    unreadable: int = 0
    torn: bool = False

    def append(self, data: bytes, outcomes: int, *, sync: bool) -> None:
        """Write it all. Where that fails the segment is as it was, or else `torn` and to be used no more."""
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.fd, left) :]
            if sync:
                os.fdatasync(self.fd)
        except OSError:
            try:
                os.ftruncate(self.fd, self.size)
            except OSError:
                self.torn = True
            raise
        self.size += len(data)
        self.outcomes += outcomes

    def remove(self) -> None:
        """Delete the file; where that cannot be, it is drained again by the next process, to no effect."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self.fd)

    def set_aside(self) -> None:
        """Keep the file for a version that can read it."""
        with contextlib.suppress(OSError):
            self.path.rename(self.path.with_name(self.path.name + UNREADABLE))
        os.close(self.fd)


def make(folder: Path) -> Segment:
    """A new segment, locked. Its name sorts by time, so that those of several processes are drained about in order."""
    path = folder / f"{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
    unlocked = path.with_name(f"{path.name}.new")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(path)  # nobody takes it over before it is locked
    except OSError:
        os.close(fd)
        raise
    return Segment(path, fd)


def take_over(path: Path) -> Segment | None:
    """The segment, locked; None while its process lives, or when it was drained meanwhile."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink == 0:
            os.close(fd)
            return None
        found = content(fd)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return Segment(path, fd, len(found), len(frames.scan(found).payloads))


def content(fd: int) -> bytes:
    """All of an open file."""
    parts, at = [], 0
    while part := os.pread(fd, 1 << 20, at):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
