"""The process dies at each step of append, upload, commit, trim, seal, deletion, offset commit, start and stop.

`thalweg-faulty --failpoint NAME=N:kill` ends it at the N-th pass of that place in the code; on its devices that is a loss of power. What was
acknowledged is there afterwards, once, in order: from the ring and, when the log was removed, from objects alone.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import brokers
import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from load import NOTHING_UPLOADED, SETTINGS, TOPIC, check_everything, check_everywhere, start

pytestmark = pytest.mark.timeout(300)

# Uploads, commits and trims several times a second.
BUSY = SETTINGS | {"object.upload.bytes": 1 << 20, "object.upload.interval.ms": 200, "shutdown.timeout.ms": 20_000}
# Compactions too, whatever was uploaded.
BUSY |= {"object.compaction.enable": "true", "object.compaction.interval.ms": 100, "object.compaction.objects": 4}
# And what was compacted goes to manifests.
BUSY |= {"metadata.partition.entries.max": 2}
# And the offsets of groups are cleaned.
BUSY |= {"log.cleaner.backoff.ms": 100}
# Name of the failpoint: at which pass.
UNDER_LOAD = {
    "append": {"append-reserved": 500, "append-sealed": 50, "append-durable": 50, "append-exposed": 50, "append-acknowledged": 50},
    "upload": {"upload-reserved": 2, "upload-put": 2, "upload-before-commit": 2, "upload-committed": 2, "upload-synced": 2},
    "compaction": {"compaction-read": 2, "compaction-reserved": 2, "compaction-put": 2, "compaction-committed": 2},
    "folding": {"fold-reserved": 2, "fold-put": 2, "fold-committed": 2},
    "trim": {"trim-begun": 2, "trim-between-superblocks": 2, "trim-done": 2},
}
AT_A_STOP = {"stop-drained": 2, "stop-marked": 2, "stop-synced": 1, "stop-recorded": 1}
AT_A_START = {"start-opened": 1, "rehome-copied": 1, "rehome-recorded": 1}
WITHOUT_A_SLICE = {"renewed-recorded": 1}
AFTER_A_CUT_UPLOAD = {"orphans-taken": 1, "orphans-deleted": 1}
# Topics are created, and every other one is deleted: of passes 1, 2, 3, ... every third is a deletion.
OF_TOPICS = {"control-applied": (11, 12), "control-durable": (12, 13), "control-in-force": (12,)}
OF_GROUPS = {"group-append": 20, "group-durable": 20}
OF_MOVES = {"move-sealed": 3, "move-handed-over": 3, "move-taken-over": 3, "move-taken": 3}
# Partitions move between shards all the time.
RESTLESS = {"shards.balance.interval.ms": 30, "shards.balance.threshold.percent": 1, "shards.balance.cooldown.ms": 0, "shards": 2}
# Rounds over the offsets of a group.
OF_CLEANING = {"cleaning-read": 2, "cleaning-reserved": 2, "cleaning-put": 2, "cleaning-committed": 2, "cleaning-point": 2}


def armed(name, times, act="kill"):
    return ["--failpoint", f"{name}={times}:{act}"]


def rearm(broker, load, *flags):
    """Starts it anew with a failpoint, the records so far in the log."""
    load.wait_for(500, 60)
    broker.kill()
    broker.flags = list(flags)


def dead_at(broker, name, timeout=60):
    assert broker.ended(timeout) == -signal.SIGKILL, broker.fresh_log()[-2000:]
    assert f"failpoint {name}: Kill" in broker.fresh_log()


def all_there_after(broker, load):
    """Starts the broker after its death, and finds all that it acknowledged; returns how much, partition by partition."""
    load.pause()
    acknowledged = list(load.acknowledged)
    broker.flags = []
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    return acknowledged


def recovers(broker, load):
    """After the death: everything acknowledged is there, the load goes on, and in the end objects are enough."""
    load.pause()
    acknowledged = list(load.acknowledged)
    broker.flags = []
    broker.settings["shards"] = 3
    broker.start()
    check_everything(broker.bootstrap, acknowledged)
    load.resume()
    load.wait_for(500, 60)
    check_everywhere(broker, load.finish())


def test_every_failpoint_of_the_source_is_died_at():
    """Nobody adds a failpoint, or renames one, and leaves it out here."""
    found = []
    for folder in ("src", "shards", "wal", "objectstore"):
        for path in sorted((brokers.REPOSITORY / folder).rglob("*.rs")):
            found += re.findall(r'failpoint::pass\(\s*"([^"]+)"', path.read_text())
    tables = (*UNDER_LOAD.values(), AT_A_STOP, AT_A_START, WITHOUT_A_SLICE, AFTER_A_CUT_UPLOAD, OF_TOPICS, OF_GROUPS, OF_CLEANING, OF_MOVES)
    named = [name for table in tables for name in table]
    assert sorted(found) == sorted(named)


@pytest.mark.parametrize("steps", UNDER_LOAD)
def test_death_under_load(faulty, steps):
    """At one step after the other, each time with other slices: every restart finds what the one before left."""
    broker = faulty(BUSY)
    load = None
    for number, (name, times) in enumerate(UNDER_LOAD[steps].items()):
        broker.flags = armed(name, times)
        broker.settings["shards"] = [1, 3, 2, 4][number % 4]
        if load is None:
            load = start(broker)
        else:
            broker.start()
            load.resume()
        dead_at(broker, name)
        acknowledged = all_there_after(broker, load)
        broker.kill()
        print(f"{name}: {sum(acknowledged)} records", flush=True)
    recovers(broker, load)


@pytest.mark.parametrize("name", AT_A_STOP)
def test_death_at_a_clean_stop(faulty, name):
    broker = faulty(BUSY)
    broker.flags = armed(name, AT_A_STOP[name])
    load = start(broker)
    load.wait_for(3_000, 60)
    broker.process.send_signal(signal.SIGTERM)
    dead_at(broker, name)
    recovers(broker, load)


@pytest.mark.parametrize("name", AT_A_START)
def test_death_while_the_log_is_moved_to_other_shards(faulty, name):
    """With another number of shards, so that the slices are re-homed; cut short, that begins again."""
    broker = faulty(NOTHING_UPLOADED | {"shutdown.timeout.ms": 20_000})
    load = start(broker)
    rearm(broker, load, *armed(name, AT_A_START[name]))
    broker.settings["shards"] = 4
    with pytest.raises(brokers.BrokerFailed, match="ended with -9"):
        broker.start()
    assert f"failpoint {name}: Kill" in broker.fresh_log()
    recovers(broker, load)


@pytest.mark.parametrize("name", WITHOUT_A_SLICE)
def test_death_while_a_lost_slice_is_made_anew(faulty, name):
    """The lost slices turn up before there are new ones: nothing was appended since, and all that they hold is brought back."""
    broker = faulty(NOTHING_UPLOADED | {"wal.capacity.bytes": 256 << 20})
    load = start(broker)
    load.wait_for(500, 60)
    broker.kill()
    load.pause()
    kept = broker.directory / "kept"
    shutil.move(broker.data / "wal", kept)
    broker.flags = [*armed(name, WITHOUT_A_SLICE[name]), "--accept-loss"]
    with pytest.raises(brokers.BrokerFailed, match="ended with -9"):
        broker.start()
    assert f"failpoint {name}: Kill" in broker.fresh_log()
    sets = [word for key, value in broker.settings.items() for word in ("--set", f"{key}={value}")]
    subprocess.run([brokers.Thalweg.binary_path(), "wal", "drain", str(kept), *sets], check=True, timeout=120, env=broker.environment())
    recovers(broker, load)


@pytest.mark.parametrize("name", OF_MOVES)
def test_death_while_a_partition_moves(faulty, name):
    """Its records are in two slices, or in one, and are all there: with as many shards, and with others."""
    broker = faulty(BUSY | RESTLESS)
    broker.flags = armed(name, OF_MOVES[name])
    load = start(broker)
    load.shifts = True
    dead_at(broker, name)
    all_there_after(broker, load)
    load.resume()
    load.wait_for(500, 60)
    broker.kill()
    recovers(broker, load)


def ends_at_a_gap(broker):
    """Dies while a partition is in two slices, loses the one that comes first, and starts without it; whether there was such a partition."""
    # Only what is lent is uploaded.
    broker.flags = armed("upload-before-commit", 1)
    load = start(broker)
    load.shifts = True
    dead_at(broker, "upload-before-commit")
    # Nothing is appended any more.
    load.stopping.set()
    load.client.purge()
    load.join(60)
    kept = broker.directory / "kept"
    shutil.copytree(broker.data, kept)
    for number in range(2):
        broker.flags = []
        sorted((broker.data / "wal").glob("*.wal"))[number].unlink()
        with pytest.raises(brokers.BrokerFailed, match="--accept-loss"):
            broker.start()
        broker.flags = ["--accept-loss"]
        broker.start()
        broker.kill()
        if "it ends there, for loss is accepted" in broker.fresh_log():
            return True
        shutil.rmtree(broker.data)
        shutil.copytree(kept, broker.data)
    return False


@contextlib.contextmanager
def busy_cores():
    """Other work on every core."""
    work = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for process in work:
            process.kill()
            process.wait()


def test_a_loss_that_was_accepted_is_not_asked_about_again(faulty):
    """What a partition's old shard held is lost, and what its new shard has is behind a gap, for it was not trimmed."""
    # On busy cores the new shard has appended one time in a few when the upload of what is lent comes to an end; on idle ones next to never.
    with busy_cores():
        for attempt in range(40):
            broker = faulty(NOTHING_UPLOADED | RESTLESS | {"wal.capacity.bytes": 128 << 20, "shards.balance.interval.ms": 200})
            if ends_at_a_gap(broker):
                break
            broker.remove()
    print(f"{attempt + 1} brokers", flush=True)
    broker.flags = []
    broker.start()
    assert "batches count no more" in broker.fresh_log()
    broker.stop()


@pytest.mark.parametrize("name", AFTER_A_CUT_UPLOAD)
def test_death_while_an_orphan_is_removed(faulty, name):
    broker = faulty(BUSY)
    broker.flags = armed("upload-put", 2)
    load = start(broker)
    dead_at(broker, "upload-put")
    broker.flags = armed(name, AFTER_A_CUT_UPLOAD[name])
    # It may die before it is ready.
    with contextlib.suppress(brokers.BrokerFailed):
        broker.start()
    dead_at(broker, name)
    recovers(broker, load)


class Topics(threading.Thread):
    """Creates and deletes topics, one after the other, until the broker is gone."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 2_000})
        self.there, self.gone, self.doubtful = set(), set(), None
        self.start()

    def run(self):
        for number in range(1_000):
            name = f"t{number}"
            with contextlib.suppress(ck.KafkaException):
                self.doubtful = name
                self.client.create_topics([NewTopic(name, 2, 1)], request_timeout=2)[name].result()
                self.there.add(name)
                # Every other one goes again.
                if number % 2:
                    self.there.remove(name)
                    self.client.delete_topics([name], request_timeout=2)[name].result()
                    self.gone.add(name)
                continue
            return


@pytest.mark.parametrize("name, times", [(name, times) for name in OF_TOPICS for times in OF_TOPICS[name]])
def test_death_while_topics_come_and_go(faulty, name, times):
    broker = faulty(BUSY)
    load = start(broker)
    # The next start counts anew.
    rearm(broker, load, *armed(name, times))
    broker.start()
    topics = Topics(broker.bootstrap)
    dead_at(broker, name)
    topics.join(60)
    load.pause()
    broker.flags = []
    broker.start()
    found = set(AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(timeout=30).topics)
    assert topics.there - {topics.doubtful} <= found and not topics.gone & found and len(topics.there) > 3 and len(topics.gone) > 2
    if topics.doubtful in found:
        # Half of it is not there: it can be used, as long as it is.
        producer = ck.Producer({"bootstrap.servers": broker.bootstrap})
        for partition in range(2):
            producer.produce(topics.doubtful, b"x", partition=partition)
        assert producer.flush(30) == 0
    broker.kill()
    recovers(broker, load)


class Commits(threading.Thread):
    """Commits 1, 2, 3, ... for one partition; a commit that the broker's death left open is sent again after the restart."""

    def __init__(self, bootstrap):
        super().__init__(daemon=True)
        self.consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "log_level": 0, "reconnect.backoff.max.ms": 200})
        self.acknowledged, self.stopping = 0, threading.Event()
        self.start()

    def run(self):
        while not self.stopping.is_set():
            with contextlib.suppress(ck.KafkaException):
                self.consumer.commit(offsets=[ck.TopicPartition(TOPIC, 1, self.acknowledged + 1)], asynchronous=False)
                self.acknowledged += 1

    def wait_for(self, count):
        deadline = time.monotonic() + 60
        while self.acknowledged < count:
            assert time.monotonic() < deadline, f"{self.acknowledged} of {count} commits"
            time.sleep(0.005)


def committed(bootstrap):
    """What another member of the group is told, to begin at."""
    consumer = ck.Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "log_level": 0})
    (found,) = consumer.committed([ck.TopicPartition(TOPIC, 1)], 30)
    consumer.close()
    return found.offset


@pytest.mark.parametrize("name", OF_GROUPS | OF_CLEANING)
def test_death_while_offsets_are_committed(faulty, name):
    # Where every object is compacted at once, a round of cleaning may lose against compaction for long: whoever commits second begins anew.
    broker = faulty(BUSY | {"object.compaction.enable": "false"} if name in OF_CLEANING else BUSY)
    load = start(broker)
    commits = Commits(broker.bootstrap)
    # The topic of the offsets is there before the failpoint counts.
    commits.wait_for(1)
    rearm(broker, load, *armed(name, (OF_GROUPS | OF_CLEANING)[name]))
    broker.start()
    dead_at(broker, name)
    acknowledged = commits.acknowledged
    broker.flags = []
    broker.start()
    assert acknowledged > OF_GROUPS.get(name, 0) - 3 and committed(broker.bootstrap) >= acknowledged
    commits.wait_for(acknowledged + 2)
    commits.stopping.set()
    commits.join(30)
    broker.kill()
    recovers(broker, load)
    # From objects alone.
    assert committed(broker.bootstrap) == commits.acknowledged


def test_a_shard_that_stands_still_is_told_and_loses_nothing(faulty):
    """A dead executor: /healthz names it, so that whoever watches kills the process."""
    broker = faulty(BUSY)
    broker.flags = armed("append-sealed", 100, "hang")
    load = start(broker)
    told = ""
    deadline = time.monotonic() + 30
    while "has run nothing for" not in told:
        assert time.monotonic() < deadline and broker.alive(), told
        with contextlib.suppress(OSError):
            try:
                told = urllib.request.urlopen(f"http://{broker.http}/healthz", timeout=5).read().decode()
            except urllib.error.HTTPError as error:
                assert error.code == 503
                told = error.read().decode()
        time.sleep(0.2)
    assert re.search(r"shard \d has run nothing for [5-9] s", told)
    load.pause()
    broker.kill()
    recovers(broker, load)


def test_a_shard_that_panics_ends_the_process(faulty):
    broker = faulty(BUSY)
    broker.flags = armed("append-sealed", 100, "panic")
    load = start(broker)
    assert broker.ended(30) == -signal.SIGABRT
    assert "failpoint append-sealed" in broker.fresh_log()
    recovers(broker, load)
