"""The machine misbehaves under the real binary: full disks, files cut or swapped, no descriptors, a stopped process, clocks that jump.

What was acknowledged is there afterwards; a start that cannot keep that is refused, in one line that says what to do.
"""

import contextlib
import datetime
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import brokers
import confluent_kafka as ck
import metrics
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from load import NOTHING_UPLOADED, PARTITIONS, SETTINGS, TOPIC, check_everything, check_everywhere, start
from waiting import until
from wire import crc32c

pytestmark = pytest.mark.timeout(300)

ONE_LOG = NOTHING_UPLOADED | {"shards": 1, "wal.capacity.bytes": 256 << 20}
BLOCK = 4096
# What connections leave to the broker (config/host/kernel.rs).
OWN_DESCRIPTORS = 256


def filled(broker, records=3_000):
    """Starts it, writes records, and ends it as kill -9 does; what was acknowledged."""
    load = start(broker)
    load.wait_for(records, 60)
    acknowledged = load.finish()
    broker.kill()
    return acknowledged


def refused(broker, match):
    with pytest.raises(brokers.BrokerFailed) as failure:
        broker.start()
    assert "ended with 2 " in str(failure.value), failure.value
    last = broker.fresh_log().strip().splitlines()[-1]
    assert re.search(match, last), last


# ---- Files of the log and of the metadata -----------------------------------------------------------------------------


def the_slice(broker):
    (path,) = (broker.data / "wal").glob("slice-*.wal")
    return path


def patch(path, at, content):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


def cut_to_half(path, _other):
    os.truncate(path, path.stat().st_size // 2 // BLOCK * BLOCK)


def cut_to_nothing(path, _other):
    os.truncate(path, 0)


def blank(path, _other):
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def of_another_broker(path, other):
    shutil.copyfile(other, path)


def without_superblocks(path, _other):
    patch(path, 0, b"\xff" * 2 * BLOCK)


def of_version(version):
    def change(path, _other):
        for slot in range(2):
            # A version with a wrong CRC would be rot.
            with open(path, "rb") as file:
                file.seek(slot * BLOCK)
                superblock = bytearray(file.read(144))
            superblock[8:12] = struct.pack("<I", version)
            patch(path, slot * BLOCK, superblock + struct.pack("<I", crc32c(superblock)))

    change.__name__ = f"of_version_{version}"
    return change


def missing(path, _other):
    path.unlink()


WAL = {
    cut_to_half: r"^wal\.path: \S+: the WAL ring was created with \d+ bytes and now has \d+: give the slice its old size",
    cut_to_nothing: r"^wal\.path: \S+: the WAL slice has 0 bytes",
    blank: r"^wal\.path: \S+: the WAL slice is blank: it was never created, or it was replaced by an empty one$",
    of_another_broker: r"^wal\.path: \S+: the slice is not of this broker but broker 1's, and may hold what no object has",
    without_superblocks: r"^wal\.path: \S+: both superblocks of the WAL slice are damaged",
    of_version(0): r"^wal\.path: \S+: the WAL slice has format version 0, this broker knows \d+: start the broker that wrote it",
    of_version(9_999): r"^wal\.path: \S+: the WAL slice has format version 9999, this broker knows \d+: start the broker that wrote it",
    missing: r"^wal\.path: the WAL slice \S+ of shard 0 is missing, and it held acknowledged records .*--accept-loss",
}


@pytest.mark.parametrize("change", WAL, ids=lambda change: change.__name__)
def test_a_log_that_is_not_what_it_was(made, change):
    broker = made(ONE_LOG)
    acknowledged = filled(broker)
    other = None
    if change is of_another_broker:
        stranger = made(ONE_LOG)
        filled(stranger, 100)
        other = the_slice(stranger)
    path, kept = the_slice(broker), broker.directory / "kept"
    shutil.copyfile(path, kept)
    change(path, other)
    before = path.read_bytes() if path.exists() and path.stat().st_size < 1 << 20 else None
    refused(broker, WAL[change])
    assert before is None or path.read_bytes() == before, "a refused start leaves the file as it is"
    # With the file back, nothing is lost.
    shutil.copyfile(kept, path)
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    broker.stop()


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def metadata_with_a_flipped_byte_each(directory):
    """sled keeps old copies and room; so not one byte but one in every 64 is changed."""
    path = directory / "db"
    for at in range(32, path.stat().st_size, 64):
        flip(path, at)


def metadata_cut(directory):
    os.truncate(directory / "db", 1_000)


def metadata_without_its_file(directory):
    (directory / "db").unlink()


def metadata_all_gone(directory):
    shutil.rmtree(directory)


METADATA = {
    metadata_with_a_flipped_byte_each: r"metadata",
    metadata_cut: r"metadata",
    metadata_without_its_file: r"metadata",
    metadata_all_gone: r"\"data\.dir\" \S+ is empty, but \"object\.store\.url\" \S+ holds the data of cluster|the slice is not of this broker",
}


@pytest.mark.parametrize("change", METADATA, ids=lambda change: change.__name__)
def test_metadata_that_is_not_what_it_was(made, change):
    """Where no rebuild is allowed the start is refused; with the files back, nothing is lost."""
    upload = {"object.upload.bytes": 1 << 20, "object.upload.interval.ms": 200}
    broker = made(ONE_LOG | upload | {"auto.metadata.rebuild.enable": "false"})
    acknowledged = filled(broker)
    directory, kept = broker.data / "metadata", broker.directory / "kept"
    shutil.copytree(directory, kept)
    change(directory)
    refused(broker, METADATA[change])
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(kept, directory)
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    broker.stop()


# ---- A full disk --------------------------------------------------------------------------------------------------------


@pytest.fixture
def little_disk(tmp_path_factory):
    """A file system of 512 MiB."""
    directory = brokers.work_directory("disk")
    image, disk = directory / "image", directory / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(512 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, text=True)
    mounted = made.returncode == 0 and subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True, text=True)
    if not mounted or mounted.returncode != 0:
        shutil.rmtree(directory)
        pytest.skip(f"CANNOT RUN: no small file system can be mounted here: {made.stderr} {mounted and mounted.stderr}")
    yield disk
    until(lambda: subprocess.run(["umount", str(disk)], capture_output=True).returncode == 0, "umount", 20)
    shutil.rmtree(directory)


def fill(disk):
    """Takes all the room there is, at once."""
    filler, stat = disk / "filler", os.statvfs(disk)
    with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
        os.posix_fallocate(file.fileno(), file.tell(), stat.f_bavail * stat.f_frsize)
    with open(filler, "ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return filler


def created(broker, name):
    """The error that the creation of a topic gets; none when there is none."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 2})
    try:
        admin.create_topics([NewTopic(name, 1, 1)], request_timeout=20)[name].result()
    except ck.KafkaException as error:
        return error.args[0].code()


def ballast(broker):
    return metrics.total(metrics.read(broker), "thalweg_metadata_ballast_bytes")


FULL = "ERROR .*THE DISK OF \"data.dir\" IS NEARLY FULL: its ballast is given up"


BALLAST = 8 << 20


def survives_a_full_disk(broker, disk, goes_on):
    """The disk is full under load, at a start, and again under load: everything goes on but what makes the metadata grow. `goes_on` lets
    the load run until something happened that shows it."""
    try:
        live_on_a_full_disk(broker, disk, goes_on)
    finally:
        # Or the disk cannot be unmounted.
        broker.kill()


def live_on_a_full_disk(broker, disk, goes_on):
    load = start(broker)
    load.wait_for(2_000, 60)
    load.pause()
    assert ballast(broker) >= BALLAST and not re.search(FULL, broker.fresh_log())
    filler = fill(disk)
    until(lambda: re.search(FULL, broker.fresh_log()), "the full disk is told", 20)
    until(lambda: ballast(broker) == 0, "the ballast is given up")
    goes_on(load)
    assert created(broker, "refused") == ck.KafkaError.KAFKA_STORAGE_ERROR
    filler.unlink()
    until(lambda: ballast(broker) >= BALLAST, "the ballast is made again")
    assert "has room again" in broker.fresh_log()
    assert created(broker, "created") is None
    load.resume()
    load.wait_for(2_000, 60)
    load.pause()
    acknowledged = list(load.acknowledged)
    broker.kill()
    # Full to the last block before the start, with the ballast in its place.
    filler = fill(disk)
    broker.start()
    assert re.search(FULL, broker.fresh_log()) and created(broker, "refused") == ck.KafkaError.KAFKA_STORAGE_ERROR
    check_everything(broker.bootstrap, acknowledged)
    goes_on(load)
    # Others take what the ballast left, too: what sled has ahead of its end is enough for a while.
    fill(disk)
    goes_on(load)
    filler.unlink()
    until(lambda: ballast(broker) >= BALLAST, "the ballast is made again")
    load.resume()
    load.wait_for(2_000, 60)
    check_everywhere(broker, load.finish())
    broker.stop()


def test_the_disk_of_the_metadata_is_full(made, little_disk):
    """Objects lie elsewhere: uploads, commits and trims go on, and so do producers."""
    broker = made(SETTINGS | {"object.upload.bytes": 1 << 20, "metadata.ballast.bytes": BALLAST})
    broker.settings |= {"data.dir": little_disk / "data", "object.store.url": f"file://{broker.directory}/bucket", "wal.capacity.bytes": 64 << 20}
    broker.data = little_disk / "data"

    def goes_on(load):
        committed = metrics.total(metrics.read(broker), "thalweg_upload_objects_total")
        load.resume()
        load.wait_for(5_000, 60)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_upload_objects_total") > committed + 5, 60)
        metrics.wait_until(broker, lambda now: metrics.total(now, "thalweg_wal_trim_lag_bytes") < 32 << 20, 60)
        load.pause()

    survives_a_full_disk(broker, little_disk, goes_on)


def test_the_disk_of_log_metadata_and_objects_is_full(made, little_disk):
    """Objects leave the metadata its room: uploads fail, and the log takes what it has room for."""
    broker = made(SETTINGS | {"object.upload.bytes": 1 << 20, "wal.capacity.bytes": 64 << 20, "data.dir": little_disk / "data", "metadata.ballast.bytes": BALLAST})
    broker.data = little_disk / "data"

    def goes_on(load):
        load.resume()
        load.wait_for(500, 60)
        load.pause()
        told = re.compile(rf"WARN .*upload failed; it is tried again .*bytes free, {2 * BALLAST} of them are kept for the metadata")
        before = len(told.findall(broker.fresh_log()))
        until(lambda: len(told.findall(broker.fresh_log())) > before, "the failing upload is told", 60)
        assert broker.alive()

    survives_a_full_disk(broker, little_disk, goes_on)


# ---- The process and its limits -----------------------------------------------------------------------------------------


def test_out_of_descriptors(made):
    """Connections that would take the last 256 are refused; those there are go on, and so do commits, uploads and reads of objects."""
    broker = made(SETTINGS | {"object.upload.bytes": 1 << 20})
    load = start(broker)
    load.wait_for(500, 60)
    used = len(os.listdir(f"/proc/{broker.process.pid}/fd"))
    resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (used + OWN_DESCRIPTORS + 20,) * 2)
    with contextlib.ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(socket.create_connection(("127.0.0.1", broker.kafka_port), 5))
        until(lambda: "connections are refused: the descriptors that are left are the broker's own" in broker.fresh_log(), "it is told")
        load.wait_for(5_000, 60)
        assert broker.alive() and metrics.total(metrics.read(broker), "thalweg_connections_refused_total") > 300
    # Now there is room for others again.
    until(lambda: len(os.listdir(f"/proc/{broker.process.pid}/fd")) < used + 15, "the descriptors are free again")
    check_everywhere(broker, load.finish())


class Member(threading.Thread):
    """Reads the topic in a group with a session of 6 s, and commits."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.consumer = ck.Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest", "session.timeout.ms": 6_000, "log_level": 0,
             "heartbeat.interval.ms": 1_000}
        )
        self.next = [0] * PARTITIONS
        self.failure, self.stopping = None, threading.Event()
        self.start()

    def run(self):
        self.consumer.subscribe([TOPIC])
        while not self.stopping.is_set():
            for message in self.consumer.consume(2_000, 0.2):
                if message.error() is None:
                    partition = message.partition()
                    # What was not committed may come again, nothing is left out.
                    if message.offset() > self.next[partition]:
                        self.failure = f"{partition}: {message.offset()} after {self.next[partition] - 1}"
                    self.next[partition] = max(self.next[partition], message.offset() + 1)
        self.consumer.close()


def test_a_process_stopped_beyond_every_timeout_goes_on(made, pytestconfig):
    """SIGSTOP for longer than the sessions (and, with --minutes above 1, than the clients' requests), then SIGCONT."""
    broker = made(SETTINGS)
    load = start(broker)
    member = Member(broker.bootstrap)
    load.wait_for(2_000, 60)
    until(lambda: sum(member.next) > 500, "the group reads")
    broker.process.send_signal(signal.SIGSTOP)
    # The group's session is 6 s.
    time.sleep(70 if pytestconfig.getoption("--minutes") > 1 else 9)
    broker.process.send_signal(signal.SIGCONT)
    load.wait_for(2_000, 60)
    acknowledged = load.finish()
    until(lambda: all(a <= b for a, b in zip(acknowledged, member.next)), "the group has read everything")
    assert member.failure is None, member.failure
    member.stopping.set()
    member.join(60)
    check_everything(broker.bootstrap, acknowledged)
    assert broker.alive()
    broker.stop()


@pytest.mark.parametrize("hours", [30, -30])
def test_the_wall_clock_jumps(faulty, hours):
    """Under a running broker; the monotonic clock goes on, as the kernel has it. The broker on faulty devices, without a fault: the product's
    allocator asks for the time while the library that changes it asks for memory, and neither gets on."""
    libraries = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("CANNOT RUN: libfaketime is not installed (Debian: libfaketime)")
    # By default Kafka refuses what is an hour ahead of the broker's clock.
    broker = faulty(SETTINGS | {"log.message.timestamp.after.max.ms": 2**63 - 1})
    shift = broker.directory / "shift"
    shift.write_text("+0\n")
    usual = broker.environment
    broker.environment = lambda: usual() | {
        "LD_PRELOAD": str(libraries[0]), "FAKETIME_TIMESTAMP_FILE": str(shift), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }
    load = start(broker)
    member = Member(broker.bootstrap)
    load.wait_for(2_000, 60)
    until(lambda: sum(member.next) > 500, "the group reads")
    shift.write_text(f"{hours:+d}h\n")
    load.wait_for(5_000, 60)
    acknowledged = load.finish()
    until(lambda: all(a <= b for a, b in zip(acknowledged, member.next)), "the group has read everything")
    assert member.failure is None, member.failure
    member.stopping.set()
    member.join(60)
    broker.kill()
    # The start too finds another time than the records have.
    shift.write_text(f"{-hours:+d}h\n")
    broker.start()
    told = re.search(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", broker.fresh_log(), re.MULTILINE)
    ahead = datetime.datetime.fromisoformat(told.group(1) + "+00:00") - datetime.datetime.now(datetime.timezone.utc)
    assert abs(ahead.total_seconds() / 3600 + hours) < 1, f"the broker's clock is {ahead} ahead"
    check_everywhere(broker, acknowledged)
    broker.stop()
