"""The journal's files: what is appended is read back in order, whatever happens to them meanwhile."""

from __future__ import annotations

import errno
import os
import random
import stat
import tempfile
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from router import frames, journal, segments
from router.journal import Journal, survey
from router.outcome import Outcome, RetainedText
from router.store import StoreError, Unstorable
from tests.support import outcomes as make


def drained(opened: Journal, *, at_a_time: int = 7) -> list[Outcome]:
    """Everything that waits, dropped as it is read."""
    found: list[Outcome] = []
    while group := opened.peek(at_a_time):
        found += group
        opened.drop(len(group))
    return found


def numbers(outcomes: list[Outcome]) -> list[int]:
    return [int(one.request_id, 16) for one in outcomes]


def one_segment(folder: Path) -> Path:
    (path,) = folder.glob("*.outcomes")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "new" / "journal"


def open_journal(folder: Path, *, max_bytes: int = 1 << 20) -> Journal:
    return Journal(folder, max_bytes=max_bytes)


# --- frames ----------------------------------------------------------------------------------


@given(make.outcomes())
def test_a_frame_holds_an_outcome_and_an_outcomes_row_again(outcome: Outcome) -> None:
    data = frames.encode(outcome)
    ((begin, end),) = frames.scan(data).payloads
    back = frames.decode(data[begin:end])
    assert make.comparable(back) == make.comparable(outcome)
    assert frames.encode(back) == data


def test_reply_content_is_in_no_frame() -> None:
    assert b"secret" not in frames.encode(make.outcome(attempts=[make.attempt(result=make.reply(text="secret"))]))


@pytest.mark.parametrize("bad", [{"cost_usd": float("nan")}, {"workload": "half \ud800"}])
def test_what_no_store_can_hold_is_refused_at_once(folder: Path, bad: dict[str, object]) -> None:
    opened = open_journal(folder)
    with pytest.raises(Unstorable):
        opened.write([make.outcome(1), replace(make.outcome(2), **bad)])  # type: ignore[arg-type]
    assert (opened.depth, opened.size_bytes, drained(opened)) == (0, 0, [])


def test_a_truncated_file_gives_a_prefix_at_every_byte() -> None:
    sizes, data = [0], b""
    for n in range(1, 6):
        data += frames.encode(make.outcome(n))
        sizes.append(len(data))
    for size in range(len(data)):
        found = frames.scan(data[:size])
        whole = sum(1 for end in sizes[1:] if end <= size)
        assert [end for _, end in found.payloads] == sizes[1 : whole + 1]
        assert found.damaged == (size not in sizes)


def test_a_flipped_bit_costs_one_frame_and_is_seen() -> None:
    encoded = [frames.encode(make.typical(n)) for n in range(1, 9)]
    data, rng = b"".join(encoded), random.Random(7)
    sound = {data[begin:end] for begin, end in frames.scan(data).payloads}
    for _ in range(1_000):
        content = bytearray(data)
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        found = frames.scan(bytes(content))
        payloads = [bytes(content[begin:end]) for begin, end in found.payloads]
        assert len(payloads) == len(encoded) - 1
        assert found.damaged == 1
        assert set(payloads) < sound


# --- order, bounds, files ----------------------------------------------------------------------


def test_what_is_written_is_read_in_order_across_segments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 4_000)
    opened = open_journal(folder)
    order = [n * 37 % 50 + 1 for n in range(50)]
    for n in order:
        opened.write([make.outcome(n)])
    assert opened.depth == 50
    assert len(list(folder.iterdir())) > 5
    assert numbers(opened.peek(3)) == numbers(opened.peek(3)) == order[:3]  # nothing is gone before it is dropped
    assert numbers(drained(opened)) == order
    assert (opened.depth, opened.size_bytes, list(folder.iterdir())) == (0, 0, [])


def test_writing_goes_on_while_it_is_drained(folder: Path) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(n) for n in (1, 2, 3)])
    assert numbers(opened.peek(2)) == [1, 2]
    opened.write([make.outcome(4)])
    opened.drop(2)
    assert numbers(drained(opened)) == [3, 4]


SLACK = 16  # outcomes alike differ by a digit here and there


def test_the_bound_is_kept_and_frees_up_with_each_drained_segment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)  # a segment each
    sizes = [len(frames.encode(make.outcome(n))) for n in (1, 2, 3)]
    opened = open_journal(folder, max_bytes=sum(sizes) + SLACK)
    for n in (1, 2, 3):
        opened.write([make.outcome(n)])
    with pytest.raises(StoreError) as raised:
        opened.write([make.outcome(4)])
    assert raised.value.code == "journal_full"
    assert sum(file.stat().st_size for file in folder.iterdir()) == opened.size_bytes == sum(sizes)
    opened.peek(1)
    opened.drop(1)
    opened.peek(1)  # the first segment is done with
    opened.write([make.outcome(5)])
    assert numbers(drained(opened)) == [2, 3, 5]


def test_only_the_owner_may_read_the_files(folder: Path) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(retained=RetainedText("{}", "{}"))])
    assert stat.S_IMODE(one_segment(folder).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_will_not_do_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for bad in (tmp_path / "file", Path("/proc/no")):
        with pytest.raises(StoreError, match=str(bad)) as raised:
            open_journal(bad)
        assert raised.value.code == "path"


# --- trouble on its disk ------------------------------------------------------------------------


def test_a_full_disk_leaves_no_trace_and_is_got_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(1)])
    write = os.write

    def half(fd: int, data: memoryview) -> int:
        if len(data) > 10:
            return write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(segments.os, "write", half)
    with pytest.raises(StoreError) as raised:
        opened.write([make.outcome(2)])
    assert raised.value.code == "enospc"
    monkeypatch.undo()
    opened.write([make.outcome(3)])
    assert numbers(drained(opened)) == [1, 3]
    assert opened.damaged == 0


def test_a_frame_cut_off_for_good_costs_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(1)])
    write, left = os.write, [100]

    def cut(fd: int, data: memoryview) -> int:
        if not left:
            raise OSError(errno.EIO, "gone")
        return write(fd, data[: left.pop()])

    def no_truncate(fd: int, size: int) -> None:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(segments.os, "write", cut)
    monkeypatch.setattr(segments.os, "ftruncate", no_truncate)
    with pytest.raises(StoreError, match="eio"):
        opened.write([make.outcome(2)])
    monkeypatch.undo()
    opened.write([make.outcome(3)])
    assert len(list(folder.iterdir())) == 2  # nothing is appended behind the torn end
    assert numbers(drained(opened)) == [1, 3]
    assert (opened.damaged, opened.depth) == (1, 0)


def test_a_segment_that_cannot_be_read_now_lets_the_others_through(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT_BYTES", 1)
    opened = open_journal(folder)
    for n in (1, 2):
        opened.write([make.outcome(n)])
    bad = opened._sealed[0].fd
    pread = os.pread

    def broken(fd: int, size: int, at: int) -> bytes:
        if fd == bad:
            raise OSError(errno.EIO, "gone")
        return pread(fd, size, at)

    monkeypatch.setattr(segments.os, "pread", broken)
    with pytest.raises(StoreError, match="eio"):
        opened.peek(1)
    assert numbers(opened.peek(1)) == [2]
    opened.drop(1)
    monkeypatch.undo()
    assert numbers(drained(opened)) == [1]


def test_sync_waits_for_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(segments.os, "fdatasync", synced.append)
    open_journal(folder).write([make.outcome(1)])
    assert synced == []
    Journal(folder, max_bytes=1 << 20, sync=True).write([make.outcome(1)])
    assert len(synced) == 1


# --- damage and other versions ------------------------------------------------------------------


def test_a_damaged_outcome_costs_itself_and_is_counted(folder: Path) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(n) for n in range(1, 6)])
    path = one_segment(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert numbers(drained(opened)) == [1, 2, 4, 5]
    assert (opened.damaged, opened.depth) == (1, 0)


def test_what_another_version_wrote_is_kept_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_journal(folder)
    monkeypatch.setattr(frames.codec, "FORMAT", 99)
    opened.write([make.outcome(1)])
    monkeypatch.undo()
    opened.write([make.outcome(2)])
    content = one_segment(folder).read_bytes()
    assert numbers(drained(opened)) == [2]
    assert (opened.unreadable, opened.damaged, opened.depth, opened.size_bytes) == (1, 0, 0, 0)
    (kept,) = folder.iterdir()
    assert kept.name.endswith(".outcomes.unreadable")
    assert kept.read_bytes() == content


# --- several processes --------------------------------------------------------------------------


def test_what_a_dead_process_left_is_taken_over_and_a_living_ones_is_not(folder: Path) -> None:
    dead, living = open_journal(folder), open_journal(folder)
    dead.write([make.outcome(n) for n in (1, 2)])
    living.write([make.outcome(3)])
    heir = open_journal(folder)
    assert heir.depth == 0
    dead.close()
    heir.adopt()
    heir.adopt()
    assert heir.depth == 2
    assert survey(folder).outcomes == 3
    assert numbers(drained(heir)) == [1, 2]
    assert numbers(drained(living)) == [3]
    assert survey(folder) == journal.Waiting(0, 0, 0)


def test_a_segment_torn_at_every_512_bytes_is_drained_as_far_as_it_goes(folder: Path) -> None:
    first = open_journal(folder)
    first.write([make.typical(n) for n in range(1, 13)])
    first.close()
    path = one_segment(folder)
    content = path.read_bytes()
    before: list[int] = []
    for size in range(0, len(content), 512):
        path.write_bytes(content[:size])
        heir = open_journal(folder)
        found = numbers(drained(heir))
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= len(before)
        assert heir.depth == 0
        assert not path.exists()
        heir.close()
        before = found
    assert before == list(range(1, 12))


def test_nothing_is_taken_after_the_close_and_nothing_lost(folder: Path) -> None:
    opened = open_journal(folder)
    opened.write([make.outcome(1)])
    opened.close()
    opened.close()
    with pytest.raises(StoreError, match="closed"):
        opened.write([make.outcome(2)])
    assert opened.peek(1) == []
    opened.drop(1)
    opened.adopt()
    assert numbers(drained(open_journal(folder))) == [1]
    assert survey(folder / "none") == journal.Waiting(0, 0, 0)


class Model(RuleBasedStateMachine):
    """Any order of writing, draining, killing and taking over against a queue in memory.

    A killed process may leave a torn end; its heir reads again what was drained of a segment half done with.
    """

    @initialize()
    def start(self) -> None:
        self.tmp = tempfile.TemporaryDirectory()
        self.folder = Path(self.tmp.name)
        self.opened = self._open()
        self.waiting: deque[int] = deque()
        self.gone: set[int] = set()
        self.n = 0

    def _open(self) -> Journal:
        return Journal(self.folder, max_bytes=40_000)

    @rule(count=st.integers(1, 4), size=st.sampled_from([0, 1, 5_000]))
    def write(self, count: int, size: int) -> None:
        numbers_ = range(self.n + 1, self.n + count + 1)
        try:
            self.opened.write([make.outcome(n, labels={"l": "x" * size}) for n in numbers_])
        except StoreError:
            assert self.opened.size_bytes + 4 * count * (size + 400) > 40_000
            return
        self.n += count
        self.waiting.extend(numbers_)

    @rule(count=st.integers(1, 5))
    def drain(self, count: int) -> None:
        group = numbers(self.opened.peek(count))
        assert group == list(self.waiting)[: len(group)]
        assert bool(group) == bool(self.waiting)
        self.opened.drop(len(group))
        for _ in group:
            self.gone.add(self.waiting.popleft())

    @rule(torn=st.binary(max_size=30))
    def kill(self, torn: bytes) -> None:
        self.opened.close()
        files = sorted(self.folder.glob("*.outcomes"))
        if files:
            with files[-1].open("ab") as file:
                file.write(torn)
        self.opened = self._open()
        found: list[int] = []
        while group := self.opened.peek(100):
            found += numbers(group)
            self.opened.drop(len(group))
        assert found == sorted(found)
        assert [n for n in found if n not in self.gone] == list(self.waiting)
        self.gone |= set(found)
        self.waiting.clear()

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "opened"):
            assert self.opened.depth == len(self.waiting)
            assert self.opened.size_bytes <= 40_000 + 30

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.opened.close()
            self.tmp.cleanup()


TestModel = Model.TestCase
