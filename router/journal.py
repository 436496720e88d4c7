"""Where outcomes wait while the store cannot take them: append-only files, read back in the order written.

A journal is a folder of segments. A process appends to segments of its own, which it holds locked for as
long as it lives, and takes over those whose process is gone: what a killed process left behind is drained by the
next one, and several processes may share a folder. A drained segment is deleted; what was drained of the others
is not noted down, because a store leaves an id that it has as it was.

What `write` took survives the death of the process at any point. Against power loss there is `sync`; without it
the last seconds may go, as with the SQLite store's last commits.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from router import frames, segments
from router.outcome import Outcome
from router.segments import Segment
from router.store import StoreError, Unstorable

SEGMENT_BYTES: Final = 4 << 20  # a segment is read whole when it is drained
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What lies in a journal's folder."""

    outcomes: int
    size_bytes: int
    damaged: int


class Journal:
    """Bounded, blocking, and safe to use from several threads; one of them drains.

    `max_bytes` bounds what this process appends to and has taken over. Raises StoreError with code `path`
    when the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, max_bytes: int, sync: bool = False) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._sync = sync
        self._lock = threading.Lock()
        self._sealed: deque[Segment] = deque()
        self._active: Segment | None = None
        self._closed = False
        self._depth = self._size = self._damaged = self._unreadable = 0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _FULL:
                raise StoreError("path", f"the journal's folder {folder}: {error.strerror}") from None
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError("path", f"the journal's folder {folder} cannot be written to")
        self.adopt()

    # --- what there is -------------------------------------------------------------------------

    @property
    def depth(self) -> int:
        """Outcomes that wait."""
        return self._depth

    @property
    def size_bytes(self) -> int:
        """Bytes of the segments that this process holds."""
        return self._size

    @property
    def damaged(self) -> int:
        """Stretches that could not be read: an outcome or more each, or one that was cut off unacknowledged."""
        return self._damaged

    @property
    def unreadable(self) -> int:
        """Whole frames that this version cannot decode; their segments stay in the folder, renamed."""
        return self._unreadable

    # --- writing -------------------------------------------------------------------------------

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """Append all or none.

        Raises Unstorable when one of them can never be stored, StoreError `journal_full` when the bound is
        reached, and StoreError with errno's name (`enospc`, `eio`) when the disk would not have them.
        """
        try:
            data = b"".join(frames.encode(one) for one in outcomes)
        except (ValueError, OverflowError):
            raise Unstorable("value") from None
        with self._lock:
            if self._closed:
                raise StoreError("closed")
            if self._size + len(data) > self._max_bytes:
                raise StoreError("journal_full")
            try:
                segment = self._active = self._active or segments.make(self._folder)
                segment.append(data, len(outcomes), sync=self._sync)
            except OSError as error:
                if self._active is not None and self._active.torn:
                    self._seal()
                raise StoreError(_code(error)) from None
            self._size += len(data)
            self._depth += len(outcomes)
            if segment.size >= SEGMENT_BYTES:
                self._seal()

    def _seal(self) -> None:
        if self._active is not None:
            self._sealed.append(self._active)
            self._active = None

    # --- draining ------------------------------------------------------------------------------

    def peek(self, count: int) -> list[Outcome]:
        """The oldest outcomes, at most `count` of them; empty when nothing waits.

        Frames that cannot be decoded are left out, and counted. Raises StoreError when the disk cannot be read.
        """
        with self._lock:
            while not self._closed:
                if not self._sealed:
                    self._seal()
                if not self._sealed:
                    return []
                segment = self._sealed[0]
                try:
                    found = self._next(segment, count)
                except OSError as error:
                    self._sealed.rotate(-1)  # the others first
                    raise StoreError(_code(error)) from None
                if found:
                    return found
                self._sealed.popleft()
                self._finish(segment)
        return []

    def drop(self, count: int) -> None:
        """Forget the first `count` outcomes of what `peek` gave last: the store has them, or never will."""
        with self._lock:
            if self._closed or not count:
                return
            segment = self._sealed[0]
            assert segment.pending is not None
            for _ in range(count):
                segment.pending.popleft()
            self._count(segment, count)

    def _next(self, segment: Segment, count: int) -> list[Outcome]:
        if segment.pending is None:
            content = segments.content(segment.fd)
            found = frames.scan(content)
            self._damaged += found.damaged
            segment.pending = deque(content[begin:end] for begin, end in found.payloads)
            self._count(segment, segment.outcomes - len(segment.pending))
        outcomes: list[Outcome] = []
        while len(outcomes) < min(count, len(segment.pending)):
            try:
                outcomes.append(frames.decode(segment.pending[len(outcomes)]))
            except frames.Unreadable:
                del segment.pending[len(outcomes)]
                segment.unreadable += 1
                self._unreadable += 1
                self._count(segment, 1)
        return outcomes

    def _count(self, segment: Segment, gone: int) -> None:
        segment.outcomes -= gone
        self._depth -= gone

    def _finish(self, segment: Segment) -> None:
        """Everything in it is drained, or cannot be read."""
        self._size -= segment.size
        self._count(segment, segment.outcomes)
        if segment.unreadable:
            segment.set_aside()
        else:
            segment.remove()

    def adopt(self) -> None:
        """Take over the segments whose process is gone. Raises StoreError when the folder cannot be read."""
        with self._lock:
            if self._closed:
                return
            held = {segment.path.name for segment in self._sealed}
            held |= {self._active.path.name} if self._active is not None else set()
            try:
                for path in sorted(self._folder.glob(f"*{segments.SUFFIX}")):
                    segment = None if path.name in held else segments.take_over(path)
                    if segment is not None:
                        self._sealed.append(segment)
                        self._size += segment.size
                        self._depth += segment.outcomes
            except OSError as error:
                raise StoreError("path", f"the journal's folder cannot be read: {error.strerror}") from None

    def close(self) -> None:
        """Give up the locks; what waits is for the next process. Idempotent."""
        with self._lock:
            self._closed = True
            self._seal()
            for segment in self._sealed:
                if segment.outcomes:
                    os.close(segment.fd)
                else:
                    segment.remove()
            self._sealed.clear()


def survey(folder: Path) -> Waiting:
    """What waits in a journal's folder, whoever holds it; nothing where there is none."""
    outcomes = size = damaged = 0
    for path in sorted(folder.glob(f"*{segments.SUFFIX}")):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # drained meanwhile
            continue
        found = frames.scan(content)
        outcomes += len(found.payloads)
        size += len(content)
        damaged += found.damaged
    return Waiting(outcomes, size, damaged)


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "oserror").lower()
