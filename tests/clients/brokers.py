"""Starts and stops the brokers that the tests talk to: the real `thalweg` binary, and Apache Kafka 4.3.1.

Both run as child processes on free loopback ports with their data in a directory of their own. The directory lies on a
real disk (`$THALWEG_TEST_DIR`, by default `target/tests` of the repository), for tmpfs would accept what a disk refuses.
"""

import contextlib
import itertools
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(
    os.environ.get("THALWEG_TEST_CACHE")
    or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "thalweg"
)
KAFKA_JARS = CACHE / "kafka-4.3.1"


def work_directory(prefix):
    """A fresh directory on a real disk."""
    root = pathlib.Path(os.environ.get("THALWEG_TEST_DIR") or REPOSITORY / "target" / "tests")
    root.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=prefix + "-", dir=root))


# Below the ports that the kernel gives to outgoing connections: a client that comes back to a broker that is down could else be
# given the broker's own port. Each process of tests begins elsewhere, and goes round.
PORTS = range(12_000, 32_000)
_next_port = itertools.cycle(PORTS)
for _ in range(os.getpid() * 500 % len(PORTS)):
    next(_next_port)


def free_ports(count):
    """Loopback ports that nobody listens on, all different."""
    return list(itertools.islice(filter(_is_free, _next_port), count))


def _is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class BrokerFailed(Exception):
    """The broker did not start, or ended by itself."""


class Broker:
    """One broker process. `bootstrap` is stable over restarts."""

    def __init__(self, name):
        self.name = name
        self.directory = work_directory(name)
        self.log = self.directory / "broker.log"
        self.process = None
        self.start_ms = None

    def command(self):
        raise NotImplementedError

    def wait_until_ready(self, deadline):
        raise NotImplementedError

    def start(self, timeout=60):
        """Starts the process and waits until it serves; returns self. `start_ms` says how long that took."""
        began = time.monotonic()
        with open(self.log, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory, env=self.environment()
            )
        self.wait_until_ready(began + timeout)
        self.start_ms = (time.monotonic() - began) * 1000
        return self

    def environment(self):
        return dict(os.environ)

    def fresh_log(self):
        """What the process has written since the last start."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def fail(self, why):
        tail = self.fresh_log()[-4000:]
        self.kill()
        raise BrokerFailed(f"{self.name}: {why}\n{tail}")

    def kill(self):
        """kill -9."""
        if self.alive():
            self.process.kill()
            self.process.wait()

    def stop(self, timeout=60):
        """SIGTERM; the exit code must be 0 and come in time."""
        if not self.alive():
            self.fail(f"ended by itself with {self.process.returncode}")
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"did not stop within {timeout} s of SIGTERM")
        if code != self.clean_exit:
            self.fail(f"stopped with exit code {code}")

    def ended(self, timeout=60):
        """Waits until the process ends by itself; returns its exit code."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"still runs after {timeout} s")

    def remove(self):
        """Kills the process if it runs, and removes its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def cpu_seconds(self):
        """CPU time of the running process so far, all threads, user and system."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self):
        """Resident memory of the running process."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * 1024

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, _value, _trace):
        if kind is not None and self.process is not None:
            print(f"--- the end of {self.name}'s log ---\n{self.fresh_log()[-6000:]}", flush=True)
        self.remove()


class Thalweg(Broker):
    """The real binary: `$THALWEG_BIN`, or what `cargo build` left in the target directory."""

    clean_exit = 0

    def __init__(self, settings=None):
        super().__init__("thalweg")
        self.kafka_port, self.http_port = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.kafka_port}"
        self.http = f"127.0.0.1:{self.http_port}"
        self.data = self.directory / "data"
        self.settings = {
            "listeners": self.bootstrap,
            "advertised.listeners": self.bootstrap,
            "http.listen": self.http,
            "data.dir": str(self.data),
            "shards": 2,
            "wal.capacity.bytes": 1 << 30,
            "num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0,
        }
        self.settings.update(settings or {})
        self.binary = self.binary_path()

    @staticmethod
    def binary_path():
        target = os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target"
        return os.environ.get("THALWEG_BIN") or str(pathlib.Path(target) / "debug" / "thalweg")

    def command(self):
        command = [self.binary, "serve"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        return command

    def environment(self):
        # glommio locks its rings in memory.
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return dict(os.environ)

    def remove_wal(self):
        """Takes the write-ahead log away from a stopped broker: objects must be enough."""
        assert not self.alive()
        shutil.rmtree(self.data / "wal")

    def wait_until_ready(self, deadline):
        while True:
            ready = re.search(r"^ready: .*$", self.fresh_log(), re.MULTILINE)
            if ready:
                self.ready_line = ready.group(0)
                return
            if not self.alive():
                self.fail(f"ended with {self.process.returncode} instead of starting")
            if time.monotonic() > deadline:
                self.fail("printed no ready line in time")
            time.sleep(0.005)


class Faulty(Thalweg):
    """The broker on devices that lose at its death what was not durable, and that fail as `flags` say (tests/faulty)."""

    def __init__(self, settings=None, *flags):
        super().__init__(settings)
        self.flags = list(flags)
        self.binary = f"{self.binary}-faulty"

    def command(self):
        return [self.binary, *self.flags, *super().command()[2:]]


class Kafka(Broker):
    """Apache Kafka 4.3.1, KRaft, one node that is broker and controller."""

    # The JVM reports SIGTERM as 128 + 15.
    clean_exit = 143

    def __init__(self, settings=None, heap="1g"):
        super().__init__("kafka")
        self.kafka_port, self.controller_port = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self.kafka_port}"
        self.heap = heap
        self.settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
            "log.dirs": str(self.directory / "data"),
            "num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 8,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        }
        self.settings.update(settings or {})
        self.settings["controller.quorum.voters"] = f"{self.settings['node.id']}@127.0.0.1:{self.controller_port}"
        self.properties = self.directory / "server.properties"
        self.properties.write_text("".join(f"{key}={value}\n" for key, value in self.settings.items()))
        self.log4j = self.directory / "log4j2.yaml"
        self.log4j.write_text(
            "Configuration:\n  Appenders:\n    Console:\n      name: out\n      PatternLayout:\n"
            "        pattern: '%d %p %m (%c)%n'\n  Loggers:\n    Root:\n      level: WARN\n      AppenderRef:\n        - ref: out\n"
        )
        cluster_id = self.java("kafka.tools.StorageTool", "random-uuid").strip().splitlines()[-1]
        self.java("kafka.tools.StorageTool", "format", "--cluster-id", cluster_id, "--config", str(self.properties))

    def java(self, *arguments):
        return subprocess.run(
            java_command(*arguments, log4j=self.log4j), check=True, text=True, capture_output=True, cwd=self.directory
        ).stdout

    def command(self):
        return java_command("kafka.Kafka", str(self.properties), heap=self.heap, log4j=self.log4j)

    def wait_until_ready(self, deadline):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.kafka_port), 1) as s:
                # ApiVersions v0, correlation id 1, no client id: an answer means that requests are handled.
                s.settimeout(2)
                s.sendall(bytes.fromhex("0000000a 0012 0000 00000001 ffff".replace(" ", "")))
                if len(s.recv(64)) > 8:
                    return
            if not self.alive():
                self.fail(f"ended with {self.process.returncode} instead of starting")
            if time.monotonic() > deadline:
                self.fail("answered nothing in time")
            time.sleep(0.02)


class Running:
    """A broker that somebody else started: only its address is known."""

    name = "running"

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def java_command(*arguments, heap="256m", log4j=None, jars=(KAFKA_JARS / "*",)):
    """A command line that runs a class of Kafka's jars."""
    command = ["java", f"-Xmx{heap}", "-XX:+UseG1GC" if heap.endswith("g") else "-XX:TieredStopAtLevel=1", "-cp", ":".join(map(str, jars))]
    if log4j:
        command.append(f"-Dlog4j2.configurationFile={log4j}")
    return command + list(arguments)
