"""How outcomes lie in a journal file: one frame each, found again behind damage. Pure.

A frame is a mark, the payload's length, a CRC-32 of length and payload, and the payload: the outcome's row (and
retained text) of `router.store.codec` as JSON in ASCII, so that the mark occurs in no payload and the next frame
can be found behind a damaged one. A format change takes another mark.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

from router.outcome import Outcome
from router.store import codec

MARK = b"\xf5\xfet\x01"
_LENGTH = struct.Struct("<I")
_HEAD = len(MARK) + 2 * _LENGTH.size
_BLOBS = ("request_features", "reply_features")
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode  # ASCII only, by default


class Unreadable(Exception):
    """A whole frame that this version cannot decode. Says nothing of its content."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Where the payloads of whole frames lie, as (begin, end), and how many stretches between them are damaged.

    The last stretch may be a frame that was cut off while it was written, and so was never acknowledged.
    """

    payloads: tuple[tuple[int, int], ...]
    damaged: int


def encode(outcome: Outcome) -> bytes:
    """One frame. Raises ValueError for what no store can hold (a cost that is NaN, half a character)."""
    rows = codec.encode(outcome)
    for row in (rows.outcome, rows.retained or {}):
        for value in row.values():
            if isinstance(value, str):
                value.encode("utf-8")
    story: dict[str, Any] = {**rows.outcome}
    for name in _BLOBS:
        story[name] = base64.b64encode(story[name]).decode("ascii")
    payload = _dumps([story, rows.retained]).encode("ascii")
    length = _LENGTH.pack(len(payload))
    return b"".join((MARK, length, _LENGTH.pack(zlib.crc32(payload, zlib.crc32(length))), payload))


def decode(payload: bytes) -> Outcome:
    """The outcome of a frame, its replies without content. Raises Unreadable."""
    try:
        story, retained = json.loads(payload)
        for name in _BLOBS:
            story[name] = base64.b64decode(story[name], validate=True)
        return codec.decode(story, retained)
    except (codec.CorruptRow, KeyError, TypeError, ValueError, binascii.Error):
        raise Unreadable from None  # the cause could quote the row


def scan(data: bytes) -> Scan:
    """Every whole frame in a file's content, in order."""
    payloads, damaged, at = [], 0, 0
    while 0 <= at < len(data):
        end = _end(data, at)
        if end:
            payloads.append((at + _HEAD, end))
            at = end
        else:
            damaged += 1
            at = data.find(MARK, at + 1)
    return Scan(tuple(payloads), damaged)


def _end(data: bytes, at: int) -> int:
    """Where the frame at `at` ends; 0 where there is no whole frame."""
    begin = at + _HEAD
    if begin > len(data) or not data.startswith(MARK, at):
        return 0
    (length,) = _LENGTH.unpack_from(data, at + len(MARK))
    (crc,) = _LENGTH.unpack_from(data, at + len(MARK) + _LENGTH.size)
    end = begin + int(length)
    if end > len(data):
        return 0
    return end if crc == zlib.crc32(data[begin:end], zlib.crc32(_LENGTH.pack(length))) else 0
