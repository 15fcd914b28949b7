"""A broker on an instance with a role: nothing names credentials, the metadata service gives them, by version 2 of its protocol only."""

import contextlib
import http.server
import json
import threading
import time

import brokers
import stores
from changed import stored
from waiting import until
from wire import Connection, Part, batch

ROLES = "/latest/meta-data/iam/security-credentials/"
TOKEN, SESSION = "secret-of-the-metadata-service", "secret-of-the-session"


class Service(http.server.ThreadingHTTPServer):
    """The metadata service, with credentials that the broker may use for five seconds (they end in 25, and are not used in the last 20)."""

    def __init__(self):
        self.asked = []
        super().__init__(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def times(self, what):
        return self.asked.count(what)


class Answers(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, text=""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        self.server.asked.append(f"PUT {self.path}")
        lifetime = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        granted = self.path == "/latest/api/token" and lifetime and 1 <= int(lifetime) <= 21_600
        self.answer(200, TOKEN) if granted else self.answer(400)

    def do_GET(self):
        if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
            self.server.asked.append("without a token")
            return self.answer(401)
        self.server.asked.append(f"GET {self.path}")
        if self.path == ROLES:
            return self.answer(200, "broker\n")
        if self.path == f"{ROLES}broker":
            end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 25))
            keys = {"Code": "Success", "AccessKeyId": stores.ACCESS_KEY, "SecretAccessKey": stores.SECRET_KEY, "Token": SESSION, "Expiration": end}
            return self.answer(200, json.dumps(keys))
        return self.answer(404)


def test_the_role_of_an_instance_is_enough(monkeypatch):
    """Records go into the bucket and come back from there, across the end of the credentials; no secret is logged."""
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(Service())
        stack.callback(service.shutdown)
        s3 = stores.S3()
        stack.callback(s3.close)
        for name in stores.CREDENTIALS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{service.server_port}")
        monkeypatch.setenv("HOME", str(s3.directory))
        broker = brokers.Thalweg(s3.settings("role") | {"object.upload.interval.ms": 50, "log.level": "debug"})
        with broker:
            one = batch([b"x" * 1000])
            stored(broker, "t", one)
            with Connection(broker.bootstrap) as wire:

                def renewed():
                    wire.produce("t", 0, one)
                    return service.times(f"GET {ROLES}broker") >= 2

                until(renewed, "credentials are renewed")
                end = wire.produce("t", 0, one) + 1
            broker.stop()
            broker.remove_wal()
            broker.start()
            with Connection(broker.bootstrap) as wire:
                until(lambda: b"x" * 1000 in (wire.fetch([Part("t", 0, end - 1)]).parts["t", 0].records or b""), "the last record is back")
            broker.stop()
            log = broker.log.read_text()
        assert service.asked[0] == "PUT /latest/api/token" and service.times("without a token") == 0, service.asked
        assert "DEBUG" in log
        for secret in (TOKEN, SESSION, stores.SECRET_KEY):
            assert secret not in log
