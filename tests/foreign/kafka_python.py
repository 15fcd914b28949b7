"""kafka-python's integration tests: pytest, one process per test."""

import os
import re
import subprocess

import brokers
from suite import AUTHORIZER, FAILED, PASSED, SKIPPED, Group, Result, Suite, last_words, run_process

# What KAFKA_VERSION is told: the newest version that both brokers speak.
KAFKA_VERSION = "4.1.0"

# The source distribution lacks test/service.py. With KAFKA_URI nothing is started, so this much of it is enough.
SERVICE = '''
class ExternalService:
    """A broker that somebody else started."""

    def __init__(self, host, port):
        self.host, self.port = host, port

    def open(self):
        pass

    close = stop = dump_logs = open


class SpawnedService:
    def __init__(self, *_):
        raise NotImplementedError("these tests start nothing")
'''


class KafkaPython(Suite):
    name = "kafka-python"
    # As its own fixture starts a broker; some tests name broker 0, one asks for a session of three seconds.
    scenarios = {"default": {"num.partitions": 4, "node.id": 0, "group.min.session.timeout.ms": 1000, **AUTHORIZER}}

    def __init__(self, kafka_home):
        super().__init__(kafka_home)
        (home,) = (p for p in brokers.CACHE.glob("kafka-python-*") if (p / ".complete").exists())
        self.version = home.name.removeprefix("kafka-python-")
        self.source = home / "source"
        self.pytest = [str(home / "venv" / "bin" / "python"), "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(self.source)]
        (self.source / "test" / "__init__.py").touch()
        (self.source / "test" / "service.py").write_text(SERVICE)
        self._collect()

    def _environment(self, bootstrap):
        return {
            **os.environ,
            "KAFKA_URI": f"kafka://{bootstrap}",
            "KAFKA_VERSION": KAFKA_VERSION,
            "KAFKA_ROOT": str(self.kafka_home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.source),
        }

    def _collect(self):
        command = [*self.pytest, "--collect-only", "-q", "test/integration"]
        listed = subprocess.run(
            command, cwd=self.source, env=self._environment("127.0.0.1:1"), text=True, capture_output=True, check=True
        ).stdout
        for test in re.findall(r"^test/integration/(\S+::.+)$", listed, re.MULTILINE):
            if test.startswith(("test_sasl_", "test_ssl_")):
                self.left_out[test] = "starts a broker of its own"
            else:
                self.groups.append(Group(test, (test,)))
        self.left_out["everything outside test/integration"] = "needs no broker"

    def run(self, group, bootstrap, directory, attempt, timeout):
        report = directory / "report.xml"
        command = [*self.pytest, "-o", "addopts=", f"--timeout={timeout}", "--timeout-method=thread", f"--junitxml={report}", "-rs"]
        command.append(str(self.source / "test" / "integration" / group.name))
        code, seconds = run_process(command, directory, self._environment(bootstrap), timeout + 10)
        (test,) = group.tests
        text = (directory / "output.log").read_text(errors="replace")
        if code == 0 and re.search(r"\b1 passed", text):
            return {test: Result(PASSED, seconds)}
        if code == 0 and re.search(r"\b1 skipped", text):
            why = re.search(r"^SKIPPED .*?: (.*)$", text, re.MULTILINE)
            return {test: Result(SKIPPED, seconds, why.group(1) if why else "")}
        errors = re.findall(r"^E {3,}(\S.*)$", text, re.MULTILINE)
        how = "killed: it did not end in time" if code is None else ""
        return {test: Result(FAILED, seconds, how or (errors[-1] if errors else last_words(text)))}
