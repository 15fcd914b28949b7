"""What a suite of tests is: groups of tests, each run in a process of its own against a broker that somebody else started."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import time

import brokers

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class Result:
    """How one test ended, after how long, and if it did not pass, why."""

    state: str
    seconds: float
    why: str = ""
    attempts: int = 1


@dataclasses.dataclass(frozen=True)
class Group:
    """The tests that one process runs, and the scenario (settings of the broker) they want."""

    name: str
    tests: tuple
    scenario: str = "default"


class Suite:
    """A suite. `groups` is what is run, `left_out` says what is not: {test: why}."""

    name = None
    version = None
    # Settings of the brokers by scenario; both brokers know these names.
    scenarios = {"default": {}}

    def __init__(self, kafka_home):
        self.kafka_home = kafka_home
        self.groups = []
        self.left_out = {}

    def run(self, group, bootstrap, directory, attempt, timeout):
        """Runs a group in one process, in the empty `directory`, and returns {test: Result}."""
        raise NotImplementedError


# Access rules exist, and what they do not name is allowed.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


# The processes under way, so that a runner that is told to stop takes them with it.
RUNNING = set()


def kill_running():
    """Ends what is under way; its tests count as failed."""
    for process in list(RUNNING):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run_process(command, directory, environment, timeout):
    """Runs a command to its end, at most `timeout` seconds, output to `directory`/output.log.

    Returns its exit code (negative: the signal that ended it; None: it was killed after `timeout`) and the seconds it took. What
    it started goes with it.
    """
    began = time.monotonic()
    with open(directory / "output.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        RUNNING.add(process)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            RUNNING.discard(process)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, time.monotonic() - began


def kafka_home(directory):
    """A directory with those of Kafka's scripts that the suites call, as its distribution has them: bin/ and libs/."""
    (directory / "bin").mkdir(parents=True)
    (directory / "libs").symlink_to(brokers.KAFKA_JARS)
    log4j = directory / "log4j2.yaml"
    log4j.write_text("Configuration:\n  Loggers:\n    Root:\n      level: ERROR\n")
    java = f'exec java -Xmx256m -XX:TieredStopAtLevel=1 -Dlog4j2.configurationFile={log4j} -cp "$CLASSPATH:{brokers.KAFKA_JARS}/*"'
    scripts = {
        "kafka-run-class.sh": "",
        "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
        "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
        "kafka-configs.sh": "kafka.admin.ConfigCommand",
    }
    for name, main in scripts.items():
        script = directory / "bin" / name
        script.write_text(f'#!/bin/sh\n{java} {main} "$@"\n')
        script.chmod(0o755)
    return directory


def last_words(text, length=400):
    """The end of what a process wrote, as one line."""
    return " | ".join(line.strip() for line in text.splitlines()[-8:] if line.strip())[-length:]
