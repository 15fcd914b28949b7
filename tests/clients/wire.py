"""Kafka's wire by hand: single requests with every field in the test's hands, for what no client lets one say.

Fetch is spoken in versions 12 (topics by name) and 13 (by id), both flexible; Produce in 7; Metadata in 12.
"""

import itertools
import socket
import struct
from typing import NamedTuple, Optional

PRODUCE, FETCH, METADATA = 0, 1, 3


def _crc_table():
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        yield n


_CRC = list(_crc_table())
# Two bytes at once: tests send megabytes.
_CRC_OF_TWO = [(step := _CRC[n & 255] ^ n >> 8) >> 8 ^ _CRC[step & 255] for n in range(1 << 16)]


def crc32c(data):
    crc, even = 0xFFFFFFFF, len(data) & ~1
    for (two,) in struct.iter_unpack("<H", data[:even]):
        crc = crc >> 16 ^ _CRC_OF_TWO[(crc ^ two) & 0xFFFF]
    for byte in data[even:]:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def _zigzag(n):
    return _varint(n << 1 ^ n >> 63)


def _varint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def record(delta, value, key=None, headers=(), time_delta=0):
    """One record as it lies in a batch, with its length."""

    def sized(data):
        return _zigzag(-1) if data is None else _zigzag(len(data)) + data

    headers = _zigzag(len(headers)) + b"".join(sized(name) + sized(data) for name, data in headers)
    data = b"\0" + _zigzag(time_delta) + _zigzag(delta) + sized(key) + sized(value) + headers
    return _zigzag(len(data)) + data


class Producer(NamedTuple):
    """Who writes a batch, and where it stands in the sequence."""

    id: int = -1
    epoch: int = -1
    sequence: int = -1


def batch(values, timestamp=1_700_000_000_000, producer=Producer()):
    """One uncompressed record batch of these values, all of one time."""
    records = b"".join(record(delta, value) for delta, value in enumerate(values))
    return batch_of(records, len(values), timestamp, timestamp, producer)


def batch_of(records, count, first_time, max_time, producer=Producer(), attributes=0, last_delta=None, base=0, magic=2, crc=None):
    """A record batch around these bytes, whatever they are; the attributes name their codec."""
    last_delta = count - 1 if last_delta is None else last_delta
    covered = struct.pack(">hiqqqhii", attributes, last_delta, first_time, max_time, *producer, count) + records
    after_length = struct.pack(">ibI", -1, magic, crc32c(covered) if crc is None else crc) + covered
    return struct.pack(">qi", base, len(after_length)) + after_length


def batches_in(records):
    """(base offset, records, bytes) of each batch; they must be whole."""
    found = []
    while records:
        base, length = struct.unpack_from(">qi", records)
        assert len(records) >= 12 + length, "a batch is cut"
        found.append((base, struct.unpack_from(">i", records, 57)[0], 12 + length))
        records = records[12 + length :]
    return found


class Reader:
    """Takes fields off a response."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data), "the response is too short"
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind):
        return struct.unpack(">" + kind, self.take(struct.calcsize(">" + kind)))[0]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def compact(self):
        """Bytes with a compact length; `None` for null."""
        length = self.varint()
        return None if length == 0 else self.take(length - 1)

    def text(self):
        data = self.compact()
        return None if data is None else data.decode()

    def array(self, item):
        """A compact array; `None` for null."""
        length = self.varint()
        return None if length == 0 else [item() for _ in range(length - 1)]

    def tags(self):
        for _ in range(self.varint()):
            self.varint()
            self.compact_tag()

    def compact_tag(self):
        self.take(self.varint())

    def ended(self):
        assert self.at == len(self.data), f"{len(self.data) - self.at} bytes too many"


class Part(NamedTuple):
    """What a fetch asks of a partition."""

    topic: object  # a name (version 12) or an id of 16 bytes (version 13)
    index: int
    offset: int
    max_bytes: int = 1 << 20
    epoch: int = -1


class Fetched(NamedTuple):
    """What a fetch tells of a partition."""

    error: int
    high_watermark: int
    last_stable: int
    log_start: int
    records: Optional[bytes]


class Answer(NamedTuple):
    error: int
    session: int
    parts: dict  # {(topic, index): Fetched}, in the order of the answer


class Connection:
    """One connection; requests run one after the other."""

    def __init__(self, bootstrap, timeout=30, source=""):
        """`source`: the address it comes from."""
        host, port = bootstrap.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = itertools.count(1)
        # Of whole requests and answers, without the lengths in front.
        self.sent_bytes = self.received_bytes = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, key, version, body, flexible):
        number = next(self.correlation)
        head = struct.pack(">hhih", key, version, number, -1) + (b"\0" if flexible else b"")
        self.socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        self.sent_bytes += len(head) + len(body)
        return number

    def receive(self, number, flexible):
        length = struct.unpack(">i", self._exactly(4))[0]
        reader = Reader(self._exactly(length))
        self.received_bytes += length
        assert reader.number("i") == number, "answers are out of order"
        if flexible:
            reader.tags()
        return reader

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            piece = self.socket.recv(min(count - len(data), 1 << 20))
            if not piece:
                raise ConnectionError("closed by the broker")
            data += piece
        return bytes(data)

    def produce(self, topic, index, batch):
        """Appends a batch; its base offset."""
        error, base = self._produced(topic, index, batch)
        assert error == 0, f"produce to {topic} {index}: error {error}"
        return base

    def try_produce(self, topic, index, batch):
        """Appends a batch; its error."""
        return self._produced(topic, index, batch)[0]

    def _produced(self, topic, index, batch):
        name = topic.encode()
        body = struct.pack(">hhi", -1, -1, 30_000) + struct.pack(">ih", 1, len(name)) + name
        body += struct.pack(">iii", 1, index, len(batch)) + batch
        reader = self.receive(self.send(PRODUCE, 7, body, False), False)
        assert reader.number("i") == 1
        reader.take(reader.number("h"))
        assert (reader.number("i"), reader.number("i")) == (1, index)
        return reader.number("h"), reader.number("q")

    def topic_id(self, topic):
        """The id of a topic, and {partition: leader epoch}."""
        name = topic.encode()
        body = b"\x02" + bytes(16) + _varint(len(name) + 1) + name + b"\0" + b"\0\0" + b"\0"
        reader = self.receive(self.send(METADATA, 12, body, True), True)
        reader.number("i")
        reader.array(lambda: (reader.number("i"), reader.text(), reader.number("i"), reader.text(), reader.tags()))
        reader.text()
        reader.number("i")
        found = reader.array(lambda: self._topic(reader))
        error, topic_id, epochs = found[0]
        assert error == 0, f"metadata of {topic}: error {error}"
        return topic_id, epochs

    @staticmethod
    def _topic(reader):
        error, _, topic_id, _ = reader.number("h"), reader.text(), reader.take(16), reader.number("b")

        def partition():
            _, index, _, epoch = reader.number("h"), reader.number("i"), reader.number("i"), reader.number("i")
            for _ in range(3):
                reader.array(lambda: reader.number("i"))
            reader.tags()
            return index, epoch

        epochs = dict(reader.array(partition))
        reader.number("i")
        reader.tags()
        return error, topic_id, epochs

    def fetch(self, parts, **fields):
        """One Fetch, answered."""
        return self.fetched(*self.ask_fetch(parts, **fields))

    def ask_fetch(
        self, parts, session=0, epoch=-1, forgotten=(), max_wait_ms=0, min_bytes=1, max_bytes=50 << 20, isolation=0, by_id=False,
        replica=-1,
    ):
        """Sends a Fetch; what `fetched` wants."""
        version = 13 if by_id else 12

        def topic_field(topic):
            return topic if by_id else _varint(len(topic.encode()) + 1) + topic.encode()

        def grouped(items, topic_of, encode):
            topics = [(topic, list(some)) for topic, some in itertools.groupby(items, topic_of)]
            out = _varint(len(topics) + 1)
            for topic, some in topics:
                out += topic_field(topic) + _varint(len(some) + 1) + b"".join(map(encode, some)) + b"\0"
            return out

        body = struct.pack(">iiiibii", replica, max_wait_ms, min_bytes, max_bytes, isolation, session, epoch)
        body += grouped(
            parts, lambda p: p.topic, lambda p: struct.pack(">iiqiqi", p.index, p.epoch, p.offset, -1, -1, p.max_bytes) + b"\0"
        )
        body += grouped(forgotten, lambda p: p[0], lambda p: struct.pack(">i", p[1])) + b"\x01\0"
        return self.send(FETCH, version, body, True), by_id

    def fetched(self, number, by_id):
        reader = self.receive(number, True)
        parts = {}

        def topic():
            name = reader.take(16) if by_id else reader.text()
            for index, fetched in reader.array(partition):
                assert (name, index) not in parts, "a partition is told twice"
                parts[name, index] = fetched
            reader.tags()

        def partition():
            index, error = reader.number("i"), reader.number("h")
            ends = [reader.number("q") for _ in range(3)]
            reader.array(lambda: (reader.number("q"), reader.number("q"), reader.tags()))
            reader.number("i")
            fetched = Fetched(error, *ends, reader.compact())
            reader.tags()
            return index, fetched

        reader.number("i")
        error, session = reader.number("h"), reader.number("i")
        reader.array(topic)
        reader.tags()
        reader.ended()
        return Answer(error, session, parts)
