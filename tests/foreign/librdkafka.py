"""librdkafka's own tests: its test-runner, one process per test number."""

import contextlib
import os
import re

import brokers
from suite import AUTHORIZER, FAILED, PASSED, SKIPPED, Group, Result, Suite, last_words, run_process

# What TEST_KAFKA_VERSION is told: the newest version that both brokers speak.
KAFKA_VERSION = "4.1.0.0"
ADMIN = "0081"
STATES = {"PASSED": PASSED, "SKIPPED": SKIPPED}


class Librdkafka(Suite):
    name = "librdkafka"
    # `default` and `noautocreate` are librdkafka's own scenarios; the others differ in the broker only.
    _CLUSTER = {"num.partitions": 4, "broker.rack": "RACK1"}
    scenarios = {
        "default": _CLUSTER,
        "noautocreate": {**_CLUSTER, "auto.create.topics.enable": "false"},
        # These count rebalances, and expect a group to start as with Kafka's defaults.
        "delayed": {**_CLUSTER, "group.initial.rebalance.delay.ms": 3000},
        "acls": {**_CLUSTER, **AUTHORIZER},
    }

    def __init__(self, kafka_home):
        super().__init__(kafka_home)
        (home,) = (p for p in brokers.CACHE.glob("librdkafka-*") if (p / ".complete").exists())
        self.version = home.name.removeprefix("librdkafka-")
        self.source = home / "source"
        self._read_tests()

    def _read_tests(self):
        """Reads the table of tests in test.c: _TEST(name, flags, ...), with the scenario where there is one."""
        table = (self.source / "tests" / "test.c").read_text().split("struct test tests[] = {", 1)[1].split("{NULL}};", 1)[0]
        numbers = {}
        for entry in re.split(r"\n\s+_TEST\(", table)[1:]:
            test = re.match(r"\w+", entry).group(0)
            if "TEST_F_LOCAL" in entry:
                self.left_out[test] = "needs no broker"
            elif "_mock" in test:
                self.left_out[test] = "talks to librdkafka's mock broker"
            elif "TEST_F_MANUAL" in entry:
                self.left_out[test] = "by hand"
            elif re.search(r"TEST_F_KNOWN_ISSUE\b", entry):
                self.left_out[test] = "a known issue of librdkafka"
            else:
                numbers.setdefault((test[:4], self._scenario(test, entry)), []).append(test)
        self.groups = [Group(number, tuple(tests), scenario) for (number, scenario), tests in numbers.items() if number != ADMIN]
        # One test that tries every request of an administrator: each of its parts is a test here, or the first that fails
        # would hide the rest.
        text = (self.source / "tests" / f"{ADMIN}-admin.c").read_text().split("static void do_test_apis", 1)[1]
        for part in dict.fromkeys(re.findall(r"\bdo_test_(\w+)\(", text)):
            if part != "apis":
                scenario = "acls" if part.endswith("Acls") else "default"
                self.groups.append(Group(f"{ADMIN}/{part}", (f"{ADMIN}_admin/{part}",), scenario))

    @staticmethod
    def _scenario(test, entry):
        if "_auth" in test or test.startswith("0109"):
            return "acls"
        if test.startswith(("0102", "0113")):
            return "delayed"
        asked = re.search(r'\.scenario\s*=\s*"([^",]*)', entry)
        return asked.group(1) if asked else "default"

    def run(self, group, bootstrap, directory, attempt, timeout):
        tests = self.source / "tests"
        # Tests that run a Java client look for it here.
        (directory / "java").symlink_to(tests / "java")
        # Others look for a schema in ../src.
        with contextlib.suppress(FileExistsError):
            (directory.parent / "src").symlink_to(self.source / "src")
        # The multiplier is that of librdkafka's own test cluster. A second attempt must not meet the topics of the first.
        (directory / "test.conf").write_text(
            f"metadata.broker.list={bootstrap}\nbroker.address.family=v4\ntest.timeout.multiplier=2\n"
            f"test.topic.prefix=rdkafkatest{attempt if attempt > 1 else ''}\n"
        )
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{self.source}/src:{self.source}/src-cpp",
            "TEST_KAFKA_VERSION": KAFKA_VERSION,
            # Relative, for test.c cuts it at 128 bytes.
            "TEST_REPORT": "report.json",
            "TESTS": group.name[:4],
            "KAFKA_PATH": str(self.kafka_home),
            "BROKERS": bootstrap,
        }
        if "/" in group.name:
            environment["SUBTESTS"] = f"do_test_{group.name.split('/')[1]}:"
        # On CI the tests would change their own settings.
        environment.pop("CI", None)
        command = [str(tests / "test-runner"), "-L", "-p1", "-s", "noautocreate" if group.scenario == "noautocreate" else "default"]
        code, seconds = run_process(command, directory, environment, timeout)
        return self._results(group, directory, code, seconds)

    def _results(self, group, directory, code, seconds):
        states = {}
        report = directory / "report.json"
        if report.exists():
            # Not parsed as JSON: tests may put anything into it.
            pattern = r'"name": "(\w+)", "state": "(\w+)", .*?"duration": ([\d.]+)'
            states = {name: (state, float(took)) for name, state, took in re.findall(pattern, report.read_text(errors="replace"))}
        text = re.sub(r"\x1b\[[\d;]*m", "", (directory / "output.log").read_text(errors="replace"))
        results = {}
        for test in group.tests:
            state, took = states.get(test.split("/")[0], ("FAILED", seconds))
            # A runner that ended badly after its last test leaked threads or crashed.
            ended_badly = code != 0 and not any(s == "FAILED" for s, _ in states.values())
            state = FAILED if ended_badly else STATES.get(state, FAILED)
            if state == PASSED and "/" in test and f"[ do_test_{test.split('/')[1]}:" not in text:
                state = SKIPPED
            results[test] = Result(state, took, "" if state == PASSED else self._why(test.split("/")[0], text, code))
        return results

    @staticmethod
    def _why(test, text, code):
        failure = re.search(rf'^### Test "({test}[^"]*)" failed at ([^:]+:\d+).*###\n(.*)$', text, re.MULTILINE)
        if failure:
            return f"{failure.group(2)}: {failure.group(3)}"
        skipped = re.search(rf"\[{test}\b.*SKIPPING TEST: (.*)$", text, re.MULTILINE)
        if skipped:
            return skipped.group(1)
        how = "killed: it did not end in time" if code is None else f"ended with {code}"
        return f"{how}: {last_words(text)}"
