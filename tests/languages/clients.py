"""Which clients run, in which versions, and what they cannot do. tests/install brings them into the cache."""

import pathlib
import shutil

from brokers import CACHE, java_command
from scenarios import Client

HERE = pathlib.Path(__file__).parent


def python(program, environment):
    return [str(CACHE / f"python-{environment}" / "bin" / "python"), str(HERE / "python" / program)]


def go(program, versions):
    return [str(CACHE / f"go-{versions}" / program)]


def java(jars, versions):
    return java_command("Scenarios", jars=[CACHE / jars / "*", CACHE / f"java-{versions}"])


def node(program, *arguments):
    return ["env", f"NODE_PATH={CACHE / 'node' / 'node_modules'}", "node", str(HERE / "node" / program), *arguments]


# Before Fetch 10, which these clients do not speak, a broker gives out no zstd.
WITHOUT_ZSTD = ["none", "gzip", "snappy", "lz4"]
UNKNOWN_87 = "the client does not know error 87 and says -1"
KAFKAJS_TIMES = ([0, 3, 6, 153, 300, 597, 600], "KafkaJS gives the end where no record is that late")
RSKAFKA_LACKS = {
    ("idempotence", ""): "the client has no idempotent producer",
    ("rebalance", ""): "the client has no groups",
    ("commit-resume", ""): "the client has no groups",
    ("headers", "reference"): "the client cannot read a header without a value",
    **{
        ("admin", key): "the client creates, lists and deletes topics, and no more"
        for key in ("bad config", "retention", "grown", "shrunk", "altered", "badly altered", "brokers", "cluster id", "deleted again")
    },
}

CLIENTS = [
    Client("confluent-kafka-python", "2.16.1", python("use_confluent.py", "newest")),
    Client("confluent-kafka-python", "2.0.2", python("use_confluent.py", "older")),
    Client("kafka-python", "3.0.12", python("use_kafka_python.py", "newest"), null_headers=False),
    Client(
        "kafka-python",
        "2.0.2",
        python("use_kafka_python.py", "older"),
        codecs=WITHOUT_ZSTD,
        null_headers=False,
        lacks={("idempotence", ""): "no idempotent producer before 2.1"},
        differs={("tombstones", "refused"): (-1, UNKNOWN_87)},
    ),
    Client("aiokafka", "0.14.0", python("use_aiokafka.py", "newest"), differs={("tombstones", "refused"): (-1, UNKNOWN_87)}),
    Client(
        "aiokafka",
        "0.8.1",
        python("use_aiokafka.py", "older"),
        codecs=WITHOUT_ZSTD,
        differs={("tombstones", "refused"): (-1, UNKNOWN_87)},
    ),
    Client("franz-go", "1.22.2", go("franz", "newest")),
    Client("franz-go", "1.15.3", go("franz", "older")),
    Client("sarama", "1.61.1", go("sarama", "newest")),
    Client(
        "sarama",
        "1.42.1",
        go("sarama", "older"),
        differs={
            ("admin", "badly altered"): (
                "Invalid value soon for configuration retention.ms: Not a number of type LONG",
                "of a refused change of settings the client keeps the words, not the code",
            )
        },
    ),
    Client(
        "kafkajs",
        "2.2.4",
        node("use_kafkajs.js", "kafkajs"),
        headers="grouped",
        null_headers=False,
        differs={("seek-by-time", "offsets"): KAFKAJS_TIMES},
    ),
    Client(
        "kafkajs",
        "1.16.0",
        node("use_kafkajs.js", "kafkajs-older"),
        headers="last",
        null_headers=False,
        differs={("seek-by-time", "offsets"): KAFKAJS_TIMES},
    ),
    Client("kafka-clients", "4.3.1", java("kafka-4.3.1", "newest")),
    Client("kafka-clients", "3.9.1", java("kafka-clients-3.9.1", "older")),
    Client(
        "rskafka",
        "0.6.0",
        [str(CACHE / "rust" / "newest")],
        codecs=WITHOUT_ZSTD,
        headers="last",
        null_headers=False,
        lacks=RSKAFKA_LACKS,
    ),
    Client(
        "rskafka",
        "0.5.0",
        [str(CACHE / "rust" / "older")],
        codecs=WITHOUT_ZSTD,
        headers="last",
        null_headers=False,
        lacks={**RSKAFKA_LACKS, ("seek-by-time", ""): "no offsets by time before 0.6"},
    ),
]

# Of these one version each runs every day, in these scenarios.
SAMPLED = ["franz-go", "kafka-python", "kafkajs"]
SAMPLED_SCENARIOS = ["codecs", "idempotence", "rebalance"]


def sample_of(name):
    """The newest version whose program this machine has: a Go that is too old cannot build the newest. None when it has none."""
    return next((client for client in CLIENTS if client.name == name and shutil.which(client.command[0])), None)
