"""The real broker on devices that lose at its death what was not durable, and that fail: nothing acknowledged is lost.

kill -9 alone does not show that, for the kernel keeps what a dead process has written. `thalweg-faulty` (tests/faulty) serves as
`thalweg` does, over devices that make a kill a loss of power.
"""

import re
import signal
import subprocess
import time

import brokers
import messages
import pytest
from load import NOTHING_UPLOADED, SETTINGS, TOPIC, Load, Lost, check_everything, create_topic, kill_in_a_loop, start
from wire import Connection, Part, Producer, batch, batches_in

pytestmark = pytest.mark.timeout(600)

TIMED_OUT = 7


def last_line(broker):
    return broker.fresh_log().strip().splitlines()[-1]


def test_power_is_lost_in_a_loop(pytestconfig):
    """Every restart with another number of shards and the other way of syncing."""
    broker = brokers.Faulty(SETTINGS)

    def other_sync(number):
        if number >= 0:
            broker.settings["wal.sync"] = ["fdatasync", "dsync"][number % 2]

    kill_in_a_loop(broker, max(pytestconfig.getoption("--rounds"), 4), other_sync)


def test_power_is_lost_in_a_loop_with_nothing_uploaded(pytestconfig):
    kill_in_a_loop(brokers.Faulty(NOTHING_UPLOADED | {"wal.sync": "fdatasync"}), max(pytestconfig.getoption("--rounds") // 2, 1))


def test_without_dsync_the_loss_is_found(faulty):
    """The other way round: with O_DSYNC taken out, the test above must fail."""
    broker = faulty(NOTHING_UPLOADED)
    broker.start()
    create_topic(broker.bootstrap)
    broker.stop()
    broker.flags = ["--without-dsync"]
    broker.start()
    load = Load(broker.bootstrap)
    load.wait_for(10_000, 60)
    acknowledged = load.finish()
    check_everything(broker.bootstrap, acknowledged)
    broker.kill()
    broker.flags = []
    broker.start()
    with pytest.raises(Lost, match=r"holds 0\.\.0, acknowledged were 0\.\.[1-9]"):
        check_everything(broker.bootstrap, acknowledged)


def test_without_a_sync_of_the_metadata_the_loss_is_found(faulty):
    """The ring is trimmed because of commits; when those are not durable, nothing has the records."""
    broker = faulty(SETTINGS | {"object.upload.bytes": 1 << 20})
    broker.start()
    create_topic(broker.bootstrap)
    broker.stop()
    broker.flags = ["--without-metadata-sync"]
    broker.start()
    load = Load(broker.bootstrap)
    load.wait_for(20_000, 60)
    load.finish()
    broker.kill()
    broker.flags = []
    with pytest.raises(brokers.BrokerFailed, match="is neither in it nor in a committed object|is out of date"):
        broker.start()


POISONED = (
    r"stopped: shard \d: the WAL slice is poisoned by an I/O error: Input/output error \(os error 5\); nothing more is acknowledged. "
    r"What was acknowledged is durable: look at the disk, then start again"
)


def goes_on(broker, load, acknowledged):
    """On a sound device everything acknowledged is there, and the paused load goes on to its end."""
    broker.flags = []
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    load.resume()
    load.wait_for(1_000, 60)
    check_everything(broker.bootstrap, load.finish())
    broker.stop()


@pytest.mark.parametrize("fault, sync", [("eio-write=300", "dsync"), ("eio-flush=300", "fdatasync"), ("eio-superblock=12", "dsync")])
def test_an_io_error_stops_the_broker_after_a_last_upload(faulty, fault, sync):
    broker = faulty(SETTINGS | {"wal.sync": sync}, "--device-fault", fault)
    load = start(broker)
    # Well below shutdown.timeout.ms: it ends when the last upload is committed.
    assert broker.ended(20) == 1
    assert re.fullmatch(POISONED, last_line(broker))
    assert " bytes stay in the WAL" not in broker.fresh_log()
    load.pause()
    acknowledged = list(load.acknowledged)
    assert sum(acknowledged) > 1_000
    # All that was durable is uploaded: the log is not needed, nor is it for the producer's state.
    broker.remove_wal()
    goes_on(broker, load, acknowledged)


def test_an_io_error_while_the_store_is_away_leaves_everything_in_the_log(faulty, s3):
    # Room for more than the device takes until it fails: a full log would refuse the rest, and it would not fail at all.
    settings = SETTINGS | s3.settings("io-error") | {"shutdown.timeout.ms": 2_000, "wal.capacity.bytes": 2 << 30}
    broker = faulty(settings, "--device-fault", "eio-write=600")
    load = start(broker)
    load.wait_for(1_000, 60)
    s3.faults.set("down")
    assert broker.ended() == 1
    assert re.fullmatch(POISONED, last_line(broker))
    assert "bytes stay in the WAL" in broker.fresh_log()
    load.pause()
    acknowledged = list(load.acknowledged)
    s3.faults.set("ok")
    broker.settings["shards"] = 3
    goes_on(broker, load, acknowledged)


def test_an_io_error_during_the_stop_is_told_too(faulty):
    """The last upload lets the ring be trimmed; that write is the fifth of a superblock, after creating and opening."""
    broker = faulty(NOTHING_UPLOADED | {"shards": 1}, "--device-fault", "eio-superblock=5")
    load = start(broker)
    load.wait_for(5_000, 60)
    acknowledged = load.finish()
    broker.process.send_signal(signal.SIGTERM)
    assert broker.ended(20) == 1
    assert re.fullmatch(POISONED, last_line(broker))
    broker.remove_wal()
    broker.flags = []
    broker.start()
    check_everything(broker.bootstrap, acknowledged)


@pytest.mark.parametrize("fault", ["eio-write=60", "eio-sync=60"])
def test_an_io_error_of_the_metadata_ends_the_broker(faulty, fault):
    """Nothing can be promised any more, and nothing more is; what was acknowledged lies in the log and in objects."""
    broker = faulty(SETTINGS | {"object.upload.bytes": 1 << 20, "object.upload.interval.ms": 50}, "--metadata-fault", fault)
    load = start(broker)
    assert broker.ended() == -signal.SIGABRT
    assert re.search(r"ERROR .*the metadata cannot be written: the process ends before anything more is promised why=\"?.*Input/output error",
                     broker.fresh_log()), broker.fresh_log()[-2000:]
    load.pause()
    acknowledged = list(load.acknowledged)
    assert sum(acknowledged) > 100
    goes_on(broker, load, acknowledged)


@pytest.mark.parametrize("group", [1, 50, 200])
def test_a_torn_write_at_death(faulty, group):
    broker = faulty(NOTHING_UPLOADED, "--device-fault", f"torn-death={group}")
    load = start(broker)
    assert broker.ended() == -9
    load.pause()
    acknowledged = list(load.acknowledged)
    goes_on(broker, load, acknowledged)


def test_a_stalled_disk_delays_and_loses_nothing(faulty):
    broker = faulty(SETTINGS, "--device-fault", "stall=20:5")
    load = start(broker)
    began = time.monotonic()
    load.wait_for(20_000, 60)
    acknowledged = load.finish()
    assert time.monotonic() - began > 5 and "a device fails: Stall" in broker.fresh_log()
    check_everything(broker.bootstrap, acknowledged)
    broker.stop()
    broker.remove_wal()
    broker.start()
    check_everything(broker.bootstrap, acknowledged)


def test_an_unknown_outcome_is_told_as_such(faulty):
    """Neither as done nor as -1, at which clients give the batch up for lost; who sends it again learns what came of it."""
    broker = faulty({}, "--device-fault", "stall=1:5")
    broker.start()
    create_topic(broker.bootstrap)
    with Connection(broker.bootstrap) as wire:
        producer = messages.producer_id(wire)
        data = batch([b"a", b"b"], producer=Producer(producer, 0, 0))

        def told(**more):
            part = messages.produce(wire, TOPIC, {0: data}, **more)[0]
            return part.ErrorCode, part.BaseOffset

        # A repetition of what is on its way knows no more.
        for _ in range(2):
            began = time.monotonic()
            assert told(timeout_ms=500) == (TIMED_OUT, -1)
            assert 0.5 <= time.monotonic() - began < 2
        assert "a device fails: Stall" in broker.fresh_log()
        assert told() == (0, 0), "when the device is back, the one who asks again is told the offset that it has"
        assert told(timeout_ms=500) == (0, 0)
        # It is there once.
        data = batch([b"c"], producer=Producer(producer, 0, 2))
        assert told() == (0, 2)
        fetched = wire.fetch([Part(TOPIC, 0, 0)]).parts[TOPIC, 0]
        assert [(base, count) for base, count, _ in batches_in(fetched.records)] == [(0, 2), (2, 1)]
    broker.stop()


def test_a_flipped_bit_in_acknowledged_data_refuses_the_start(faulty):
    broker = faulty(NOTHING_UPLOADED | {"shards": 1}, "--device-fault", "flip-bit=20")
    load = start(broker)
    load.wait_for(20_000, 60)
    acknowledged = load.finish()
    broker.kill()
    broker.flags = []
    with pytest.raises(brokers.BrokerFailed) as refused:
        broker.start()
    assert "ended with 2 " in str(refused.value)
    lost = re.search(r"wal\.path: \S+: acknowledged data is damaged at LSN \d+ .*: a record batch in the group fails its CRC; .*"
                     r"; partition (\S+) lacks offsets (\d+) to (\d+)", str(refused.value))
    assert lost and "--accept-loss" in str(refused.value), refused.value
    told = subprocess.run(
        [broker.binary.removesuffix("-faulty"), "wal", "inspect", str(broker.data / "wal")], capture_output=True, text=True, check=True
    ).stdout
    assert f"lacks offsets {lost.group(2)} to {lost.group(3)}" in told, told
    broker.flags = ["--accept-loss"]
    broker.start()
    with pytest.raises(Lost):
        check_everything(broker.bootstrap, acknowledged)
    # What lies before the damage is there, and right.
    index = int(lost.group(1).rsplit("-", 1)[1])
    before = [0] * len(acknowledged)
    before[index] = int(lost.group(2))
    assert before[index] > 0
    check_everything(broker.bootstrap, before)
