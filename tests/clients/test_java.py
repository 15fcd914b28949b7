"""Apache Kafka's own Java client, and its command-line tools, both of version 4.3.1."""

import subprocess

import brokers
import pytest


def run(command, timeout=300, **more):
    """Runs a command; returns what it printed, and fails with all it said when its exit code is not 0."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "check",
    ["round-trip", "split", "times", "resume", "admin", "rebalance", pytest.param("fresh-topics", marks=pytest.mark.only_thalweg)],
)
def test_java_client(broker, classes, pytestconfig, check):
    command = brokers.java_command("Checks", broker.bootstrap, check, str(pytestconfig.getoption("--records")), heap="1g")
    command[command.index("-cp") + 1] += f":{classes}"
    assert run(command, 500).endswith("ok\n")


def tool(name, *arguments, **more):
    return run(brokers.java_command(name, *map(str, arguments)), **more)


def topics(broker, *arguments):
    return tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.bootstrap, *arguments)


def groups(broker, *arguments):
    return tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", broker.bootstrap, *arguments)


def offsets(broker, topic, *arguments):
    out = tool("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", broker.bootstrap, "--topic", topic, *arguments)
    return sorted(line for line in out.splitlines() if line.startswith(f"{topic}:"))


def test_kafka_topics(broker):
    topics(broker, "--create", "--topic", "tool-topics", "--partitions", 3, "--config", "retention.ms=3600000")
    assert "tool-topics" in topics(broker, "--list").split()
    described = topics(broker, "--describe", "--topic", "tool-topics")
    assert "PartitionCount: 3" in described and "retention.ms=3600000" in described
    topics(broker, "--alter", "--topic", "tool-topics", "--partitions", 4)
    assert "PartitionCount: 4" in topics(broker, "--describe", "--topic", "tool-topics")
    topics(broker, "--delete", "--topic", "tool-topics")
    assert "tool-topics" not in topics(broker, "--list").split()


def test_console_producer_and_consumer(broker):
    topics(broker, "--create", "--topic", "tool-console", "--partitions", 2)
    lines = [f"key{n % 7}\tline {n}" for n in range(1_000)]
    tool(
        "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", broker.bootstrap, "--topic", "tool-console",
        "--reader-property", "parse.key=true", input="\n".join(lines) + "\n",
    )
    read = tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", "tool-console",
        "--group", "tool-console", "--from-beginning", "--max-messages", 1_000, "--timeout-ms", 60_000,
        "--formatter-property", "print.key=true",
    )
    assert sorted(read.splitlines()) == sorted(lines)
    assert [int(line.rsplit(":", 1)[1]) for line in offsets(broker, "tool-console", "--time", -2)] == [0, 0]
    assert sum(int(line.rsplit(":", 1)[1]) for line in offsets(broker, "tool-console")) == 1_000

    described = groups(broker, "--describe", "--group", "tool-console").split("\n")
    rows = [line.split() for line in described if line.startswith("tool-console")]
    assert sum(int(row[3]) for row in rows) == 1_000, described
    assert all(row[5] == "0" for row in rows), "lag"
    assert "tool-console" in groups(broker, "--list").split()
    groups(broker, "--reset-offsets", "--group", "tool-console", "--topic", "tool-console", "--to-earliest", "--execute")
    rows = [line.split() for line in groups(broker, "--describe", "--group", "tool-console").split("\n") if line.startswith("tool-console")]
    assert [row[3] for row in rows] == ["0", "0"]
    groups(broker, "--delete", "--group", "tool-console")
    assert "tool-console" not in groups(broker, "--list").split()


def test_producer_and_consumer_perf_test(broker):
    topics(broker, "--create", "--topic", "tool-perf", "--partitions", 4)
    out = tool(
        "org.apache.kafka.tools.ProducerPerformance", "--topic", "tool-perf", "--num-records", 50_000, "--record-size", 1_000,
        "--throughput", -1, "--producer-props", f"bootstrap.servers={broker.bootstrap}", "acks=all",
    )
    assert "50000 records sent" in out
    out = tool(
        "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", "tool-perf",
        "--num-records", 50_000, "--timeout", 60_000,
    )
    assert sum(int(line.rsplit(":", 1)[1]) for line in offsets(broker, "tool-perf")) == 50_000
    assert ", 50000, " in out or "50000" in out.splitlines()[-1]
