"""What signals do while the object store does not answer: the stop ends, says what it leaves, and nothing acknowledged is lost."""

import re
import signal
import time

import brokers
import pytest
from load import NOTHING_UPLOADED, Load, check_everything, create_topic

# What the store does, and the stops meanwhile: shutdown.timeout.ms and the signal.
STOPS = {"down": [(200, signal.SIGTERM)], "hang": [(200, signal.SIGTERM), (2_500, signal.SIGINT)]}


def loaded(broker):
    """Starts a broker on which a load runs, nothing of it uploaded yet."""
    broker.start()
    create_topic(broker.bootstrap)
    load = Load(broker.bootstrap)
    load.wait_for(2_000, 60)
    return load


def paused(load):
    """What is acknowledged once nothing is sent any more."""
    load.pause()
    return list(load.acknowledged)


def goes_on(broker, s3, load, acknowledged):
    """With the store back, everything acknowledged is there, the load goes on, and a stop leaves nothing in the log."""
    s3.faults.set("ok")
    broker.settings["shutdown.timeout.ms"] = 60_000
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    load.resume()
    load.wait_for(100, 60)
    acknowledged = load.finish()
    broker.stop()
    assert left_in_the_log(broker) == (0, {})
    broker.remove_wal()
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    broker.stop()


def left_in_the_log(broker):
    """The bytes that a stop says it leaves: in all, and {shard: bytes}."""
    log = broker.fresh_log()
    by_shard = re.findall(r"bytes stay in the WAL; the next start uploads them shard=(\d+) bytes=(\d+)", log)
    (total,) = re.findall(r"stopped wal_bytes_left=(\d+)", log)
    return int(total), {int(shard): int(size) for shard, size in by_shard}


@pytest.mark.parametrize("mode", STOPS)
def test_a_stop_waits_for_the_store_as_long_as_it_is_told(mode, s3):
    """"shutdown.timeout.ms" is how long; then it says how many bytes stay, and exits with 0. Ctrl-C is as good as SIGTERM."""
    broker = brokers.Thalweg(NOTHING_UPLOADED | s3.settings("stop"))
    took = {}
    try:
        load = loaded(broker)
        for timeout_ms, number in STOPS[mode]:
            broker.kill()
            broker.settings["shutdown.timeout.ms"] = timeout_ms
            s3.faults.set("ok")
            broker.start()
            load.wait_for(100, 60)
            s3.faults.set(mode)
            began = time.monotonic()
            broker.process.send_signal(number)
            assert broker.ended() == 0
            took[timeout_ms] = time.monotonic() - began
            total, by_shard = left_in_the_log(broker)
            assert total == sum(by_shard.values()) > 100_000 and set(by_shard) == {0, 1}
        # By default it would be half a minute.
        assert took[200] < 20 and (mode == "down" or took[200] < took[2_500] >= 2.5), took
        goes_on(broker, s3, load, paused(load))
    finally:
        broker.remove()


@pytest.mark.parametrize("first, second", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_the_process_at_once(first, second, s3):
    broker = brokers.Thalweg(NOTHING_UPLOADED | s3.settings("twice") | {"shutdown.timeout.ms": 120_000})
    try:
        load = loaded(broker)
        s3.faults.set("hang")
        broker.process.send_signal(first)
        deadline = time.monotonic() + 30
        while "stopping; a second signal ends the process at once" not in broker.fresh_log():
            assert time.monotonic() < deadline, "the first signal is not heard"
            time.sleep(0.005)
        assert broker.alive(), "it waits for the store"
        broker.process.send_signal(second)
        # Far below shutdown.timeout.ms.
        assert broker.ended(20) == 128 + second
        assert "stopped wal_bytes_left" not in broker.fresh_log()
        goes_on(broker, s3, load, paused(load))
    finally:
        broker.remove()
