"""Kafka's command-line tools, of version 4.3.1, against Thalweg and against Apache Kafka beside it: the same words.

Ids, times, addresses and measurements are masked. What still differs stands in differences.toml, line by line and with the
reason; anything else fails. `THALWEG_TEST_RECORD=1` writes what was found there: reasons are then to be filled in by hand.
"""

import base64
import concurrent.futures
import difflib
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import time
import tomllib

import brokers
import pytest
from commands import STEPS, TOOLS

DIFFERENCES = pathlib.Path(__file__).parent / "differences.toml"

MASKS = [
    (r"console-consumer-\d+", "console-consumer-N"),
    (r"(?m)(?<=\sEpoch: )\d+$", "N"),
    (r"(?<=tries=)\d+|(?<=after )\d+(?= attempt)|(?<=HighWatermark: )\s*\d+", "N"),
    (r"(?<=MaxFollowerLagTimeMs:)\s*\d+", " N"),
    (r"\b127\.0\.0\.1:\d+\b", "ADDRESS"),
    (r"\b(localhost|127\.0\.0\.1)\b", "HOST"),
    (r"(?<=HOST)(\s+)\d{4,5}\b", r"\1PORT"),
    (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "UUID"),
    (r"(?i)((?:topic|cluster) ?id: +)[A-Za-z0-9_-]{22}\b", r"\1ID"),
    (r"\b1[0-9]{12}\b", "TIME"),
    # How producers cut their batches depends on time; tests/clients/test_administration.py compares sizes.
    (r'(?<="size":)\d+', "N"),
    (r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,:]\d{3}", "TIME"),
]
MEASURED = (r"\d+([.,]\d+)?", "N")


def masked(text, step, names):
    for name, mask in names:
        text = text.replace(name, mask)
    for pattern, mask in MASKS + [MEASURED] * step.measures:
        text = re.sub(pattern, mask, text)
    # What the tools say about their own logging; stack traces are of the tool, and their line numbers too.
    lines = [line.rstrip() for line in text.splitlines() if not line.startswith(("SLF4J:", "\tat ", "\t... "))]
    if step.measures:
        # A progress line for each moment: how many there are depends on speed.
        lines = list(dict.fromkeys(lines))
    # Columns are as wide as the widest address.
    lines = [re.sub(r"[ \t]+", " ", line) for line in lines]
    return sorted(lines) if step.unordered else lines


class Lane:
    """One broker with all the steps run against it."""

    def __init__(self, broker, classes):
        self.broker = broker
        self.running = {}
        self.runner = subprocess.Popen(
            brokers.java_command("ToolRunner", jars=[brokers.KAFKA_JARS / "*", classes], heap="512m"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self.files = broker.directory / "files"
        self.files.mkdir()

    def command(self, step):
        for name, content in step.files.items():
            (self.files / name).write_text(content)
        tool, *arguments = shlex.split(step.line)
        fill = {"bootstrap": self.broker.bootstrap, "dir": self.files}
        return [tool, *(argument.format(**fill) for argument in arguments)]

    def attempt(self, step):
        tool, *arguments = self.command(step)
        if step.alone:
            command = brokers.java_command(TOOLS[tool], *arguments)
            done = subprocess.run(command, input=step.stdin, capture_output=True, text=True, timeout=90, check=False)
            code, out, err = done.returncode, done.stdout, done.stderr
        else:
            code, out, err = self.in_runner(TOOLS[tool], step.stdin, *arguments)
        names = [(str(self.broker.directory), "DIRECTORY")]
        return [f"exit {code}", *masked(out, step, names), *(f"stderr: {line}" for line in masked(err, step, names))]

    def in_runner(self, *request):
        self.runner.stdin.write(b"\t".join(base64.b64encode(part.encode()) for part in request) + b"\n")
        self.runner.stdin.flush()
        answer = self.runner.stdout.readline().split()
        assert answer, f"the JVM ended at {request}"
        code, out, err = map(int, answer)
        return code, self.runner.stdout.read(out).decode(), self.runner.stdout.read(err).decode()

    def run(self, step):
        if step.background:
            tool, *arguments = self.command(step)
            self.running[step.line] = subprocess.Popen(
                brokers.java_command(TOOLS[tool], *arguments), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return ["started"]
        if step.stops:
            process = self.running.pop(step.stops)
            process.terminate()
            process.wait(30)
            return ["stopped"]
        deadline = time.monotonic() + 30
        while True:
            said = self.attempt(step)
            if not step.until or any(step.until in line for line in said) or time.monotonic() > deadline:
                return said
            time.sleep(0.2)

    def run_all(self):
        try:
            return [self.run(step) for step in STEPS]
        finally:
            for process in [*self.running.values(), self.runner]:
                process.kill()
                process.wait()
            shutil.rmtree(self.files)


@pytest.fixture(scope="module")
def said():
    """For each step what Kafka said and what Thalweg said."""
    with (
        brokers.Kafka() as kafka,
        brokers.Thalweg({"offsets.topic.num.partitions": 8}) as thalweg,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        classes = kafka.directory / "classes"
        sources = pathlib.Path(__file__).parent / "java" / "ToolRunner.java"
        javac = ["javac", "-Xlint:all", "-Werror", "-cp", f"{brokers.KAFKA_JARS}/*", "-d", classes, sources]
        subprocess.run(javac, check=True)
        lanes = [threads.submit(Lane(broker, classes).run_all) for broker in (kafka, thalweg)]
        return list(zip(*(lane.result() for lane in lanes)))


def differences():
    if not DIFFERENCES.exists():
        return {}
    return {entry["step"]: entry for entry in tomllib.loads(DIFFERENCES.read_text())["difference"]}


def difference(kafka, thalweg):
    """The lines that only one of them said: `-` Kafka, `+` Thalweg."""
    lines = list(difflib.unified_diff(kafka, thalweg, n=0, lineterm=""))[2:]
    return [line for line in lines if not line.startswith("@@")]


def key(number):
    """A step's name, with its number among equal ones."""
    earlier = sum(step.name == STEPS[number].name for step in STEPS[:number])
    return STEPS[number].name + (f" #{earlier + 1}" if earlier else "")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(len(STEPS)), ids=key)
def test_tool(said, number):
    found = difference(*said[number])
    known = differences().get(key(number), {"lines": "", "reason": ""})
    if os.environ.get("THALWEG_TEST_RECORD"):
        with open(os.environ["THALWEG_TEST_RECORD"], "a") as record:
            record.write(f"=== {key(number)}\n" + "\n".join(said[number][0]) + "\n--- differs\n" + "\n".join(found) + "\n")
    assert found == known["lines"].splitlines(), "\n".join(said[number][0])
    assert not found or known["reason"].strip(), "a difference needs a reason"


def test_every_listed_difference_is_of_a_step():
    names = {key(number) for number in range(len(STEPS))}
    assert set(differences()) <= names
