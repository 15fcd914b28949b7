//! The contract suite against a real S3 server on loopback: `s3s-fs`, which checks signatures.
//!
//! Behind the feature `s3-server-tests`. The binary is `$THALWEG_S3S_FS`, or `s3s-fs` in the PATH; without it the test
//! fails and says how to install it.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusoto_credential::StaticProvider;
use thalweg_objectstore::{
    ObjectKey, ObjectStore, PutCondition, StoreError,
    testing::{Contract, contract},
};

use crate::{Limits, S3Store, S3Url};

struct Server {
    process: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().expect("the server is ours");
        self.process.wait().expect("the server is ours");
    }
}

fn server(root: &Path) -> Server {
    let binary = std::env::var("THALWEG_S3S_FS").unwrap_or_else(|_| "s3s-fs".to_owned());
    // The port is free now; nobody else asks for it in the moment until the server binds it.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let process = Command::new(&binary)
        .args(["--host", "127.0.0.1", "--access-key", "key", "--secret-key", "secret", "--port", &port.to_string()])
        .arg(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|e| {
            panic!(
                "{binary}: {e}. Install it with `cargo install s3s-fs --version 0.14.1 --locked --features binary`, and \
                 put it into the PATH or name it in THALWEG_S3S_FS"
            )
        });
    let server = Server { process, port };
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "{binary} does not listen on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

struct Bench {
    _root: tempfile::TempDir,
    server: Server,
    runtime: tokio::runtime::Runtime,
}

fn bench() -> Bench {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(root.path().join("bucket")).expect("a bucket");
    let server = server(root.path());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    Bench { _root: root, server, runtime }
}

impl Bench {
    fn store(&self, path: &str, secret: &str) -> S3Store {
        let url = format!("s3://{path}?region=us-east-1&endpoint=http://127.0.0.1:{}", self.server.port);
        let credentials = StaticProvider::new_minimal("key".to_owned(), secret.to_owned());
        let limits = Limits { total: Duration::from_secs(20), ..Limits::default() };
        S3Store::new(S3Url::parse(&url).expect("a URL"), credentials, self.runtime.handle(), limits)
    }
}

#[test]
fn s3_keeps_the_contract() {
    let bench = bench();
    // This server looks and then writes; S3 itself does both at once.
    let known = Contract { atomic_if_absent: false };
    bench.runtime.block_on(contract(&bench.store("bucket/a/prefix", "secret"), known));
    bench.runtime.block_on(contract(&bench.store("bucket", "secret"), known));
}

#[test]
fn futures_may_be_polled_outside_of_tokio() {
    let bench = bench();
    let store = bench.store("bucket", "secret");
    let key = ObjectKey::new("k").expect("a key");
    let put = store.put(&key, vec![Bytes::from_static(b"content")], PutCondition::IfAbsent);
    assert_eq!(futures_lite::future::block_on(put), Ok(()));
    assert_eq!(futures_lite::future::block_on(store.get_range(&key, 3..7)).as_deref(), Ok(&b"tent"[..]));
}

#[test]
fn a_wrong_secret_and_a_missing_bucket_are_refused() {
    let bench = bench();
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
