"""A start without a slice that is lost for good: what was acknowledged since is kept, whatever turns up later."""

import shutil
import subprocess

import brokers
import confluent_kafka as ck
import pytest
from load import NOTHING_UPLOADED
from test_fetch import delete_records
from test_librdkafka import create

pytestmark = pytest.mark.timeout(300)

TOPIC = "lost"
ONE_LOG = NOTHING_UPLOADED | {"shards": 1, "wal.capacity.bytes": 64 << 20}


class Accepting(brokers.Thalweg):
    """A broker that starts without what is lost when `flags` say so."""

    flags = ()

    def command(self):
        return [*super().command(), *self.flags]


@pytest.fixture
def broker(made):
    """A broker with ten records of which no object holds any."""
    broker = made(ONE_LOG, kind=Accepting)
    broker.start()
    create(broker, TOPIC, 1)
    append(broker, range(10))
    return broker


def append(broker, numbers):
    """Appends records, each in a batch of its own."""
    producer = ck.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "log_level": 2})
    for number in numbers:
        told = []
        producer.produce(TOPIC, str(number).encode(), partition=0, on_delivery=lambda *outcome, told=told: told.append(outcome))
        assert producer.flush(30) == 0
        ((error, _message),) = told
        assert error is None, error


def held(broker):
    """The first offset of the log, and the numbers of its records."""
    reader = ck.Consumer(
        {"bootstrap.servers": broker.bootstrap, "group.id": "verifier", "auto.offset.reset": "error", "enable.auto.commit": False}
    )
    try:
        low, high = reader.get_watermark_offsets(ck.TopicPartition(TOPIC, 0), 30)
        reader.assign([ck.TopicPartition(TOPIC, 0, low)])
        messages = reader.consume(high - low, 30) if high > low else []
        assert [message.offset() for message in messages] == list(range(low, high))
        return low, [int(message.value()) for message in messages]
    finally:
        reader.close()


def holds_on(broker, numbers):
    """Started once more it has these from offset 0 on, and stops."""
    broker.start()
    assert held(broker) == (0, numbers)
    broker.stop()


def loses_its_log(broker):
    """Dies, and starts without its log; where that is kept."""
    broker.kill()
    kept = broker.directory / "kept"
    shutil.move(broker.data / "wal", kept)
    with pytest.raises(brokers.BrokerFailed, match="--accept-loss"):
        broker.start()
    broker.flags = ("--accept-loss",)
    broker.start()
    broker.flags = ()
    return kept


def drain(broker, path):
    sets = [word for key, value in broker.settings.items() for word in ("--set", f"{key}={value}")]
    command = [broker.binary, "wal", "drain", str(path), *sets]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=broker.environment())


def test_a_log_that_began_anew_at_its_start_is_kept(broker):
    """Records 0 to 7 are deleted, all is lost before any object holds it, and the log goes on at 8."""
    delete_records(broker, TOPIC, 0, 8)
    loses_its_log(broker)
    assert held(broker) == (8, [])
    append(broker, range(100, 105))
    for flags in [(), ("--accept-loss",), ()]:
        broker.kill()
        broker.flags = flags
        broker.start()
        assert held(broker) == (8, [100, 101, 102, 103, 104])
    # Uploaded, it goes on from there too.
    broker.stop()
    broker.remove_wal()
    broker.start()
    append(broker, [105])
    assert held(broker) == (8, [100, 101, 102, 103, 104, 105])
    broker.stop()


def the_slices(kept, broker):
    """The slice that was lost, and the one that the broker went on in."""
    (old,), (new,) = kept.glob("*.wal"), (broker.data / "wal").glob("*.wal")
    assert old.name == new.name, "nothing would know the file under another name"
    return old, new


def test_a_lost_log_that_is_found_again_takes_no_place(broker):
    kept = loses_its_log(broker)
    assert held(broker) == (0, [])
    append(broker, range(100, 105))
    broker.kill()
    drained = drain(broker, kept)
    assert drained.returncode != 0 and "may hold newer records" in drained.stderr, drained
    # Put back, it does not take the place of the other.
    old, new = the_slices(kept, broker)
    aside = broker.directory / "aside"
    shutil.move(new, aside)
    shutil.copyfile(old, new)
    with pytest.raises(brokers.BrokerFailed, match="the WAL slice belongs to slice"):
        broker.start()
    shutil.move(aside, new)
    broker.start()
    broker.stop()
    drained = drain(broker, kept)
    assert drained.returncode == 0, drained
    holds_on(broker, [100, 101, 102, 103, 104])


def test_of_both_logs_the_one_that_went_on_is_drained_first(broker):
    kept = loses_its_log(broker)
    append(broker, range(100, 105))
    broker.kill()
    old, new = the_slices(kept, broker)
    both = broker.directory / "both"
    both.mkdir()
    # By name the lost one comes first.
    shutil.move(old, both / "0.wal")
    shutil.move(new, both / "1.wal")
    drained = drain(broker, both)
    assert drained.returncode == 0, drained
    shutil.move(both / "1.wal", new)
    holds_on(broker, [100, 101, 102, 103, 104])


def test_an_older_copy_of_the_log_is_not_drained_in_its_place(broker):
    """Starts of old gave the id of a lost slice to the one that they made anew: for all that the id says, it may be a lost one."""
    broker.kill()
    copy = shutil.copytree(broker.data / "wal", broker.directory / "copy")
    broker.start()
    append(broker, range(10, 15))
    broker.kill()
    drained = drain(broker, copy)
    assert drained.returncode != 0 and "may hold newer records" in drained.stderr, drained
    # Where there is no other, a copy will do.
    shutil.rmtree(broker.data / "wal")
    drained = drain(broker, copy)
    assert drained.returncode == 0, drained
    shutil.copytree(copy, broker.data / "wal")
    holds_on(broker, list(range(10)))


def test_a_lost_log_that_nothing_records_any_more_is_not_removed(broker):
    """The broker went on with other shards, so that the place of the lost file is nobody's."""
    broker.settings["shards"] = 2
    kept = loses_its_log(broker)
    append(broker, range(100, 105))
    broker.stop()
    (old,) = kept.glob("*.wal")
    back = broker.data / "wal" / old.name
    shutil.copyfile(old, back)
    for _ in range(2):
        broker.start()
        assert "was given up as lost" in broker.fresh_log()
        assert held(broker) == (0, [100, 101, 102, 103, 104])
        broker.stop()
    drained = drain(broker, back)
    assert drained.returncode == 0, drained
    holds_on(broker, [100, 101, 102, 103, 104])
