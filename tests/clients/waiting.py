"""Waiting for what comes, never for time alone."""

import time


def until(holds, what, timeout=60):
    """Waits until `holds()`, or fails and says that it does not come to be that `what`."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"it does not come to be within {timeout} s that {what}"
        time.sleep(0.05)
