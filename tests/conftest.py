"""Options and the broker of a test run; see docs/testing.md."""

import shutil
import subprocess

import brokers
import pytest
import stores
from wire import Connection


def pytest_addoption(parser):
    parser.addoption("--broker", default="thalweg", help="thalweg (default), kafka, or HOST:PORT of a running broker")
    parser.addoption("--records", type=int, default=100_000, help="records that each client moves")
    parser.addoption("--polls", type=int, default=20_000, help="long polls that must leave nothing behind")
    parser.addoption("--release", action="store_true", help="THALWEG_BIN is a release build: bounds on time are tighter")
    parser.addoption("--rounds", type=int, default=6, help="kills of the crash test")
    parser.addoption("--minutes", type=float, default=1, help="how long real clients live under faults (test_history.py, test_outage.py)")
    parser.addoption("--megabytes", type=int, default=200, help="text that the whole-path test moves")


def pytest_configure(config):
    config.option.verbose = max(config.option.verbose, 0)


def pytest_collection_modifyitems(config, items):
    """Leaves out, visibly, what cannot be asked of the chosen broker."""
    broker = config.getoption("--broker")
    if broker == "thalweg":
        return
    for item in items:
        if item.get_closest_marker("only_thalweg"):
            item.add_marker(pytest.mark.skip(reason="holds for Thalweg only"))
        elif item.get_closest_marker("restarts") and broker != "kafka":
            item.add_marker(pytest.mark.skip(reason="the broker was started by somebody else"))


@pytest.fixture(scope="module")
def broker(request):
    """The broker that the tests of one module share."""
    name = request.config.getoption("--broker")
    if name == "thalweg":
        chosen = brokers.Thalweg()
    elif name == "kafka":
        chosen = brokers.Kafka()
    else:
        chosen = brokers.Running(name)
    failed_before = request.session.testsfailed
    with chosen:
        yield chosen
        if request.session.testsfailed > failed_before and isinstance(chosen, brokers.Broker):
            print(f"--- the end of {chosen.name}'s log ---\n{chosen.fresh_log()[-6000:]}", flush=True)
        if isinstance(chosen, brokers.Broker):
            chosen.stop()


@pytest.fixture(scope="session")
def classes():
    """The compiled checks of tests/clients/java."""
    path = brokers.work_directory("java")
    sources = sorted(str(source) for source in (brokers.REPOSITORY / "tests" / "clients" / "java").glob("*.java"))
    subprocess.run(["javac", "-Xlint:all", "-Werror", "-cp", f"{brokers.KAFKA_JARS}/*", "-d", path, *sources], check=True)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def wire(broker):
    """A connection on which the test speaks Kafka's protocol by hand."""
    with Connection(broker.bootstrap) as connection:
        yield connection


@pytest.fixture
def topic(request):
    """A topic name of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


@pytest.fixture
def s3(monkeypatch):
    """A bucket of the test's own, and the credentials for it in the environment."""
    for name, secret in stores.CREDENTIALS.items():
        monkeypatch.setenv(name, secret)
    server = stores.S3()
    yield server
    server.close()
