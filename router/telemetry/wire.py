"""OTLP spans as bytes.

The SDK's way (a Span object with a lock, then a protobuf message of Python calls for every attribute) costs
about 70 µs of CPU a span, and a request has eight or more. A finished request needs none of that: most
attributes of a span (tier, model, endpoint, purpose; check, version, verdict) recur, so their bytes are
encoded once and kept, and a span is a join of a few of them. A test holds this file to the official encoder,
byte for byte of meaning.

The messages are `opentelemetry.proto.trace.v1.{Span,ScopeSpans,ResourceSpans}`; the numbers below are
their field numbers and wire types.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

INTERNAL, SERVER, CLIENT = 1, 2, 3

_CACHED = 4096
_SMALL = [bytes([n]) for n in range(128)]
_double = struct.Struct("<d").pack
_times = struct.Struct("<BQBQ").pack
_ERROR = b"\x7a\x02\x18\x02"  # Span.status { code: STATUS_CODE_ERROR }
_LOCAL = b"\x85\x01\x00\x01\x00\x00"  # Span.flags: whether the parent is remote is known, and it is not
_REMOTE = b"\x85\x01\x00\x03\x00\x00"


def varint(value: int) -> bytes:
    """A non-negative integer in protobuf's variable-length form."""
    if value < 128:
        return _SMALL[value]
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: int, body: bytes) -> bytes:
    """A length-delimited field with a one-byte `tag`."""
    return _SMALL[tag] + varint(len(body)) + body


def _attribute(key: str, value: bytes) -> bytes:
    """Span.attributes { key, value }, where `value` is an encoded AnyValue."""
    return field(0x4A, field(0x0A, key.encode()) + field(0x12, value))


def fresh_text(key: str, value: str) -> bytes:
    """A string attribute whose value does not recur (an id)."""
    return _attribute(key, field(0x0A, value.encode()))


@lru_cache(maxsize=_CACHED)
def text(key: str, value: str) -> bytes:
    """A string attribute whose value recurs."""
    return fresh_text(key, value)


@lru_cache(maxsize=_CACHED)
def texts(key: str, values: tuple[str, ...]) -> bytes:
    """A string-array attribute whose value recurs."""
    return _attribute(key, field(0x2A, b"".join(field(0x0A, field(0x0A, value.encode())) for value in values)))


@lru_cache(maxsize=_CACHED)
def flag(key: str, value: bool) -> bytes:  # noqa: FBT001 - the value is the point
    """A boolean attribute."""
    return _attribute(key, b"\x10\x01" if value else b"\x10\x00")


@lru_cache(maxsize=_CACHED)
def _number_prefix(key: str) -> bytes:
    return _attribute(key, b"\x21" + bytes(8))[:-8]


def number(key: str, value: float) -> bytes:
    """A floating-point attribute."""
    return _number_prefix(key) + _double(value)


@lru_cache(maxsize=_CACHED)
def integer(key: str, value: int) -> bytes:
    """A non-negative integer attribute."""
    return _attribute(key, b"\x18" + varint(max(0, value)))


@lru_cache(maxsize=_CACHED)
def _name_and_kind(name: str, kind: int) -> bytes:
    return field(0x2A, name.encode()) + b"\x30" + _SMALL[kind]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a span stands: the trace, its parent (empty: none, `remote`: the caller's) and the trace state."""

    trace_id: bytes
    parent_id: bytes
    state: bytes = b""
    remote: bool = False

    def under(self, span_id: bytes) -> Place:
        """The place of a child of the span `span_id`, which stands here."""
        return Place(self.trace_id, span_id, self.state)


def span(
    place: Place,
    span_id: bytes,
    name: str,
    kind: int,
    start_ns: int,
    end_ns: int,
    attributes: Sequence[bytes],
    *,
    error: bool = False,
) -> bytes:
    """One span, as a field of ScopeSpans. Times in nanoseconds since the epoch."""
    body = b"".join(
        (
            b"\x0a\x10" + place.trace_id + b"\x12\x08" + span_id,
            field(0x1A, place.state) if place.state else b"",
            b"\x22\x08" + place.parent_id if place.parent_id else b"",
            _name_and_kind(name, kind),
            _times(0x39, start_ns, 0x41, end_ns),
            *attributes,
            _ERROR if error else b"",
            _REMOTE if place.remote else _LOCAL,
        )
    )
    return b"\x12" + varint(len(body)) + body


def request(resource: bytes, scope: bytes, spans: Sequence[bytes]) -> bytes:
    """An ExportTraceServiceRequest of spans that share an encoded Resource and InstrumentationScope."""
    return field(0x0A, field(0x0A, resource) + field(0x12, field(0x0A, scope) + b"".join(spans)))
