//! The contract suite against real S3 servers on loopback: `s3s-fs`, which checks signatures, and `moto`, whose
//! conditional puts are atomic.
//!
//! The binaries are `$THALWEG_S3S_FS` and `$THALWEG_MOTO`, or `s3s-fs` and `moto_server` in the PATH or where
//! tests/install puts them; without them the tests fail and say how to install them.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use thalweg_objectstore::{
    ObjectKey, ObjectStore, PutCondition, StoreError,
    testing::{Contract, contract},
};

use super::behaviour::Make;
use crate::{Keys, Limits, Requests, S3Store, S3Url};

/// A server of somebody else's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Keeps objects as files, looks and then writes: its conditional puts are not atomic.
    S3sFs,
    /// Keeps objects in memory.
    Moto,
}

impl Kind {
    fn binary(self) -> PathBuf {
        let (variable, name, installed) = match self {
            Kind::S3sFs => ("THALWEG_S3S_FS", "s3s-fs", "bin/s3s-fs"),
            Kind::Moto => ("THALWEG_MOTO", "moto_server", "moto/bin/moto_server"),
        };
        if let Some(given) = std::env::var_os(variable) {
            return PathBuf::from(given);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(found) = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.exists()) {
            return found;
        }
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = folder("THALWEG_TEST_CACHE")
            .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("thalweg")))
            .or_else(|| Some(folder("HOME")?.join(".cache/thalweg")));
        cache.unwrap_or_default().join(installed)
    }
}

/// A server that runs, with a bucket named `bucket`, for `key` and `secret`.
pub struct Server {
    process: Child,
    /// Where it listens on loopback.
    pub port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("the server is ours");
        self.process.wait().expect("the server is ours");
    }
}

impl Server {
    /// Starts one; what it keeps on disk lies in `root`.
    ///
    /// # Panics
    /// When it cannot be started; the text says how to install it.
    pub fn start(kind: Kind, root: &Path) -> Server {
        let binary = kind.binary();
        // The port is free now; nobody else asks for it in the moment until the server binds it.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut command = Command::new(&binary);
        let port_text = port.to_string();
        match kind {
            Kind::S3sFs => {
                std::fs::create_dir_all(root.join("bucket")).expect("a bucket");
                command.args(["--host", "127.0.0.1", "--access-key", "key", "--secret-key", "secret", "--port"]);
                command.arg(&port_text).arg(root);
            }
            Kind::Moto => {
                command.args(["-H", "127.0.0.1", "-p", &port_text]);
            }
        }
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|e| {
            let part = if kind == Kind::Moto { "moto" } else { "s3s-fs" };
            panic!("{}: {e}. Install it with tests/install {part}", binary.display())
        });
        let server = Server { process, port };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < Duration::from_secs(60), "{} does not listen on port {port}", binary.display());
            std::thread::sleep(Duration::from_millis(10));
        }
        if kind == Kind::Moto {
            server.make_bucket();
        }
        server
    }

    /// This server asks nobody who he is.
    fn make_bucket(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let request = "PUT /bucket HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The URL of a store at `path` (a bucket, and a prefix or none).
    pub fn url(&self, path: &str) -> S3Url {
        let url = format!("s3://{path}?region=us-east-1&endpoint=http://127.0.0.1:{}", self.port);
        S3Url::parse(&url).expect("a URL")
    }
}

struct Bench<R> {
    make: Make<R>,
    _root: tempfile::TempDir,
    server: Server,
    runtime: tokio::runtime::Runtime,
}

fn bench<R: Requests>(make: Make<R>, kind: Kind) -> Bench<R> {
    let root = tempfile::tempdir().expect("a folder");
    let server = Server::start(kind, root.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    Bench { make, _root: root, server, runtime }
}

impl<R: Requests> Bench<R> {
    fn store(&self, path: &str, secret: &str) -> S3Store<R> {
        let (total, parts) = (Duration::from_secs(20), 16 << 20);
        let limits = Limits { total, single_bytes: parts, part_bytes: parts, ..Limits::default() };
        let keys = Keys::lasting("key", secret, None);
        S3Store::new(self.server.url(path), keys, self.runtime.handle(), limits, self.make)
    }
}

pub fn s3s_fs_keeps_the_contract<R: Requests>(make: Make<R>) {
    let bench = bench(make, Kind::S3sFs);
    // This server looks and then writes; S3 itself does both at once.
    let known = Contract { atomic_if_absent: false };
    bench.runtime.block_on(contract(&bench.store("bucket/a/prefix", "secret"), known));
    bench.runtime.block_on(contract(&bench.store("bucket", "secret"), known));
}

pub fn moto_keeps_the_contract<R: Requests>(make: Make<R>) {
    let bench = bench(make, Kind::Moto);
    bench.runtime.block_on(contract(&bench.store("bucket/a/prefix", "secret"), Contract::default()));
}

pub fn futures_may_be_polled_outside_of_tokio<R: Requests>(make: Make<R>) {
    let bench = bench(make, Kind::S3sFs);
    let store = bench.store("bucket", "secret");
    let key = ObjectKey::new("k").expect("a key");
    let put = store.put(&key, vec![Bytes::from_static(b"content")], PutCondition::IfAbsent);
    assert_eq!(futures_lite::future::block_on(put), Ok(()));
    assert_eq!(futures_lite::future::block_on(store.get_range(&key, 3..7)).as_deref(), Ok(&b"tent"[..]));
}

pub fn a_wrong_secret_and_a_missing_bucket_are_refused<R: Requests>(make: Make<R>) {
    let bench = bench(make, Kind::S3sFs);
    let key = ObjectKey::new("k").expect("a key");
    let wrong = bench.store("bucket", "wrong");
    let put = wrong.put(&key, vec![Bytes::from_static(b"x")], PutCondition::IfAbsent);
    let refused = bench.runtime.block_on(put);
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("SignatureDoesNotMatch")), "{refused:?}");
    // This server makes a bucket of any folder that is written to; reading tells.
    let nowhere = bench.store("no-such-bucket", "secret");
    let refused = bench.runtime.block_on(nowhere.list("", None, 1));
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("NoSuchBucket")), "{refused:?}");
}
