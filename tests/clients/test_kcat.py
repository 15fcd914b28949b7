"""kcat, as Debian ships it (an old librdkafka): lines in, lines out."""

import json
import shutil
import subprocess

import brokers
import pytest
from records import CODECS, record

PARTITIONS = 4


@pytest.fixture(scope="module")
def directory():
    path = brokers.work_directory("kcat")
    yield path
    shutil.rmtree(path)


def kcat(broker, *arguments, timeout=120, **more):
    done = subprocess.run(
        ["kcat", "-b", broker.bootstrap, *map(str, arguments)], capture_output=True, timeout=timeout, check=False, **more
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def lines(first, count):
    """Records as kcat reads them: key, tab, value; `-Z` makes an empty one null."""
    return [record(n, text=True)._replace(headers=[]) for n in range(first, first + count)]


@pytest.fixture(scope="module")
def produced(broker, directory, pytestconfig):
    """{topic: its records in the order sent}, a fifth with each codec, all to partition 0 so that the order is known."""
    each = pytestconfig.getoption("--records") // len(CODECS)
    topics = {}
    for n, codec in enumerate(CODECS):
        records = lines(n * each, each)
        path = directory / codec
        path.write_bytes(b"".join((r.key or b"") + b"\t" + (r.value or b"") + b"\n" for r in records))
        topic = f"kcat-{codec}"
        kcat(
            broker, "-P", "-t", topic, "-p", 0, "-z", codec, "-K", "\t", "-Z", "-l", path,
            "-H", "name=value", "-H", "name=another", "-H", "empty=",
        )
        topics[topic] = records
    return topics


def check(message, offset, expected):
    assert message["offset"] == offset
    assert message["key"] == (expected.key.decode() if expected.key else None), offset
    assert message["payload"] == (expected.value.decode() if expected.value else None), offset
    assert message["headers"] == ["name", "value", "name", "another", "empty", ""], offset


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_without_a_group(broker, produced, codec):
    topic = f"kcat-{codec}"
    read = kcat(broker, "-C", "-t", topic, "-p", 0, "-o", "beginning", "-e", "-J", "-q").splitlines()
    assert len(read) == len(produced[topic])
    for offset, (line, expected) in enumerate(zip(read, produced[topic])):
        check(json.loads(line), offset, expected)


def test_round_trip_in_a_group(broker, produced):
    total = sum(map(len, produced.values()))
    out = kcat(broker, "-G", "kcat-group", "-X", "auto.offset.reset=earliest", "-c", total, "-J", "-q", *produced)
    read = {topic: [] for topic in produced}
    for line in out.splitlines():
        message = json.loads(line)
        read[message["topic"]].append(message)
    for topic, messages in read.items():
        assert len(messages) == len(produced[topic])
        for offset, (message, expected) in enumerate(zip(messages, produced[topic])):
            check(message, offset, expected)


def test_the_list_of_topics(broker, produced):
    listed = json.loads(kcat(broker, "-L", "-J"))
    topics = {t["topic"]: t["partitions"] for t in listed["topics"]}
    for topic in produced:
        assert sorted(p["partition"] for p in topics[topic]) == list(range(PARTITIONS))
    assert [b["name"] for b in listed["brokers"]] == [broker.bootstrap]


def test_a_stream_of_lines_from_standard_input(broker, topic):
    text = b"".join(b"line %d\n" % n for n in range(10_000))
    kcat(broker, "-P", "-t", topic, "-p", 1, input=text)
    assert kcat(broker, "-C", "-t", topic, "-p", 1, "-o", "beginning", "-e", "-q") == text
    assert kcat(broker, "-C", "-t", topic, "-p", 1, "-o", "-3", "-e", "-q") == b"line 9997\nline 9998\nline 9999\n"
    assert kcat(broker, "-C", "-t", topic, "-p", 1, "-o", 5000, "-c", 1, "-q") == b"line 5000\n"


def test_offsets_by_time(broker, topic):
    kcat(broker, "-P", "-t", topic, "-p", 0, input=b"a\nb\nc\n")
    first = json.loads(kcat(broker, "-C", "-t", topic, "-p", 0, "-o", "beginning", "-c", 1, "-J", "-q"))
    asked = json.loads(kcat(broker, "-Q", "-J", "-t", f"{topic}:0:{first['ts']}"))
    assert asked[topic]["0"]["offset"] == 0
    out = kcat(broker, "-C", "-t", topic, "-p", 0, "-o", f"s@{first['ts']}", "-e", "-q")
    assert out == b"a\nb\nc\n"
