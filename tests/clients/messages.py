"""Any request in any version, after the message definitions that Apache Kafka's own client brings along.

    answer = ask(wire, "ListOffsets", 10, ReplicaId=-1, Topics=[{"Name": "t", "Partitions": [...]}])
    answer.Topics[0].Partitions[0].Offset

Fields are named as in Kafka's definitions; what is left out has its default. `begin` and `end` are the halves of `ask`, for
requests on their way together.
"""

import functools
import json
import re
import struct
import time
import types
import zipfile

from brokers import KAFKA_JARS
from wire import Reader, _varint

_NUMBERS = {"int8": "b", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "float64": "d", "bool": "?"}
_EMPTY = {"string": "", "bytes": b"", "records": None, "uuid": bytes(16)}


@functools.cache
def _definitions():
    """{(key, "request" or "response"): definition} and {name: key}."""
    (jar,) = KAFKA_JARS.glob("kafka-clients-*.jar")
    found, keys = {}, {}
    with zipfile.ZipFile(jar) as files:
        for name in files.namelist():
            if not re.fullmatch(r"common/message/\w+(Request|Response)\.json", name):
                continue
            text = files.read(name).decode()
            definition = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
            found[definition["apiKey"], definition["type"]] = definition
            if definition["type"] == "request":
                keys[definition["name"].removesuffix("Request")] = definition["apiKey"]
    return found, keys


def _within(versions, version):
    """Whether a version lies in a range as Kafka writes it: `3`, `3+`, `3-5` or `none`."""
    if versions == "none":
        return False
    low, _, high = versions.partition("-")
    if low.endswith("+"):
        return version >= int(low[:-1])
    return int(low) <= version <= int(high or low)


class _Codec:
    def __init__(self, definition, version):
        assert _within(definition["validVersions"], version), f"{definition['name']} has no version {version}"
        self.definition, self.version = definition, version
        self.flexible = _within(definition["flexibleVersions"], version)
        self.structs = {item["name"]: item["fields"] for item in definition.get("commonStructs", [])}

    def fields(self, fields):
        """The fields of this version, and those among them that are tagged."""
        here = [f for f in fields if _within(f["versions"], self.version)]
        tagged = [f for f in here if _within(f.get("taggedVersions", "none"), self.version)]
        return [f for f in here if f not in tagged], tagged

    def inner(self, field):
        kind = field["type"].removeprefix("[]")
        return field.get("fields") or self.structs[kind]

    def default(self, field):
        kind, value = field["type"], field.get("default")
        if value == "null":
            return None
        if kind.startswith("[]"):
            return []
        if kind == "bool":
            return value in (True, "true")
        if kind in _NUMBERS:
            return int(str(value), 0) if value else 0
        if kind in _EMPTY:
            return value if value is not None else _EMPTY[kind]
        return {}

    def put(self, fields, values):
        plain, tagged = self.fields(fields)
        unknown = set(values) - {f["name"] for f in fields}
        assert not unknown, f"{self.definition['name']} {self.version}: no fields {unknown}"
        out = b"".join(self.put_field(f, values.get(f["name"], self.default(f))) for f in plain)
        if not self.flexible:
            return out
        given = sorted((f["tag"], self.put_field(f, values[f["name"]])) for f in tagged if f["name"] in values)
        return out + _varint(len(given)) + b"".join(_varint(tag) + _varint(len(data)) + data for tag, data in given)

    def compact(self, field):
        return self.flexible and field.get("flexibleVersions") != "none"

    def put_length(self, field, length, small):
        if self.compact(field):
            return _varint(0 if length is None else length + 1)
        return struct.pack(">h" if small else ">i", -1 if length is None else length)

    def put_field(self, field, value):
        kind = field["type"]
        if not kind.startswith("[]"):
            return self.put_one(field, kind, value)
        if value is None:
            return self.put_length(field, None, False)
        return self.put_length(field, len(value), False) + b"".join(self.put_one(field, kind[2:], item) for item in value)

    def put_one(self, field, kind, value):
        if kind in _NUMBERS:
            return struct.pack(">" + _NUMBERS[kind], value)
        if kind == "uuid":
            return value
        if kind in ("string", "bytes", "records"):
            data = value.encode() if isinstance(value, str) else value
            return self.put_length(field, None if data is None else len(data), kind == "string") + (data or b"")
        if self.nullable_struct(field, kind):
            return b"\xff" if value is None else b"\1" + self.put(self.inner(field), value)
        return self.put(self.inner(field), value)

    def nullable_struct(self, field, kind):
        return kind == field["type"] and _within(field.get("nullableVersions", "none"), self.version)

    def take(self, reader, fields):
        plain, tagged = self.fields(fields)
        values = {f["name"]: self.take_field(reader, f) for f in plain}
        if self.flexible:
            by_tag = {f["tag"]: f for f in tagged}
            values |= {f["name"]: self.default(f) for f in tagged}
            for _ in range(reader.varint()):
                tag, size = reader.varint(), reader.varint()
                if tag in by_tag:
                    values[by_tag[tag]["name"]] = self.take_field(Reader(reader.take(size)), by_tag[tag])
                else:
                    reader.take(size)
        return types.SimpleNamespace(**values)

    def take_length(self, reader, field, small):
        if self.compact(field):
            return reader.varint() - 1
        return reader.number("h" if small else "i")

    def take_field(self, reader, field):
        kind = field["type"]
        if not kind.startswith("[]"):
            return self.take_one(reader, field, kind)
        length = self.take_length(reader, field, False)
        return None if length < 0 else [self.take_one(reader, field, kind[2:]) for _ in range(length)]

    def take_one(self, reader, field, kind):
        if kind in _NUMBERS:
            return reader.number(_NUMBERS[kind])
        if kind == "uuid":
            return reader.take(16)
        if kind in ("string", "bytes", "records"):
            length = self.take_length(reader, field, kind == "string")
            data = None if length < 0 else reader.take(length)
            return data.decode() if kind == "string" and data is not None else data
        if self.nullable_struct(field, kind) and reader.number("b") < 0:
            return None
        return self.take(reader, self.inner(field))


def begin(wire, name, version, **fields):
    """Sends a request; what `end` wants."""
    definitions, keys = _definitions()
    codec = _Codec(definitions[keys[name], "request"], version)
    number = wire.send(keys[name], version, codec.put(codec.definition["fields"], fields), codec.flexible)
    return wire, keys[name], version, number


def end(asked):
    """The answer to what `begin` has sent; it must be the next one of its connection, and nothing may follow its last field."""
    wire, key, version, number = asked
    codec = _Codec(_definitions()[0][key, "response"], version)
    # Whoever does not know the version must be able to read the header of ApiVersions.
    reader = wire.receive(number, codec.flexible and key != 18)
    answer = codec.take(reader, codec.definition["fields"])
    reader.ended()
    return answer


def ask(wire, name, version, **fields):
    """One request, answered."""
    return end(begin(wire, name, version, **fields))


# The shapes that most tests need.


def begin_produce(wire, topic, batches, version=9, acks=-1, timeout_ms=30_000, transactional_id=None):
    """Sends a Produce of {partition: records}; from version 13 on `topic` is an id."""
    parts = [{"Index": index, "Records": records} for index, records in batches.items()]
    data = {"TopicId" if version >= 13 else "Name": topic, "PartitionData": parts}
    return begin(wire, "Produce", version, TransactionalId=transactional_id, Acks=acks, TimeoutMs=timeout_ms, TopicData=[data])


def produced(asked):
    """{partition: its part of the answer} of `begin_produce`."""
    return {part.Index: part for topic in end(asked).Responses for part in topic.PartitionResponses}


def produce(wire, topic, batches, **more):
    """One Produce; {partition: its part of the answer}."""
    return produced(begin_produce(wire, topic, batches, **more))


def begin_offsets(wire, topic, wanted, version=10, isolation=0, epoch=-1):
    """Sends a ListOffsets of [(partition, timestamp)]."""
    parts = [{"PartitionIndex": index, "CurrentLeaderEpoch": epoch, "Timestamp": time} for index, time in wanted]
    more = {"IsolationLevel": isolation} if version >= 2 else {}
    return begin(wire, "ListOffsets", version, ReplicaId=-1, Topics=[{"Name": topic, "Partitions": parts}], **more)


def offsets(*arguments, **more):
    """One ListOffsets; the parts of the answer, by partition."""
    parts = [part for topic in end(begin_offsets(*arguments, **more)).Topics for part in topic.Partitions]
    return sorted(parts, key=lambda part: part.PartitionIndex)


def producer_id(wire):
    """A fresh producer id; its epoch is 0."""
    deadline = time.monotonic() + 30
    while True:
        answer = ask(wire, "InitProducerId", 4, TransactionalId=None, TransactionTimeoutMs=0)
        # Kafka fetches its first block of ids when it is asked for one.
        if answer.ErrorCode != 14 or time.monotonic() > deadline:
            assert (answer.ErrorCode, answer.ProducerEpoch) == (0, 0)
            return answer.ProducerId
        time.sleep(0.02)
