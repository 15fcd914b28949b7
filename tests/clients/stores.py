"""Object stores for the tests: a real S3 server on loopback, and a proxy before it that can be slow, failing or gone."""

import collections
import contextlib
import re
import shutil
import socket
import subprocess
import threading
import time

import brokers

ACCESS_KEY, SECRET_KEY = "thalweg-tests", "not-a-secret"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


class S3:
    """s3s-fs with one bucket, `bucket`, behind a `Faults` proxy."""

    def __init__(self):
        self.directory = brokers.work_directory("s3")
        (self.directory / "bucket").mkdir()
        (self.port,) = brokers.free_ports(1)
        command = [
            str(brokers.CACHE / "bin" / "s3s-fs"), "--host", "127.0.0.1", "--port", str(self.port),
            "--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY, str(self.directory),
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                break
            assert self.process.poll() is None and time.monotonic() < deadline, "s3s-fs did not start"
            time.sleep(0.02)
        self.faults = Faults(self.port)

    def settings(self, prefix):
        """What the broker needs to know."""
        return {"object.store.url": f"s3://bucket/{prefix}?region=us-east-1&endpoint=http://127.0.0.1:{self.faults.port}"}

    def close(self):
        self.faults.close()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def s3_error(status, code):
    """An answer as S3 words it."""
    body = f"<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>planted</Message></Error>".encode()
    return b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status.encode(), len(body), body)


class Faults:
    """A TCP proxy on loopback. `mode` is `ok`, `slow` (each direction waits before each piece), `crawl` (each answer waits 10 s), `hang`
    (answers nothing), `down` (resets), `applied` (does what is asked and answers 500), or one of `ANSWERS`: answered to everything. A
    change of mode ends the connections there are."""

    ANSWERS = {
        "error": b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "internal": s3_error("500 Internal Server Error", "InternalError"),
        "slowdown": s3_error("503 Slow Down", "SlowDown"),
        "forbidden": s3_error("403 Forbidden", "AccessDenied"),
        "expired": s3_error("400 Bad Request", "ExpiredToken"),
    }
    CRAWL_SECONDS = 10
    SLOW_SECONDS = 0.05

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.mode = "ok"
        self.open = set()
        # How those called themselves who asked for something.
        self.agents = set()
        # What was asked for, as far as it was passed on.
        self.asked = Asked()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def set(self, mode):
        self.mode = mode
        with self.lock:
            for s in self.open:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listener.close()
        self.set("down")

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        mode = self.mode
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError))
            stack.enter_context(client)
            self._track(stack, client)
            if mode == "down":
                return
            if mode == "hang":
                while client.recv(65536):
                    pass
                return
            if mode in self.ANSWERS:
                client.recv(65536)
                client.sendall(self.ANSWERS[mode])
                # What is still being sent is taken, or the answer would be lost in a reset.
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
                return
            server = stack.enter_context(socket.create_connection(self.target))
            self._track(stack, server)
            back = threading.Thread(target=self._copy, args=(server, client, mode, True), daemon=True)
            back.start()
            self._copy(client, server, mode, requests=self.asked.connection())
            back.join()

    def _track(self, stack, s):
        with self.lock:
            self.open.add(s)
        stack.callback(self._forget, s)

    def _forget(self, s):
        with self.lock:
            self.open.discard(s)

    def _copy(self, source, target, mode, answers=False, requests=None):
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 20):
                if not answers:
                    self.agents.update(re.findall(rb"\r\nuser-agent: ([^\r]*)\r", piece.lower()))
                    requests.take(piece)
                if mode == "slow":
                    time.sleep(self.SLOW_SECONDS)
                if answers and mode == "crawl":
                    time.sleep(self.CRAWL_SECONDS)
                if answers and mode == "applied":
                    target.sendall(self.ANSWERS["internal"])
                    break
                target.sendall(piece)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


class Asked:
    """What an S3 server is asked for, request by request: how often, and how many bytes of objects come with it."""

    def __init__(self):
        self.requests = collections.Counter()  # {(method, folder below the prefix, action): count}
        self.bytes = collections.Counter()  # likewise
        self.lock = threading.Lock()

    def connection(self):
        return _Requests(self)

    def add(self, key, size):
        with self.lock:
            self.requests[key] += 1
            self.bytes[key] += size

    def now(self):
        """Copies of both, of one moment."""
        with self.lock:
            return self.requests.copy(), self.bytes.copy()


class _Requests:
    """The requests of one connection, cut off as they come."""

    def __init__(self, asked):
        self.asked = asked
        self.head = b""
        self.body_left = 0

    def take(self, piece):
        piece = memoryview(piece)
        while piece:
            if self.body_left:
                size = min(self.body_left, len(piece))
                self.body_left -= size
                piece = piece[size:]
                continue
            before = len(self.head)
            # A head is some KB; what comes behind it is the body's.
            self.head += bytes(piece[: 64 << 10])
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                piece = piece[64 << 10 :]
                continue
            piece = piece[end + 4 - before :]
            self._begun(self.head[:end].decode())
            self.head = b""

    def _begun(self, head):
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        fields = {name.lower(): text.strip() for name, text in (line.split(":", 1) for line in lines)}
        assert "transfer-encoding" not in fields, fields
        self.body_left = int(fields.get("content-length", 0))
        path, _, query = target.partition("?")
        # /bucket/prefix/folder/...
        folder = (path.split("/") + ["", "", ""])[3]
        action = next((word for word in ("uploads", "partNumber", "uploadId", "list-type") if word in query), "object")
        size = int(fields.get("x-amz-decoded-content-length", self.body_left)) if method == "PUT" else 0
        self.asked.add((method, folder, action), size)
