"""The object store fails in every way it knows, under load: writes go on as long as the log has room, nothing acknowledged is lost, the
operator is told, and memory stays bounded.
"""

import re
import time
import urllib.request

import brokers
import metrics
import pytest
from load import SETTINGS, check_everywhere, start
from waiting import until

pytestmark = pytest.mark.timeout(1_200)

# Many uploads; the log has room for what is written while the store fails.
BUSY = SETTINGS | {"object.upload.bytes": 1 << 20, "object.upload.interval.ms": 200, "wal.capacity.bytes": 1 << 30}
UPLOAD_FAILED = r"WARN .*upload failed; it is tried again .*why=.*"
# What the store does: what the log says of it.
FAULTS = {
    "internal": UPLOAD_FAILED + "HTTP 500: .*InternalError",
    "slowdown": UPLOAD_FAILED + "HTTP 503: .*SlowDown",
    "forbidden": UPLOAD_FAILED + "HTTP 403: .*AccessDenied",
    "expired": UPLOAD_FAILED + "HTTP 400: .*ExpiredToken",
    "applied": UPLOAD_FAILED + "HTTP 500: .*InternalError",
    "crawl": None,
}


@pytest.fixture
def made(s3, made):
    """Makes brokers on the bucket."""
    return lambda settings: made(settings | s3.settings("outage"))


def ready(broker):
    return urllib.request.urlopen(f"http://{broker.http}/readyz", timeout=5).status == 200


def is_told(broker, pattern):
    until(lambda: re.search(pattern, broker.fresh_log()), f"the log says {pattern}", 30)


@pytest.mark.parametrize("mode", FAULTS)
def test_the_store_fails_and_writes_go_on(made, s3, mode):
    broker = made(BUSY)
    load = start(broker)
    load.wait_for(2_000, 60)
    s3.faults.set(mode)
    load.wait_for(5_000, 60)
    if FAULTS[mode]:
        is_told(broker, FAULTS[mode])
    else:
        time.sleep(5)
    assert ready(broker)
    load.wait_for(1_000, 60)
    s3.faults.set("ok")
    load.wait_for(1_000, 60)
    acknowledged = load.finish()
    metrics.wait_until(broker, lambda s: metrics.total(s, "thalweg_wal_trim_lag_bytes") < 4 << 20, 60)
    assert not FAULTS[mode] or metrics.total(metrics.read(broker), "thalweg_upload_errors_total") > 0
    check_everywhere(broker, acknowledged)
    broker.stop()


def test_an_outage_longer_than_the_log(made, s3, pytestconfig):
    """Producers are asked to pause, then refused with a code that they repeat; with the store back writes go on and it catches up.
    With --minutes 10 the store is away for ten."""
    broker = made(SETTINGS | {"wal.capacity.bytes": 64 << 20, "cache.tail.bytes": 8 << 20, "object.upload.bytes": 4 << 20})
    load = start(broker)
    load.wait_for(5_000, 60)
    before = broker.resident_bytes()
    s3.faults.set("down")
    began = time.monotonic()
    metrics.wait_until(broker, lambda s: metrics.total(s, "thalweg_append_refused_total") > 10, 120)
    full_after, most = time.monotonic() - began, 0
    while time.monotonic() - began < max(full_after + 3, (pytestconfig.getoption("--minutes") - 1) * 60):
        most = max(most, broker.resident_bytes())
        assert ready(broker) and broker.alive()
        time.sleep(0.2)
    load.check()
    # Nothing piles up but the log: what waits lies with the clients.
    assert most < before + (128 << 20), f"{before >> 20} MiB before, {most >> 20} MiB during the outage"
    s3.faults.set("ok")
    first = load.wait_for(1, 60)
    load.wait_for(5_000, 60)
    acknowledged = load.finish()
    metrics.wait_until(broker, lambda s: metrics.total(s, "thalweg_wal_trim_lag_bytes") < 8 << 20, 60)
    print(f"full after {full_after:.1f} s, first acknowledgement {first:.1f} s after the store was back, {most >> 20} MiB resident at most", flush=True)
    check_everywhere(broker, acknowledged)
    broker.stop()
