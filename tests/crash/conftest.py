"""The bucket of the crash tests."""

import pytest
import stores


@pytest.fixture
def s3(monkeypatch):
    for name, secret in stores.CREDENTIALS.items():
        monkeypatch.setenv(name, secret)
    server = stores.S3()
    yield server
    server.close()
