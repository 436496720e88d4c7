"""What the router knows of a request before any tier has seen it. Pure, bounded work, versioned.

A request becomes hashed word 1-2-grams with counts, and a vector of named dense features
(`DENSE_NAMES`). Words in capitals inside a sentence, and the digits of numbers, are masked, so that
names and amounts do not fill the vocabulary. Hashing is crc32 (Weinberger et al. 2009, without signs):
fast, the same on every machine and release, and needs no vocabulary. Training and serving share this
one function; a change of what it computes is a new FEATURES_VERSION.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fallback.types import DocumentBlock, ImageBlock, Request, TextBlock, ToolResultBlock, ToolUseBlock

FEATURES_VERSION = "1"
TEXT_CAP_CHARS = 20_000  # the default; longer texts keep their head and their tail

_BUCKET_BITS = 16
BUCKETS = 1 << _BUCKET_BITS
WORKLOAD_BUCKETS = 16
_MAX_COUNT = 255
_HEAD_SHARE = 0.75  # instructions stand first, the question often last
_DENSE_LIMIT = 1e6

DENSE_NAMES: tuple[str, ...] = (
    "log_chars", "log_words", "log_lines", "log_sentences", "log_numbers", "log_distinct_numbers",
    "log_largest_number", "log_digits", "log_decimal_points", "log_percent", "log_fraction_words", "log_currency",
    "log_question_marks", "log_question_words", "log_ands", "log_ifs", "log_loops", "log_definitions",
    "log_brackets", "log_equals", "log_method_calls", "log_deepest_indent", "log_quotes", "log_backslashes",
    "log_sub_superscripts", "log_capitalised", "log_distinct_capitalised", "options", "log_bullets",
    "distinct_word_share", "mean_word_chars", "non_ascii_share", "code_fence", "json_like", "turns", "tools",
    "tool_results", "images", "documents", "output_schema", "log_system_chars", "log_max_tokens",
    *(f"workload_{bucket:02d}" for bucket in range(WORKLOAD_BUCKETS)),
)  # fmt: skip

_LOGS = DENSE_NAMES.index("options")  # the dense features before it are counts, of which the logarithm is taken
_NO_WORKLOAD = (0.0,) * WORKLOAD_BUCKETS
_LOG1P = np.log1p(np.arange(_MAX_COUNT + 1, dtype=np.float32))
_HEADER = struct.Struct("<2sBBHI")  # magic, format, zero, number of dense features, number of buckets used
_PAIR = 0x5BD1E995
# Multiplied and shifted, because the low bits of a crc of similar words differ less than a product's high bits.
_SPREAD, _SHIFT, _WORD = 0x9E3779B1, 32 - _BUCKET_BITS, 0xFFFFFFFF
_WORD_CODE = "I" if array("I").itemsize == 4 else "L"
_FEW = 64  # at most _MAX_COUNT, so that no count can exceed it
_MAGIC = b"TW"
_FORMAT = 1

# Words (bytes above 0x7f are letters of other scripts), numbers with an optional fraction, single signs.
_TOKEN = re.compile(rb"[A-Za-z_\x80-\xff]+|[0-9]+(?:\.[0-9]+)?|[^\sA-Za-z_0-9\x80-\xff]")
# Anchored to the line break itself: with MULTILINE and ^ the engine would try at every character.
_OPTION = re.compile(rb"\n[ \t]{0,20}\(?(?:[A-Z]|[0-9]{1,2})[.):][ \t]{1,20}\S")
_BULLET = re.compile(rb"\n[ \t]{0,20}[*-] ")
_INDENT = re.compile(rb"\n[ \t]{1,200}")
_METHOD = re.compile(rb"\.[A-Za-z_]+\(")
_SENTENCE_ENDS = frozenset((b".", b"?", b"!", b":", b"*", b'"'))
_FRACTION_WORDS = (b"half", b"third", b"quarter", b"twice", b"double", b"times")
_BRACKETS = frozenset((b"[", b"]", b"{", b"}", b"(", b")"))
_SIGNS = _BRACKETS | frozenset((b"%", b"$", b"?", b"=", b"'", b'"', b"\\", b"^", b"*", b"-", b"`"))
_EURO = "€".encode()
_WH_WORDS = (b"what", b"which", b"who", b"why", b"when", b"where")


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A sparse part and a dense part.

    `indices` (k,) int32: the hashed buckets in use, ascending, distinct. `counts` (k,) uint8: how often,
    at least 1. `dense` (d,) float32, finite. Text cannot be recovered from them, nor is it held.
    """

    indices: NDArray[np.int32]
    counts: NDArray[np.uint8]
    dense: NDArray[np.float32]

    @property
    def values(self) -> NDArray[np.float32]:
        """(k,) float32: log(1 + count), scaled to Euclidean length 1 so that long texts do not weigh more."""
        logs = _LOG1P[self.counts]
        return np.asarray(logs / (math.sqrt(float(logs @ logs)) or 1.0), dtype=np.float32)

    def to_bytes(self) -> bytes:
        """Compact and without pickle: about 3 bytes a bucket and 4 a dense feature."""
        return b"".join(
            (
                _HEADER.pack(_MAGIC, _FORMAT, 0, len(self.dense), len(self.indices)),
                self.indices.astype("<u2").tobytes(),
                self.counts.tobytes(),
                self.dense.astype("<f4").tobytes(),
            )
        )

    @classmethod
    def from_bytes(cls, encoded: bytes) -> Features:
        """The inverse of `to_bytes`. ValueError for anything that `to_bytes` could not have written."""
        if len(encoded) < _HEADER.size:
            raise ValueError("features: shorter than their header")
        magic, layout, zero, n_dense, n = _HEADER.unpack_from(encoded)
        if (magic, layout, zero) != (_MAGIC, _FORMAT, 0):
            raise ValueError("features: not in this format")
        if n > BUCKETS or len(encoded) != _HEADER.size + 3 * n + 4 * n_dense:
            raise ValueError("features: their length does not fit their header")
        at = _HEADER.size
        indices = np.frombuffer(encoded, "<u2", n, at).astype(np.int32)
        counts = np.frombuffer(encoded, np.uint8, n, at + 2 * n)
        dense = np.frombuffer(encoded, "<f4", n_dense, at + 3 * n).astype(np.float32)
        if n and (bool((np.diff(indices) <= 0).any()) or not counts.all()):
            raise ValueError("features: buckets must ascend and counts be positive")
        if not bool((np.abs(dense) <= _DENSE_LIMIT).all()):
            raise ValueError("features: a dense feature is not finite or out of range")
        return cls(indices, counts, dense)


def request_features(request: Request, *, text_cap_chars: int = TEXT_CAP_CHARS) -> Features:
    """The request's features; work is bounded by `text_cap_chars` however long the request is."""
    text = request_text(request, text_cap_chars)
    words = tokens(text)
    known = masked(words)
    return Features(*bucketed(hashed(known.words)), _dense(request, b"\n" + text, words, known))


def request_text(request: Request, text_cap_chars: int) -> bytes:
    """The request's texts as UTF-8; of a long one the first three quarters of the cap and the last quarter."""
    return capped("\n".join(request.texts()), text_cap_chars).encode("utf-8", "replace")


def capped(text: str, cap_chars: int) -> str:
    """At most `cap_chars` characters: the head and the tail."""
    if len(text) <= cap_chars:
        return text
    head = int(cap_chars * _HEAD_SHARE)
    return text[:head] + text[len(text) - (cap_chars - head) :]


def tokens(text: bytes) -> list[bytes]:
    """Words, numbers and signs in order."""
    return _TOKEN.findall(text)


class Masked(NamedTuple):
    """Tokens in lower case, numbers as 0, 00 or 000 by length, names as `Cc`; and the numbers and names themselves."""

    words: list[bytes]
    numbers: list[bytes]
    names: list[bytes]


def masked(words: list[bytes]) -> Masked:
    """One pass over the tokens: the longest loop per request, so that it does three things at once."""
    out: list[bytes] = []
    numbers: list[bytes] = []
    names: list[bytes] = []
    before = b"."
    for word in words:
        first = word[0]
        if first >= 97:  # a-z and letters above ASCII: most tokens, so tested first
            out.append(word if word.islower() else word.lower())
        elif 48 <= first <= 57:
            out.append(b"000"[: len(word)])
            numbers.append(word)
        elif 65 <= first <= 90 and word[1:].islower():
            names.append(word)
            out.append(word.lower() if before in _SENTENCE_ENDS else b"Cc")
        else:
            out.append(word.lower() if first >= 65 else word)
        before = word
    return Masked(out, numbers, names)


def hashed(words: list[bytes], *, salt: int = 0) -> list[int]:
    """32-bit hashes of 1-2-grams of masked words, for `bucketed`. `salt` keeps name spaces apart.

    A pair's crc is the second word's continued from the first's, so that no string is joined.
    """
    ones = list(map(crc32, words, repeat(salt)))
    befores = [one ^ _PAIR for one in ones]  # apart from the word that the two would make when written together
    return ones + list(map(crc32, words[1:], befores))


def bucketed(hashes: list[int]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """32-bit hashes → (buckets ascending and distinct, counts up to 255)."""
    return _few_bucketed(hashes) if len(hashes) < _FEW else _many_bucketed(hashes)


def _few_bucketed(hashes: list[int]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Without arithmetic on arrays: a dozen calls on small ones take longer."""
    counts: dict[int, int] = {}
    for one in hashes:
        bucket = (one * _SPREAD & _WORD) >> _SHIFT
        counts[bucket] = counts.get(bucket, 0) + 1
    found = sorted(counts)
    often = bytes(map(counts.__getitem__, found))
    return np.array(found, dtype=np.int32), np.frombuffer(often, dtype=np.uint8)


def _many_bucketed(hashes: list[int]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    mixed = np.frombuffer(array(_WORD_CODE, hashes), dtype=np.uint32) * np.uint32(_SPREAD)
    mixed >>= np.uint32(_SHIFT)
    mixed.sort()
    edges = np.ones(len(mixed) + 1, dtype=np.bool_)
    np.not_equal(mixed[1:], mixed[:-1], out=edges[1:-1])
    starts = edges.nonzero()[0]
    counts = starts[1:] - starts[:-1]
    np.minimum(counts, _MAX_COUNT, out=counts)
    return mixed[starts[:-1]].astype(np.int32), counts.astype(np.uint8)


def log1p(count: float) -> float:
    """log(1 + count): counts of very different sizes on one scale."""
    return math.log1p(count)


def _dense(request: Request, text: bytes, words: list[bytes], known: Masked) -> NDArray[np.float32]:
    lower, plain = text.lower(), text.isascii()
    numbers, names = known.numbers, known.names
    distinct = set(words)
    signs = distinct & _SIGNS  # of the signs counted below, those that are there at all

    def times(sign: bytes) -> int:
        return text.count(sign) if sign in signs else 0

    figures = b" ".join(numbers)
    points = figures.count(b".")
    whole = [number.partition(b".")[0] for number in numbers] if points else numbers
    stops = b"." in text
    methods = len(_METHOD.findall(text)) if stops and b"(" in signs else 0
    indents = _INDENT.findall(text) if b"\n " in text or b"\n\t" in text else ()
    bullets = len(_BULLET.findall(text)) if b"*" in signs or b"-" in signs else 0
    chars = len(b"".join(words))
    questions = times(b"?")
    tool_blocks, images, documents = _blocks(request)
    dense = [
        len(text), len(words), text.count(b"\n"),
        (text.count(b". ") + text.count(b".\n") if stops else 0) + (text.count(b"? ") if questions else 0),
        len(numbers), len(set(numbers)), max(map(len, whole), default=0),
        len(figures) - max(0, len(numbers) - 1), points,
        times(b"%") + lower.count(b"percent"), sum(map(lower.count, _FRACTION_WORDS)),
        times(b"$") + (0 if plain else text.count(_EURO)), questions,
        lower.count(b"how") + (sum(map(lower.count, _WH_WORDS)) if b"wh" in lower else 0),
        text.count(b" and ") if b"and" in distinct else 0,
        lower.count(b"if "), text.count(b"for ") + text.count(b"while "), text.count(b"def "),
        sum(map(text.count, signs & _BRACKETS)), times(b"="), methods,
        max(map(len, indents), default=0), times(b"'") + times(b'"'), times(b"\\"),
        times(b"^") + text.count(b"_"), len(names), len(set(names)),
        min(len(_OPTION.findall(text)), 26), log1p(bullets), len(distinct) / max(1, len(words)),
        min(chars / max(1, len(words)), 50.0),
        0.0 if plain else 1.0 - len(text.decode("ascii", "ignore")) / len(text),
        float(b"`" in signs and b"```" in text),
        float(b"{" in signs and (b'{"' in text or b"{\n" in text)), min(len(request.messages), 50),
        min(len(request.tools), 50), tool_blocks, images, documents, float(request.output_schema is not None),
        log1p(sum(len(block.text) for block in request.system)), log1p(request.max_tokens),
        *_NO_WORKLOAD,
    ]  # fmt: skip
    dense[crc32(request.workload.encode()) % WORKLOAD_BUCKETS - WORKLOAD_BUCKETS] = 1.0
    vector = np.array(dense, dtype=np.float32)
    np.log1p(vector[:_LOGS], out=vector[:_LOGS])
    return vector


def _blocks(request: Request) -> tuple[int, int, int]:
    """(tool uses and results, images, documents) in the conversation, each up to 50."""
    tools = images = documents = 0
    for message in request.messages:
        for block in message.content:
            if isinstance(block, TextBlock):
                continue
            if isinstance(block, ToolResultBlock | ToolUseBlock):
                tools += 1
            elif isinstance(block, ImageBlock):
                images += 1
            elif isinstance(block, DocumentBlock):
                documents += 1
    return min(tools, 50), min(images, 50), min(documents, 50)
