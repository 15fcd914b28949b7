"""Records whose every field follows from a number, so that what was read can be compared with what was meant.

Sizes run from nothing to 900,000 bytes, most of them small, about 1.2 KB on average: 100,000 records are about 120 MB.
"""

import random
import time
from typing import NamedTuple, Optional

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
LARGEST_VALUE = 900_000

_WORDS = [bytes(random.Random(n).choices(b"abcdefghijklmnopqrstuvwxyz", k=2 + n % 9)) for n in range(500)]


def _text(length):
    chance = random.Random(1)
    parts, size = [], 0
    while size < length:
        word = chance.choice(_WORDS)
        parts.append(word)
        size += len(word) + 1
    return b" ".join(parts)[:length]


# Half words, which compress, half random bytes, which do not.
_TEXT = _text(2 << 20)
_BYTES = _TEXT[: 1 << 20] + random.Random(2).randbytes(1 << 20)

# The clock of the records: an hour ago, so that nothing is too old to be kept or too new to be taken.
EPOCH_MS = int(time.time() * 1000) - 3_600_000


class Record(NamedTuple):
    """One record as a client gives it and gets it back."""

    key: Optional[bytes]
    value: Optional[bytes]
    headers: list
    timestamp_ms: int


def value_length(chance, number):
    """How long the value of record `number` is."""
    if number % 5_000 == 7:
        return LARGEST_VALUE
    if number % 100 == 3:
        return 0
    kind = chance.random()
    if kind < 0.70:
        return chance.randrange(200)
    if kind < 0.98:
        return chance.randrange(200, 3_000)
    if kind < 0.9994:
        return chance.randrange(3_000, 20_000)
    return chance.randrange(20_000, LARGEST_VALUE)


def record(number, text=False):
    """Record `number`. With `text`, keys and values are printable, hold no tab or newline, and have no headers."""
    chance = random.Random(number)
    length = value_length(chance, number)
    pool = _TEXT if text else _BYTES
    at = chance.randrange(len(pool) - length)
    value = pool[at : at + length]
    if chance.random() < 0.05:
        value = None
    key = f"key-{number % 1000}".encode()
    if (sort := chance.random()) < 0.2:
        key = None
    elif sort < 0.25 and not text:
        key = b""
    headers = [] if text else _headers(chance)
    return Record(key, value, headers, EPOCH_MS + number // 3)


def _headers(chance):
    """None for most; else a few, some of them with the same name, an empty name, an empty value or no value."""
    if chance.random() < 0.6:
        return []
    names = ["trace", "source", "a", "a", "Ünïcode", ""]
    values = [b"", b"1", None, b"\x00\xff", b"x" * 300]
    return [(chance.choice(names), chance.choice(values)) for _ in range(chance.randrange(1, 5))]
