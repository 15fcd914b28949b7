"""The whole path, on text of this machine: lines in through kcat, kill -9, lines out; then out of objects alone.

`--megabytes` says how much; the default suits CI, `--megabytes 2000` is the full measure.
"""

import hashlib
import itertools
import os
import pathlib
import shutil
import subprocess
import time

import brokers
import metrics
import pytest

PARTITIONS = 2
LONGEST_LINE = 900_000
# Where text lies on a machine that builds Rust; what is not there is passed over.
PLACES = {
    "sources": ["~/.cargo/registry/src", "/usr/lib/python3", "~/.pyenv/versions", "/usr/include"],
    "packages": ["/var/lib/dpkg", "/var/lib/apt/lists", "/usr/share/perl", "~/go/pkg/mod", "/usr/lib/node_modules"],
    "documents": ["/usr/share/doc", "/usr/share/man", "/usr/share/common-licenses", "~/.rustup/toolchains", "/usr/share"],
    "logs": ["/var/log", "/usr/share/i18n", "/usr/lib/python3.11", "/usr/lib/jvm", "~/.cargo/registry/index"],
}


def gather(places, into, size):
    """Writes about `size` bytes of lines into the file: whole, not empty, as they are; what there is, again and again.
    Says how many bytes there were."""
    written, once = 0, None
    with open(into, "wb") as out:
        for place in itertools.cycle([*places, None]):
            if place is None:
                once = once or written
                if written == 0:
                    return 0
                continue
            for directory, below, files in os.walk(pathlib.Path(place).expanduser()):
                below.sort()
                for name in sorted(files):
                    path = os.path.join(directory, name)
                    try:
                        if os.path.islink(path) or not os.path.isfile(path):
                            continue
                        with open(path, "rb") as file:
                            text = file.read(16 << 20)
                    except OSError:
                        continue
                    lines = [line for line in text.split(b"\n") if 0 < len(line) < LONGEST_LINE]
                    if lines:
                        written += out.write(b"\n".join(lines) + b"\n")
                    if written >= size:
                        return once or written


@pytest.fixture(scope="module")
def texts(pytestconfig):
    """{(topic, partition): file of lines}."""
    directory = brokers.work_directory("text")
    size = pytestconfig.getoption("--megabytes") * 1_000_000
    files = {}
    for topic, places in PLACES.items():
        whole = directory / topic
        different = gather(places, whole, size // len(PLACES))
        assert different > 1_000_000, f"too little text for {topic}"
        print(f"{topic}: {different / 1e6:.0f} MB of different text, repeated to {whole.stat().st_size / 1e6:.0f} MB")
        # The first half of the bytes, to a whole line, is partition 0.
        with open(whole, "rb") as file:
            file.seek(whole.stat().st_size // 2)
            file.readline()
            half = file.tell()
        for partition, (start, end) in enumerate([(0, half), (half, whole.stat().st_size)]):
            path = directory / f"{topic}-{partition}"
            with open(whole, "rb") as file, open(path, "wb") as out:
                file.seek(start)
                left = end - start
                while left and (piece := file.read(min(left, 1 << 24))):
                    left -= out.write(piece)
            files[topic, partition] = path
        whole.unlink()
    yield files
    shutil.rmtree(directory)


def digest(stream):
    sha = hashlib.sha256()
    while piece := stream.read(1 << 20):
        sha.update(piece)
    return sha.hexdigest()


def produce(broker, texts):
    """Sends every file, two at a time; returns megabytes per second."""
    began, size, waiting, running = time.monotonic(), 0, list(texts.items()), []
    codecs = ["none", "lz4", "zstd", "gzip", "snappy"]
    while waiting or running:
        while waiting and len(running) < 2:
            (topic, partition), path = waiting.pop()
            size += path.stat().st_size
            codec = codecs[len(waiting) % len(codecs)]
            command = ["kcat", "-P", "-b", broker.bootstrap, "-t", topic, "-p", str(partition), "-z", codec, "-l", str(path)]
            running.append(subprocess.Popen(command + ["-X", "acks=all", "-X", "enable.idempotence=true"]))
        assert running.pop(0).wait(600) == 0
    return size / 1e6 / (time.monotonic() - began)


def check(broker, texts):
    """Every topic gives back its lines, byte for byte and in order; returns megabytes per second."""
    began, size = time.monotonic(), 0
    for (topic, partition), path in texts.items():
        command = ["kcat", "-C", "-q", "-b", broker.bootstrap, "-t", topic, "-p", str(partition), "-o", "beginning", "-e"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as reader, open(path, "rb") as file:
            got, want = digest(reader.stdout), digest(file)
        assert reader.returncode == 0 and got == want, f"{topic}/{partition} came back as something else"
        size += path.stat().st_size
    return size / 1e6 / (time.monotonic() - began)


def acknowledged(broker):
    """Sends one record and waits for its acknowledgement."""
    command = ["kcat", "-P", "-b", broker.bootstrap, "-t", "probe", "-p", "0", "-X", "acks=all", "-X", "linger.ms=0"]
    subprocess.run(command, input=b"probe\n", check=True, timeout=60)


def whole_path(broker, texts):
    with broker:
        acknowledged(broker)
        print(f"\nproduced at {produce(broker, texts):.0f} MB/s", flush=True)
        broker.kill()
        began = time.monotonic()
        broker.start()
        acknowledged(broker)
        seconds = time.monotonic() - began
        ring = metric(broker, "thalweg_wal_used_bytes")
        print(
            f"after kill -9 with {ring / 1e6:.0f} MB in the ring: ready in {broker.start_ms:.0f} ms, "
            f"acknowledged after {seconds * 1000:.0f} ms",
            flush=True,
        )
        assert seconds < max(1, ring / 500e6), "the next acknowledgement must come within a second for each 500 MB"
        print(f"read back at {check(broker, texts):.0f} MB/s", flush=True)
        began = time.monotonic()
        broker.stop(timeout=300)
        print(f"stopped in {time.monotonic() - began:.1f} s", flush=True)
        broker.remove_wal()
        broker.start()
        print(f"read from objects at {check(broker, texts):.0f} MB/s", flush=True)
        broker.stop()


# The ring holds everything until the clean stop, so that the restart after the kill finds all of it there.
ALL_IN_THE_RING = {"object.upload.bytes": 5 << 30, "object.upload.interval.ms": 3_600_000, "shutdown.timeout.ms": 240_000}


def ring_settings(pytestconfig):
    # A quarter full would start an upload.
    return ALL_IN_THE_RING | {"wal.capacity.bytes": max(1 << 30, pytestconfig.getoption("--megabytes") * 6_000_000)}


@pytest.mark.timeout(1800)
def test_whole_path_with_a_directory(pytestconfig, texts):
    whole_path(brokers.Thalweg(ring_settings(pytestconfig)), texts)


@pytest.mark.timeout(1800)
def test_whole_path_with_s3(pytestconfig, texts, s3):
    whole_path(brokers.Thalweg(ring_settings(pytestconfig) | s3.settings("path")), texts)


def metric(broker, name, **labels):
    """The sum of a metric over the series that have these labels; there is one."""
    series = {key: value for key, value in metrics.read(broker).items() if key[0] == name and labels.items() <= set(key[1])}
    assert series, f"no metric {name} {labels}"
    return metrics.total(series, name)


@pytest.mark.timeout(1800)
def test_a_small_ring_is_lapped_and_trimmed(pytestconfig, texts):
    """More text than the ring holds: objects are committed and space is freed long before a stop; each tier is read."""
    settings = {
        "wal.capacity.bytes": (256 if pytestconfig.getoption("--megabytes") >= 2000 else 64) << 20,
        "cache.tail.bytes": 1 << 20,
        "cache.read.bytes": 1 << 20,
        # What the last upload left stays in the ring, and most of it has left memory.
        "object.upload.bytes": 8 << 20,
        "object.upload.interval.ms": 600_000,
    }
    with brokers.Thalweg(settings) as broker:
        acknowledged(broker)
        produce(broker, texts)
        total = metric(broker, "thalweg_append_bytes_total")
        assert total > 2 * settings["wal.capacity.bytes"] or sum(p.stat().st_size for p in texts.values()) < 10**9
        assert metric(broker, "thalweg_upload_objects_total") > 4
        check(broker, texts)
        # A consumer that keeps up reads from memory.
        reader = subprocess.Popen(
            ["kcat", "-C", "-q", "-u", "-b", broker.bootstrap, "-t", "probe", "-p", "0", "-o", "beginning", "-c", "3"],
            stdout=subprocess.PIPE,
        )
        for _ in range(3):
            acknowledged(broker)
        assert reader.communicate(timeout=60)[0] == b"probe\n" * 3
        read = {tier: metric(broker, "thalweg_read_bytes_total", tier=tier) for tier in ("tail", "ring", "object")}
        print(read, flush=True)
        assert read["tail"] > 0 and read["ring"] > 0 and read["object"] > total / 2, read
        broker.stop()
