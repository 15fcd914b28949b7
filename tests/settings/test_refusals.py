"""A start that cannot work is refused: exit code 2, one message that names the key or the command that mends it, nothing left behind.

Each test mends what the message names, and the same broker then starts on the same paths.
"""

import contextlib
import ctypes
import errno
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time

import brokers
import pytest
import stores
from test_librdkafka import create
from wire import Connection, Part, batch

NOBODY = 65_534
ROOT = os.geteuid() == 0


def tree(directory):
    """Every path below a directory, with the size of files. What sled does to its own files when it is opened is its own affair."""
    return {
        str(path.relative_to(directory)): path.stat().st_size if path.is_file() else None
        for path in directory.rglob("*")
        if path.name != "broker.log" and path.parent.name != "metadata"
    }


def run(broker, *arguments, inside=None, environment=None):
    """Runs the broker until it ends by itself; its exit code, stdout and stderr."""
    environment = broker.environment() if environment is None else environment
    process = subprocess.Popen(
        [*broker.command(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        cwd=broker.directory, env=environment, preexec_fn=inside,
    )
    try:
        out, told = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"it is not refused:\n{process.communicate()}") from None
    return process.returncode, out, told


def refused(broker, match, *arguments, **how):
    """The start is refused with one message, a line, that matches; nothing on the disk has changed."""
    before = tree(broker.directory)
    code, out, told = run(broker, *arguments, **how)
    assert (code, out) == (2, ""), f"{code}\n{out}\n{told}"
    lines = told.splitlines()
    assert len(lines) == 1 and re.search(match, lines[0]), told
    assert tree(broker.directory) == before, "something was left behind"
    return told


def small(**settings):
    """A broker that needs little; its directory exists, and nothing in it."""
    return brokers.Thalweg({"shards": 1, "wal.capacity.bytes": 20 << 20} | {key.replace("_", "."): value for key, value in settings.items()})


def starts(broker):
    broker.start()
    broker.stop()


@pytest.fixture
def broker():
    one = small()
    yield one
    one.remove()


@pytest.fixture
def running():
    """A broker that runs, on ports and directories of its own, with a topic `t` and an object in the store."""
    with small(**{"object.upload.interval.ms": 50}) as one:
        create(one, "t", 1)
        with Connection(one.bootstrap) as wire:
            wire.produce("t", 0, batch([b"x" * 1_000]))
        yield one
        still_serves(one)
        one.stop()


def still_serves(one):
    assert one.alive()
    with Connection(one.bootstrap) as wire:
        assert wire.fetch([Part("t", 0, 0)]).parts["t", 0].high_watermark >= 1
        wire.produce("t", 0, batch([b"y"]))


# ---- Settings -------------------------------------------------------------------------------------------------------

# --set KEY=VALUE..., what is told
WRONG = [
    (["num.partition=3"], r"^num\.partition \(--set\): no such setting; did you mean num\.partitions\?$"),
    (["colour=red"], r"^colour \(--set\): no such setting; `thalweg print-config` lists all$"),
    (["num.partitions"], r"^num\.partitions \(--set\): write --set KEY=VALUE$"),
    (["num.partitions=many"], r'^num\.partitions \(--set\): "many" is not a whole number$'),
    (["log.retention.ms=1.5"], r'^log\.retention\.ms \(--set\): "1\.5" is not a whole number of ms$'),
    (["auto.create.topics.enable=1"], r'^auto\.create\.topics\.enable \(--set\): "1" is neither true nor false$'),
    (["wal.sync=sometimes"], r'^wal\.sync \(--set\): "sometimes" is not one of: dsync, fdatasync$'),
    (["object.store.s3.engine=aws"], r'^object\.store\.s3\.engine \(--set\): "aws" is not one of: rusoto, object_store$'),
    (["listeners=here"], r'^listeners \(--set\): "here" has no port: write host:port$'),
    (["listeners=SSL://127.0.0.1:1"], r"^listeners \(--set\): .*SSL listeners are not offered, only PLAINTEXT"),
    (["object.store.url=gs://bucket"], r'^object\.store\.url \(--set\): "gs" is no known object store: write file:///path or s3://'),
    (["log.level=thalweg=loud"], r"^log\.level \(--set\): .* is no level and no directives"),
    (["num.partitions=0"], r"^num\.partitions \(--set\): 0 is out of range: 1 to 10000$"),
    (["wal.capacity.bytes=4096"], r"^wal\.capacity\.bytes \(--set\): 4096 is out of range: 1048576 to \d+ bytes$"),
    (["compression.gzip.level=0"], r"^compression\.gzip\.level \(--set\): 0 does not compress: 1 to 9, or -1"),
    (["message.max.bytes=5000000"], r"^message\.max\.bytes \(--set\): 5000000 does not fit into wal\.max\.group\.bytes \(4194304\): at most 4190208$"),
    (["socket.request.max.bytes=100000"], r"^message\.max\.bytes: 1048588 is above socket\.request\.max\.bytes \(100000\)$"),
    (["queued.max.request.bytes=1048576"], r"^queued\.max\.request\.bytes \(--set\): 1048576 is below socket\.request\.max\.bytes"),
    (["queued.max.response.bytes=1048576"], r"^queued\.max\.response\.bytes \(--set\): 1048576 is below message\.max\.bytes"),
    (["shards=4"], r"^wal\.capacity\.bytes \(--set\): 20971520 gives each of 4 shards .* at least 67141632, or fewer shards$"),
    (["object.block.bytes=1000000", "object.upload.bytes=100000"], r"^object\.block\.bytes \(--set\): 1000000 is above object\.upload\.bytes"),
    (["object.compaction.bytes.per.second=1048575"], r"^object\.compaction\.bytes\.per\.second \(--set\): 1048575 is too slow: at least 1048576, or 0 "),
    (["group.min.session.timeout.ms=9", "group.max.session.timeout.ms=8"], r"^group\.min\.session\.timeout\.ms \(--set\): is above group\.max\."),
    (["advertised.listeners=a:1,b:2"], r"^advertised\.listeners \(--set\): has 2 addresses for 1 listeners"),
    (["listeners=:1", "advertised.listeners=0.0.0.0:1"], r"^advertised\.listeners \(--set\): clients cannot connect to 0\.0\.0\.0:1"),
    (["listeners=127.0.0.1:7,127.0.0.1:7", "advertised.listeners=a:1,b:2"], r"^listeners \(--set\): 127\.0\.0\.1:7 is listened on twice$"),
    (["listeners=:7,127.0.0.1:7", "advertised.listeners=a:1,b:2"], r"^listeners \(--set\): 0\.0\.0\.0:7 is every address with that port, and"),
    (["listeners=127.0.0.1:7", "http.listen=127.0.0.1:7"], r"^http\.listen \(--set\): 127\.0\.0\.1:7 is listened on twice$"),
    (["object.store.url=file:///a/b", "wal.path=/a/b"], r"^object\.store\.url \(--set\): /a/b and wal\.path \(/a/b\) must be separate"),
    (["listeners=192.0.2.1:9092"], r"^listeners \(--set\): 192\.0\.2\.1:9092: no such address on this machine \(`ip addr` lists them\)$"),
]


@pytest.mark.parametrize("sets, told", WRONG, ids=[" ".join(sets) for sets, _ in WRONG])
def test_settings_that_cannot_be(broker, sets, told):
    arguments = [word for pair in sets for word in ("--set", pair)]
    refused(broker, told, *arguments)
    if not re.search("no such address", told):
        checked = subprocess.run([broker.binary, "check-config", *broker.command()[2:], *arguments], capture_output=True, text=True, cwd="/")
        assert checked.returncode == 2 and re.search(told, checked.stderr), "check-config says the same"


FILES = [
    (None, r"^{path}: no such file \(--config\)$"),
    ("directory", r"^{path}: cannot be read: Is a directory"),
    ('"num.partitions" = \n', r"^{path}:1: is not valid TOML"),
    ("# a comment\nnum.partitions = 3\n", r'^num\.partitions \({path}:2\): keys are quoted: write "num\.partitions" = \.\.\.$'),
    ('\n\n"num.partitions" = "3"\n', r"^num\.partitions \({path}:3\): a text is not "),
    ('"auto.create.topics.enable" = "yes"\n', r"^auto\.create\.topics\.enable \({path}:1\): a text is not "),
    ('"num.partition" = 3\n', r"^num\.partition \({path}:1\): no such setting; did you mean num\.partitions\?$"),
    ('"num.partitions" = 0\n', r"^num\.partitions \({path}:1\): 0 is out of range: 1 to 10000$"),
]


@pytest.mark.parametrize("content, told", FILES, ids=lambda value: repr(value)[:40])
def test_files_that_cannot_be(broker, content, told):
    path = broker.directory / "thalweg.toml"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    told = told.replace("{path}", re.escape(str(path)))
    # What --set says goes before the file.
    del broker.settings["num.partitions"]
    refused(broker, told, "--config", str(path))


def test_several_mistakes_are_told_at_once(broker):
    code, _, told = run(broker, "--set", "num.partitions=0", "--set", "colour=red", "--set", "wal.sync=no")
    assert code == 2 and sorted(line.split(" ")[0] for line in told.splitlines()) == ["colour", "num.partitions", "wal.sync"]
    assert not tree(broker.directory)


# ---- Ports ----------------------------------------------------------------------------------------------------------


def in_use(key, port):
    return rf"^{re.escape(key)} \(--set\): 127\.0\.0\.1:{port}: address in use by another process, maybe another broker \(`ss -ltnp sport = :{port}` names it\)$"


@pytest.mark.parametrize("key", ["listeners", "http.listen"])
@pytest.mark.parametrize("shared", [False, True], ids=["alone", "SO_REUSEPORT"])
def test_a_port_of_another_process(broker, key, shared):
    port = broker.kafka_port if key == "listeners" else broker.http_port
    with socket.socket() as other:
        if shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        refused(broker, in_use(key, port))
    starts(broker)


@pytest.mark.parametrize("key", ["listeners", "http.listen"])
def test_a_port_of_another_broker(broker, running, key):
    own = broker.settings[key]
    broker.settings[key] = running.settings[key]
    port = running.kafka_port if key == "listeners" else running.http_port
    refused(broker, in_use(key, port))
    still_serves(running)
    broker.settings[key] = own
    starts(broker)


@pytest.mark.parametrize("round_", range(4))
def test_two_brokers_at_once_on_one_port(round_):
    """One serves; the other says why it does not, and leaves nothing behind."""
    pair = [small(), small()]
    for one in pair:
        one.settings["listeners"] = one.settings["advertised.listeners"] = pair[0].bootstrap
    try:
        processes = [
            subprocess.Popen(one.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=one.directory, env=one.environment())
            for one in pair
        ]
        deadline = time.monotonic() + 60
        while all(process.poll() is None for process in processes):
            assert time.monotonic() < deadline, "both serve one port"
            time.sleep(0.01)
        ended = 0 if processes[0].poll() is not None else 1
        out, told = processes[ended].communicate()
        assert (processes[ended].returncode, out) == (2, ""), told
        assert re.fullmatch(rf"listeners( \(--set\))?: {re.escape(pair[0].bootstrap)}: address in use by another process.*\n", told)
        assert not tree(pair[ended].directory)
        winner = processes[1 - ended]
        assert winner.stdout.readline().startswith("ready: ")
        with Connection(pair[0].bootstrap) as wire:
            assert wire.fetch([Part("nothing", 0, 0)]).parts["nothing", 0].error == 3
        winner.send_signal(signal.SIGTERM)
        assert winner.wait(60) == 0
        starts(pair[ended])
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        for one in pair:
            one.remove()


# ---- What belongs to others -----------------------------------------------------------------------------------------


def test_the_data_directory_of_another_node(broker):
    starts(broker)
    broker.settings["node.id"] = 7
    refused(broker, r'^"data\.dir" .* belongs to broker 1, but "node\.id" is 7: set "node\.id" = 1, or ')
    broker.settings["node.id"] = 1
    starts(broker)


def test_the_data_directory_of_a_broker_that_runs(broker, running):
    own = broker.settings["data.dir"]
    broker.settings["data.dir"] = running.settings["data.dir"]
    refused(broker, r'^metadata store .* is in use by another process: stop it, or give this broker a "data\.dir" of its own$')
    still_serves(running)
    broker.settings["data.dir"] = own
    starts(broker)


def test_the_log_directory_of_a_broker_that_runs(broker, running):
    """A stranger's slices are no left-overs of ours: they hold what no object has."""
    running_slices = tree(running.data / "wal")
    broker.settings["wal.path"] = running.data / "wal"
    refused(broker, r'^wal\.path: .*slice-0-.*\.wal: the slice is not of this broker but broker 1\'s, .* a "wal\.path" of its own, or')
    assert tree(running.data / "wal") == running_slices
    still_serves(running)
    # Nor are they for a broker that has data of its own.
    del broker.settings["wal.path"]
    starts(broker)
    broker.settings["wal.path"] = running.data / "wal"
    told = run(broker)
    assert told[0] == 2 and "is in use by another broker: stop it, or give this one a \"wal.path\" of its own" in told[2]
    assert tree(running.data / "wal") == running_slices
    del broker.settings["wal.path"]
    starts(broker)


def test_the_log_directory_of_a_broker_that_was_killed(broker):
    """Both have data; what the other has acknowledged is still there afterwards."""
    starts(broker)
    with small(**{"object.upload.interval.ms": 3_600_000}) as other:
        create(other, "t", 1)
        with Connection(other.bootstrap) as wire:
            wire.produce("t", 0, batch([b"kept"]))
        other.kill()
        broker.settings["wal.path"] = other.data / "wal"
        refused(broker, r"^wal\.path: .* is not of this broker but broker 1's")
        other.start()
        with Connection(other.bootstrap) as wire:
            assert b"kept" in wire.fetch([Part("t", 0, 0)], max_wait_ms=10_000).parts["t", 0].records
        other.stop()


def test_the_prefix_of_another_cluster(broker):
    with small() as other:
        create(other, "t", 1)
        other.stop()
        url = f"file://{other.data}/objects"
        before = tree(other.directory)
        broker.settings["object.store.url"] = url
        refused(broker, rf'^"data\.dir" .* is empty, but "object\.store\.url" {url} holds the data of cluster .* Point "data\.dir" to')
        del broker.settings["object.store.url"]
        starts(broker)
        broker.settings["object.store.url"] = url
        refused(broker, rf'^"object\.store\.url" {url} belongs to cluster .*, but "data\.dir" .* to cluster .*: point "object\.store\.url" to')
        assert tree(other.directory) == before
        del broker.settings["object.store.url"]
        starts(broker)


def test_a_prefix_without_the_objects(broker):
    """The metadata names objects that an emptied prefix, or another one, does not have."""
    with broker:
        create(broker, "t", 1)
        with Connection(broker.bootstrap) as wire:
            wire.produce("t", 0, batch([b"x"]))
        broker.stop()
        (broker.directory / "elsewhere").mkdir()
        broker.settings["object.store.url"] = f"file://{broker.directory}/elsewhere"
        code, out, told = run(broker)
        assert (code, out) == (2, "")
        assert re.fullmatch(r'"data\.dir" .* names 1 objects of cluster .*: point "object\.store\.url" to the prefix that holds them\n', told)
        del broker.settings["object.store.url"]
        broker.start()
        broker.stop()


@pytest.mark.parametrize("wrong", ["down", "bucket", "credentials"])
def test_an_object_store_that_cannot_be_used(broker, s3, wrong):
    right = s3.settings("first")["object.store.url"]
    broker.settings["object.store.url"] = right.replace("bucket", "nowhere") if wrong == "bucket" else right
    environment = broker.environment()
    if wrong == "credentials":
        for name in stores.CREDENTIALS:
            del environment[name]
        environment["AWS_EC2_METADATA_DISABLED"] = "true"
    if wrong == "down":
        s3.faults.set("down")
    refused(broker, {"credentials": "AWS_ACCESS_KEY_ID"}.get(wrong, r"^\"?object\.store\.url"), environment=environment)
    s3.faults.set("ok")
    broker.settings["object.store.url"] = right
    starts(broker)


# ---- The machine ----------------------------------------------------------------------------------------------------


def as_nobody():
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def readable_by_all(path):
    """Whether any user may come as far as `path`."""
    return all(above.stat().st_mode & 0o1 for above in pathlib.Path(path).resolve().parents)


@pytest.fixture
def unprivileged(broker):
    """How to run the broker as a user who may not do everything."""
    if not ROOT:
        return {}
    broker.directory.chmod(0o755)
    for path in (broker.binary, broker.directory / "x"):
        if not readable_by_all(path):
            pytest.skip(f"CANNOT RUN: user {NOBODY} may not come as far as {path}; set CARGO_TARGET_DIR or THALWEG_TEST_DIR to a place for all")
    return {"inside": as_nobody}


def start_inside(broker, how):
    """Starts the broker as that user, and stops it."""
    process = subprocess.Popen(
        broker.command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=broker.directory, env=broker.environment(),
        preexec_fn=how.get("inside"),
    )
    try:
        assert process.stdout.readline().startswith("ready: ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("key, place", [("data.dir", "data"), ("wal.path", "log"), ("object.store.url", "objects")])
def test_a_directory_that_may_not_be_written(broker, unprivileged, key, place):
    user = NOBODY if ROOT else os.geteuid()
    free, locked = broker.directory / "free", broker.directory / "locked"
    free.mkdir()
    locked.mkdir()
    for directory in (free, locked):
        os.chown(directory, user, -1)
    locked.chmod(0o555)
    if ROOT:
        os.chown(locked, 0, 0)
        locked.chmod(0o755)
    broker.settings["data.dir"] = free / "data"
    broker.settings[key] = f"file://{locked}/objects" if key == "object.store.url" else locked / place
    told = refused(broker, rf"^{re.escape(key)} \(--set\): user {user} may not write to {locked} \(.*\): run `chown {user} {locked}`, or choose", **unprivileged)
    if ROOT:
        subprocess.run(re.search("`(chown .*)`", told).group(1).split(), check=True)
    locked.chmod(0o755)
    start_inside(broker, unprivileged)


def test_a_file_that_may_not_be_read(broker, unprivileged):
    path = broker.directory / "thalweg.toml"
    path.write_text('"num.partitions" = 3\n')
    path.chmod(0)
    refused(broker, rf"^{re.escape(str(path))}: cannot be read: Permission denied", "--config", str(path), **unprivileged)


def test_a_file_where_a_directory_is_needed(broker):
    (broker.directory / "data").write_text("")
    refused(broker, r"^data\.dir \(--set\): .*/data is not a directory$", "--set", f"object.store.url=file://{broker.directory}/objects", "--set", f"wal.path={broker.directory}/log")
    (broker.directory / "data").unlink()
    starts(broker)


@pytest.fixture
def little_disk(broker):
    """A file system of 64 MiB."""
    image, disk = broker.directory / "image", broker.directory / "disk"
    disk.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], capture_output=True, text=True)
    mounted = made.returncode == 0 and subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True, text=True)
    if not mounted or mounted.returncode != 0:
        pytest.skip(f"CANNOT RUN: no small file system can be mounted here: {made.stderr} {mounted and mounted.stderr}")
    yield disk
    broker.kill()
    subprocess.run(["umount", str(disk)], check=True)


def test_too_little_disk_for_the_log(broker, little_disk):
    broker.settings |= {"data.dir": little_disk / "data", "wal.capacity.bytes": 80 << 20}
    told = refused(
        broker, r"^wal\.capacity\.bytes \(--set\): 83886080 does not fit: .* has \d+ bytes free, 83886080 more are needed; free some, or lower it"
    )
    free = int(re.search(r"has (\d+) bytes free", told).group(1))
    # All that is said to be free is too much, for the metadata lies there too; a little less is not.
    broker.settings |= {"wal.capacity.bytes": free - (24 << 20), "metadata.ballast.bytes": 1 << 20}
    broker.start()
    broker.stop()
    # What is allocated already is not asked for again.
    broker.start()
    broker.stop()


def test_no_room_for_the_metadata(broker, little_disk):
    """The log fits, and leaves nothing for the rest."""
    free = os.statvfs(little_disk).f_bavail * os.statvfs(little_disk).f_frsize
    broker.settings |= {"data.dir": little_disk / "data", "wal.capacity.bytes": free, "metadata.ballast.bytes": 1 << 20}
    refused(broker, r"^data\.dir \(--set\): .* bytes free, 14680064 are needed for the metadata of a new broker and \d+ for its log: free")
    with open(little_disk / "filler", "wb") as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 20))
    broker.settings |= {"wal.capacity.bytes": 20 << 20, "wal.path": broker.directory / "log", "object.store.url": f"file://{broker.directory}/bucket"}
    refused(broker, r"^data\.dir \(--set\): ")
    (little_disk / "filler").unlink()
    broker.start()
    broker.stop()


def test_a_log_in_memory(broker):
    """"wal.allow.tmpfs" is for tests that may lose it."""
    if subprocess.run(["stat", "-f", "-c", "%T", "/dev/shm"], capture_output=True, text=True).stdout.strip() != "tmpfs":
        pytest.skip("CANNOT RUN: /dev/shm is no tmpfs")
    log = pathlib.Path("/dev/shm") / broker.directory.name
    broker.settings["wal.path"] = log
    try:
        refused(broker, r"^wal\.path \(--set\): /dev/shm is in memory \(tmpfs\), so .* choose a directory on a disk, or set wal\.allow\.tmpfs for a test$")
        assert not log.exists()
        broker.settings["wal.allow.tmpfs"] = "true"
        starts(broker)
        assert log.is_dir()
    finally:
        shutil.rmtree(log, ignore_errors=True)


PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ANSWER = 0x7FFF0000, 0x00050000
# The same number on x86-64 and aarch64.
IO_URING_SETUP = 425


def without_io_uring(error):
    """A seccomp filter, as container runtimes have it, that answers io_uring_setup with `error`."""
    filters = [(LOAD_NUMBER, 0, 0, 0), (JUMP_IF_EQUAL, 0, 1, IO_URING_SETUP), (RETURN, 0, 0, ANSWER | error), (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filters))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filters), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)

    def install():
        for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(program)), 0, 0)):
            if libc.prctl(*arguments) != 0:
                raise OSError(ctypes.get_errno(), "prctl")

    install.keep = code
    return install


@pytest.mark.parametrize(
    "error, told",
    [
        (errno.EPERM, r"^io_uring: is forbidden: .*docker run --security-opt seccomp=unconfined.*`sysctl kernel\.io_uring_disabled=0`$"),
        (errno.ENOSYS, r"^io_uring: is missing: Linux 5\.8 or newer"),
        (errno.ENOMEM, r"^io_uring: has too little locked memory: run `ulimit -l unlimited`$"),
    ],
    ids=["forbidden", "missing", "no memory"],
)
def test_a_kernel_without_io_uring(broker, error, told):
    refused(broker, told, inside=without_io_uring(error))
    starts(broker)


def test_too_little_locked_memory(broker):
    def limited():
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))

    refused(broker, r"^memlock: this process may lock 64 KiB of memory, io_uring needs 512: run `ulimit -l unlimited`, set LimitMEMLOCK", inside=limited)
    starts(broker)
