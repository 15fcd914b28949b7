"""Reads a partition's batches as they lie on the wire: codec, producer id and sequence, which no client shows."""

import socket
import struct
from typing import NamedTuple

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


class Batch(NamedTuple):
    """What the head of a record batch says."""

    base_offset: int
    count: int
    codec: str
    producer_id: int
    base_sequence: int


def _text(content):
    return struct.pack(">h", len(content)) + content.encode()


def _exactly(connection, count):
    received = bytearray()
    while len(received) < count:
        some = connection.recv(count - len(received))
        assert some, "the broker closed the connection"
        received += some
    return bytes(received)


def _fetch(connection, topic, partition, offset):
    """Fetch v10, one partition; returns (high watermark, records)."""
    body = struct.pack(">iiiib", -1, 500, 1, 64 << 20, 0) + struct.pack(">ii", 0, -1)
    body += struct.pack(">i", 1) + _text(topic) + struct.pack(">i", 1) + struct.pack(">iiqqi", partition, -1, offset, -1, 64 << 20)
    body += struct.pack(">i", 0)
    request = struct.pack(">hhi", 1, 10, 7) + _text("batches") + body
    connection.sendall(struct.pack(">i", len(request)) + request)
    answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
    # Correlation id, throttle time, error, session; one topic with its name; one partition.
    at = 4 + 4 + 2 + 4 + 4
    at += 2 + struct.unpack_from(">h", answer, at)[0] + 4
    _index, error, high_watermark, _stable, _start, aborted = struct.unpack_from(">ihqqqi", answer, at)
    assert error == 0, f"{topic}-{partition}: error {error}"
    at += 34 + 16 * max(aborted, 0)
    length = struct.unpack_from(">i", answer, at)[0]
    return high_watermark, answer[at + 4 : at + 4 + length]


def read(bootstrap, topic, partition):
    """All batches of a partition, in order."""
    host, port = bootstrap.rsplit(":", 1)
    found, offset = [], 0
    with socket.create_connection((host, int(port)), 30) as connection:
        while True:
            high_watermark, records = _fetch(connection, topic, partition, offset)
            at = 0
            while at + 61 <= len(records):
                base, length = struct.unpack_from(">qi", records, at)
                if at + 12 + length > len(records):
                    break
                attributes, last = struct.unpack_from(">hi", records, at + 21)
                producer_id, _epoch, sequence, count = struct.unpack_from(">qhii", records, at + 43)
                found.append(Batch(base, count, CODECS[attributes & 7], producer_id, sequence))
                offset = base + last + 1
                at += 12 + length
            if offset >= high_watermark:
                return found
            assert at, f"{topic}-{partition} gives nothing at {offset} of {high_watermark}"
