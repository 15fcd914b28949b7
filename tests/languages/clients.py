"""Which clients run, in which versions, and what they cannot do. tests/install brings them into the cache."""

import pathlib

from brokers import CACHE
from scenarios import Client

HERE = pathlib.Path(__file__).parent


def python(program, environment):
    return [str(CACHE / f"python-{environment}" / "bin" / "python"), str(HERE / "python" / program)]


# Before Fetch 10, which these clients do not speak, a broker gives out no zstd.
WITHOUT_ZSTD = ["none", "gzip", "snappy", "lz4"]
UNKNOWN_87 = "the client does not know error 87 and says -1"

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
]
