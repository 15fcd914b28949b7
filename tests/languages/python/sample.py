"""The records that every program of tests/languages sends, and how it says what it read.

Every field of record `number` follows from the number, by arithmetic that is short in any language, so that programs need
to share nothing. The same rules stand in go/sample, node/sample.js, rust/src/sample.rs and java/Sample.java.
"""

import hashlib
import json
import sys
import time


def noise(number, length):
    """`length` bytes: pseudo-random for even numbers, four letters (which compress) for odd ones; they repeat after 64 KiB."""
    state = number * 2654435761 % 2**32
    block = bytearray(min(length, 65_536))
    for at in range(len(block)):
        state = (state * 1664525 + 1013904223) % 2**32
        block[at] = state >> 24 if number % 2 == 0 else 97 + (state >> 24) % 4
    whole, rest = divmod(length, len(block) or 1)
    return bytes(block) * whole + bytes(block[:rest])


def key(number):
    return None if number % 5 == 0 else b"" if number % 5 == 1 else b"key-%d" % (number % 97)


def value(number):
    """Not both key and value are missing: some clients refuse that by themselves."""
    return b"" if number % 11 == 3 else None if number % 13 == 4 and number % 5 else noise(number, number * 37 % 1_500 + 1)


def headers(number):
    """Duplicates that are not neighbours, an empty and a missing value, a name without letters, one beyond ASCII."""
    return [
        [],
        [("n", b"%d" % number)],
        [("same", b"1"), ("same", b"2"), ("other", b""), ("same", b"1")],
        [("Ünïcode", b"\x00\xff"), ("null", None), ("", b"unnamed")],
    ][number % 4]


def timestamp(number, epoch_ms):
    return epoch_ms + 10 * number


def digest(content):
    """What stands for a key, a value or a header's value: None, or its length and the beginning of its SHA-256."""
    return None if content is None else f"{len(content)}:{hashlib.sha256(content).hexdigest()[:16]}"


def seen(partition, offset, timestamp_ms, key, value, headers):
    """A record as a program prints it."""
    return [partition, offset, timestamp_ms, digest(key), digest(value), [[name, digest(content)] for name, content in headers or []]]


ASKED_TIMES = [0, 1, 11, 510, 995, 1990, 1991]
"""The times that `seek-by-time` asks for, from the epoch on; the first is asked as 0, before any record."""


def asked_times(epoch_ms):
    return [0] + [epoch_ms + after for after in ASKED_TIMES[1:]]


def until(wanted, look):
    """What `look` gives as soon as it is `wanted`, or after 10 s: Kafka's brokers learn of a change a moment after the answer."""
    deadline = time.monotonic() + 10
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


CODECS = sys.argv[5].split(",") if len(sys.argv) == 6 else []
"""The codecs that the client can write and read, as the command line says."""


def main(scenarios):
    """Runs what the command line says, PROGRAM SCENARIO BOOTSTRAP PREFIX EPOCH_MS CODECS, and prints one line of JSON."""
    name, bootstrap, prefix, epoch_ms, _codecs = sys.argv[1:]
    print(json.dumps(scenarios[name](bootstrap, prefix, int(epoch_ms))))
