"""kill -9 in a loop under idempotent load: what was acknowledged is there, in order, once, at its offset."""

import brokers
import pytest
from load import NOTHING_UPLOADED, SETTINGS, kill_in_a_loop

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def rounds(pytestconfig):
    return pytestconfig.getoption("--rounds")


def test_kill_with_a_directory_as_store(rounds):
    kill_in_a_loop(brokers.Thalweg(SETTINGS), rounds)


def test_kill_with_nothing_uploaded(rounds):
    """The object store stays empty until the end: everything comes from the ring."""
    kill_in_a_loop(brokers.Thalweg(NOTHING_UPLOADED), max(rounds // 2, 1))


def test_kill_while_the_store_is_slow_failing_hanging_or_gone(rounds, s3):
    modes = ["down", "slow", "error", "hang", "ok", "slow"]
    # Room for all that is written while the store is away.
    broker = brokers.Thalweg(SETTINGS | {"wal.capacity.bytes": 1 << 30} | s3.settings("crash"))

    def fault(number):
        if number < 0:
            if s3.faults.mode in ("down", "error", "hang"):
                assert "the object store does not answer; starting without it" in broker.fresh_log()
            s3.faults.set("ok")
        else:
            s3.faults.set(modes[number % len(modes)])

    kill_in_a_loop(broker, max(rounds, 4), fault)
