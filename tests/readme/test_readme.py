"""Runs README.md: every command of its console blocks, in order, with the output that stands below it.

`cargo run --release` is replaced by the binary under test, started in an empty directory with no arguments.
"""

import os
import pathlib
import re
import socket
import stat
import subprocess
import time

import brokers
import pytest

README = brokers.REPOSITORY / "README.md"
KAFKA_SCRIPTS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def commands(block):
    """[(command, the lines of output below it)]."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


class OutOfTheBox(brokers.Thalweg):
    """The binary without arguments: default ports, data below the current directory."""

    def __init__(self):
        super().__init__()
        self.bootstrap, self.data = "127.0.0.1:9092", self.directory / "thalweg-data"

    def command(self):
        return [self.binary]


@pytest.fixture
def environment(tmp_path):
    """The commands that README.md takes for granted, in PATH."""
    for script, name in KAFKA_SCRIPTS.items():
        path = tmp_path / script
        path.write_text(f'#!/bin/sh\nexec java -Xmx256m -cp "{brokers.KAFKA_JARS}/*" {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    venv = pathlib.Path(brokers.CACHE / "venv" / "bin")
    return dict(os.environ, PATH=f"{tmp_path}:{venv}:{os.environ['PATH']}")


def test_readme_works_word_for_word(environment, tmp_path):
    for port in (9092, 9644):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    start, *rest = [command for block in blocks("console") for command in commands(block)]
    assert start[0] == "cargo run --release"
    (program,) = blocks("python")
    (tmp_path / "readers.py").write_text(program)
    with OutOfTheBox() as broker:
        assert broker.ready_line.split(" shards=")[0] == start[1][0].split(" shards=")[0]
        for command, expected in rest:
            began = time.monotonic()
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            assert done.stdout.splitlines() == expected, f"{command}\n{done.stderr}"
            print(f"{time.monotonic() - began:5.1f} s  {command}", flush=True)
        broker.stop()
