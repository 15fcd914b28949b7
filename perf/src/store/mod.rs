//! An object store that is as far away as S3: s3s-fs on loopback, behind a front that answers late.
//!
//! The server and the front are polite to the rest of the machine (nice 10), because a store takes no CPU from its clients
//! when it is elsewhere.

mod front;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use self::front::Front;
use crate::broker::{self, Beside};

/// For the stand-in alone.
const ACCESS_KEY: &str = "thalweg-perf";
const SECRET_KEY: &str = "not-a-secret";
const BUCKET: &str = "bucket";
const STARTS_WITHIN: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// What the store's processes and threads yield to others by.
const NICE: i32 = 10;

/// A running store with one empty bucket. Dropped, it is ended and its directory removed.
#[derive(Debug)]
pub struct Store {
    process: Child,
    front: Option<Front>,
    directory: PathBuf,
}

impl Store {
    /// Starts it on a fresh directory. `first_byte` passes between a request's last byte and its answer's first.
    ///
    /// # Errors
    /// When the server cannot be installed or started.
    pub fn start(directory: PathBuf, first_byte: Duration) -> Result<Store, String> {
        broker::install(&["s3s-fs"])?;
        fs::create_dir_all(directory.join(BUCKET))
            .map_err(|e| format!("cannot create {}: {e}", directory.display()))?;
        let [port, _] = broker::free_ports()?;
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let process = spawn(&directory, port)?;
        let mut store = Store { process, front: None, directory };
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(server).is_err() {
            if let Ok(Some(status)) = store.process.try_wait() {
                return Err(format!("s3s-fs ended with {status} instead of starting"));
            }
            if Instant::now() > deadline {
                return Err("s3s-fs did not start in time".to_owned());
            }
            thread::sleep(PAUSE);
        }
        let front = Front::start(server, store.directory.clone(), first_byte);
        store.front = Some(front.map_err(|e| format!("the object store's front cannot be started: {e}"))?);
        Ok(store)
    }

    /// What a broker needs to know to keep its objects here.
    pub fn beside(&self) -> Beside {
        let port = self.front.as_ref().map_or(0, Front::port);
        let url = format!("s3://{BUCKET}/perf?region=us-east-1&style=path&endpoint=http://127.0.0.1:{port}");
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Beside {
            settings: vec![format!("object.store.url={url}")],
            environment: vec![variable("AWS_ACCESS_KEY_ID", ACCESS_KEY), variable("AWS_SECRET_ACCESS_KEY", SECRET_KEY)],
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.front = None;
        // It may have ended already; then there is nothing to kill.
        let _ended = self.process.kill();
        let _status = self.process.wait();
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, port: u16) -> Result<Child, String> {
    // `nice`, for the server has threads by the time its process could be told.
    let mut command = Command::new("nice");
    command.args(["-n", &NICE.to_string()]).arg(broker::install_cache().join("bin/s3s-fs"));
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]).arg(directory);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    broker::prepare_child(&mut command);
    command.spawn().map_err(|e| format!("s3s-fs cannot be started: {e}"))
}

/// Makes the calling thread yield to those that are not polite.
pub fn be_polite() {
    // Refused, it competes like any other thread.
    let _as_it_is = rustix::process::setpriority_process(None, NICE);
}
