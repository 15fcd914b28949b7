"""Every client runs every scenario (scenarios.py) as a program of its own, in its own language (clients.py)."""

import json
import subprocess
import time
import warnings

import batches
import confluent_kafka as ck
import pytest
import sample
import scenarios
import use_confluent
from clients import CLIENTS, SAMPLED, SAMPLED_SCENARIOS, sample_of
from confluent_kafka.admin import NewTopic

# An hour ago, in whole seconds: nothing is too old to be kept or too new to be taken.
EPOCH_MS = int(time.time()) * 1_000 - 3_600_000


@pytest.fixture(scope="module")
def administrator(broker):
    return use_confluent.administrator(broker.bootstrap)


def create(broker, administrator, topics):
    """Creates topics, and waits until all of their partitions answer; in Kafka that is a moment later."""
    if not topics:
        return
    made = administrator.create_topics([NewTopic(name, count, 1, config=config) for name, (count, config) in topics.items()])
    for future in made.values():
        future.result(30)
    looker = use_confluent.consumer(broker.bootstrap)
    partitions = [ck.TopicPartition(name, p) for name, (count, _config) in topics.items() for p in range(count)]
    deadline = time.monotonic() + 30
    while partitions:
        try:
            looker.get_watermark_offsets(partitions[-1], 10)
            partitions.pop()
        except ck.KafkaException as error:
            assert time.monotonic() < deadline, error
            time.sleep(0.05)
    looker.close()


@pytest.fixture(scope="module")
def reference(broker, administrator):
    """The topics `reference-CODEC`: every field there is, from the newest librdkafka."""
    create(broker, administrator, {f"reference-{codec}": (1, {}) for codec in scenarios.CODECS})
    for codec in scenarios.CODECS:
        producer = use_confluent.producer(broker.bootstrap, compression_type=codec, linger_ms=100)
        use_confluent.send(producer, f"reference-{codec}", use_confluent.samples(range(scenarios.REFERENCE_RECORDS), 1, EPOCH_MS))


def run(client, scenario, broker):
    command = [*client.command, scenario, broker.bootstrap, client.label, str(EPOCH_MS), ",".join(client.codecs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    said = f"{done.stdout[-2000:]}\n{done.stderr[:2000]}\n...\n{done.stderr[-4000:]}"
    # What a program had to work around stands in the summary of the run.
    for note in [line for line in done.stderr.splitlines() if line.startswith("NOTE: ")]:
        warnings.warn(f"{client.label}, {scenario}: {note}", stacklevel=1)
    assert done.returncode == 0, said
    lines = done.stdout.splitlines()
    assert lines, said
    return json.loads(lines[-1])


def check_stored(broker, client, scenario):
    """What the broker stored, seen without the client: codecs, idempotent batches, committed offsets, and all fields."""
    bootstrap, prefix = broker.bootstrap, client.label
    if scenario == "codecs":
        for codec in client.codecs:
            topic = f"{prefix}-codecs-{codec}"
            stored = [batch for partition in range(3) for batch in batches.read(bootstrap, topic, partition)]
            # Some clients send a batch plain that compression would make larger.
            assert codec in {batch.codec for batch in stored} <= {codec, "none"}
            read = use_confluent.read_all(bootstrap, topic, 3)
            assert scenarios.as_client(client, read) == scenarios.as_client(client, scenarios.samples(300, 3, EPOCH_MS, client.null_headers))
    elif scenario == "idempotence":
        producers = set()
        for partition in range(3):
            sequence = 0
            for batch in batches.read(bootstrap, f"{prefix}-idempotence", partition):
                assert batch.base_sequence == sequence == batch.base_offset, batch
                sequence += batch.count
                producers.add(batch.producer_id)
            assert sequence == 1_000
        assert len(producers) == 1 and producers.pop() >= 0
    elif scenario == "headers":
        read = use_confluent.read_all(bootstrap, f"{prefix}-headers", 1)
        assert scenarios.as_client(client, read) == scenarios.as_client(client, scenarios.samples(100, 1, EPOCH_MS, client.null_headers))
    elif scenario == "commit-resume":
        looker = use_confluent.consumer(bootstrap, f"{prefix}-commit-resume")
        assert looker.committed([ck.TopicPartition(f"{prefix}-commit-resume", 0)], 30)[0].offset == 300
        looker.close()


def every_client_in_every_scenario():
    """Those of the everyday run bear a mark."""
    samples = [sample_of(name) for name in SAMPLED]
    for client in CLIENTS:
        for scenario in scenarios.SCENARIOS:
            marks = [pytest.mark.sample] if client in samples and scenario in SAMPLED_SCENARIOS else []
            yield pytest.param(client, scenario, id=f"{client.label}-{scenario}", marks=marks)


@pytest.mark.sample
@pytest.mark.parametrize("name", SAMPLED)
def test_the_sample_is_whole(name):
    if sample_of(name) is None:
        pytest.skip(f"CANNOT RUN: there is no program of {name}; tests/install languages-sample says why")


@pytest.mark.parametrize("client, scenario", every_client_in_every_scenario())
def test_client(broker, administrator, reference, client, scenario):
    wanted = scenarios.expected(client, scenario, EPOCH_MS)
    if wanted is None:
        pytest.skip(client.lacks[scenario, ""])
    create(broker, administrator, {f"{client.label}-{name}": topic for name, topic in scenarios.TOPICS[scenario].items()})
    saw = scenarios.normal(client, run(client, scenario, broker))
    assert sorted(saw) == sorted(wanted)
    for key, content in wanted.items():
        assert saw[key] == content, key
    check_stored(broker, client, scenario)


def test_every_client_has_something_of_every_kind():
    """`lacks` and `differs` name keys that exist."""
    for client in CLIENTS:
        for scenario, key in [*client.lacks, *client.differs]:
            assert key == "" or key in scenarios.SCENARIOS[scenario](client, EPOCH_MS), (client.label, scenario, key)
        assert sample.noise(2, 5) != sample.noise(4, 5)
