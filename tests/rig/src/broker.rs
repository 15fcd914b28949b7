//! The real binary as a child process.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Client, Metrics, Process, metrics, wait_for};

/// A start that takes longer has failed.
const START: Duration = Duration::from_secs(60);
/// A stop that takes longer has failed.
const STOP: Duration = Duration::from_secs(60);

/// A fresh directory below `root`, which must lie on a disk (`CARGO_TARGET_TMPDIR`); it goes with the value.
pub fn place(root: &str) -> TempDir {
    fs::create_dir_all(root).expect("the tests' directory");
    tempfile::Builder::new().prefix("broker-").tempdir_in(root).expect("a directory of the test's own")
}

/// How to run the binary: small, with its data below a directory, on ports that the system chooses.
#[derive(Debug)]
pub struct Setup {
    command: Command,
    dir: PathBuf,
}

impl Setup {
    /// `binary serve`, with everything below `dir`.
    pub fn new(binary: &str, dir: &Path) -> Setup {
        let mut command = Command::new(binary);
        command.arg("serve").env_remove("RUST_LOG").current_dir(dir).stdin(Stdio::null());
        let data = dir.join("data").display().to_string();
        let setup = Setup { command, dir: dir.to_owned() };
        setup
            .set("data.dir", data)
            .set("listeners", "127.0.0.1:0")
            .set("http.listen", "127.0.0.1:0")
            .set("shards", 2)
            .set("wal.capacity.bytes", 64 << 20)
            .set("cache.tail.bytes", 1 << 20)
            .set("cache.read.bytes", 1 << 20)
    }

    /// Adds `--set key=value`; the last one of a key counts.
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Setup {
        self.command.arg("--set").arg(format!("{key}={value}"));
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: &str) -> Setup {
        self.command.arg(argument);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.command.env(name, value);
        self
    }

    /// Runs the binary as another user, who then owns nothing but what the world may touch.
    pub fn user(mut self, id: u32) -> Setup {
        self.command.uid(id).gid(id);
        self
    }

    /// Does something in the child between fork and exec, such as lowering a limit.
    ///
    /// # Safety
    /// `what` must be safe after a fork: system calls, no allocation, no locks.
    pub unsafe fn before_exec(mut self, what: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Setup {
        // SAFETY: the caller keeps the contract.
        unsafe { self.command.pre_exec(what) };
        self
    }

    fn spawn(mut self) -> (Child, PathBuf, PathBuf) {
        let open = |path: &Path| File::create(path).expect("the test's directory is writable");
        let (out, log) = (self.dir.join("stdout"), self.dir.join("stderr"));
        let child = self.command.stdout(open(&out)).stderr(open(&log)).spawn();
        (child.expect("the binary starts"), out, log)
    }

    /// Starts the broker, and waits until it serves.
    pub fn start(self) -> Broker {
        let (mut child, out, log) = self.spawn();
        let mut line = String::new();
        let ready = wait_for(START, || {
            line = fs::read_to_string(&out).unwrap_or_default();
            line.ends_with('\n') || child.try_wait().expect("a child can be waited for").is_some()
        });
        let said = |field: &str| line.split_whitespace().find_map(|word| word.strip_prefix(field)).unwrap_or_default();
        if !ready || !line.starts_with("ready: ") {
            let _ended = child.kill();
            panic!("the broker did not start:\n{line}{}", fs::read_to_string(&log).unwrap_or_default());
        }
        let kafka = said("kafka=").split(',').map(|a| a.parse().expect("an address")).collect();
        let (http, shards) = (said("http=").parse().ok(), said("shards=").parse().expect("a number"));
        Broker { child, kafka, http, shards, log }
    }

    /// Runs the binary to its end: a start that is to be refused, or a command that tells something.
    pub fn run(self) -> Refusal {
        let (mut child, out, log) = self.spawn();
        let mut ended = None;
        let in_time = wait_for(START, || {
            ended = child.try_wait().expect("a child can be waited for");
            ended.is_some()
        });
        if !in_time {
            let _ended = child.kill();
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let (stdout, stderr) = (read(&out), read(&log));
        let status = ended.unwrap_or_else(|| panic!("it neither serves nor ends:\n{stdout}{stderr}"));
        Refusal { code: status.code(), stdout, stderr }
    }
}

/// How a process ended that was not to serve.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// A broker that serves. Dropping it kills it.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    /// Where Kafka clients connect.
    pub kafka: Vec<SocketAddr>,
    /// The HTTP endpoint.
    pub http: Option<SocketAddr>,
    /// Shards it says it has.
    pub shards: u16,
    log: PathBuf,
}

impl Broker {
    /// A connection to the first listener.
    pub fn connect(&self) -> Client {
        Client::connect(self.kafka[0]).unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.log()))
    }

    /// The process.
    pub fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What a path of the HTTP endpoint answers.
    pub fn http(&self, path: &str) -> (u16, String) {
        metrics::get(self.http.expect("an endpoint"), path).expect("the endpoint answers")
    }

    /// `/metrics` now.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.http("/metrics").1)
    }

    /// Panics when the process ended, or its log speaks of a panic.
    pub fn check_alive(&mut self, during: &str) {
        let ended = self.child.try_wait().expect("a child can be waited for");
        let log = self.log();
        let tail = &log[log.len().saturating_sub(4000)..];
        if let Some(status) = ended {
            panic!("{during}: the broker ended ({status}):\n{tail}");
        }
        let bad = log.lines().find(|line| line.contains("panicked") || line.contains("abort"));
        assert!(bad.is_none(), "{during}: {bad:?}\n{tail}");
    }

    /// SIGTERM, and the end; it must come in order.
    pub fn stop(mut self) {
        let status = self.signalled(libc::SIGTERM);
        assert_eq!(status.code(), Some(0), "stopped with {status}:\n{}", self.log());
    }

    /// kill -9.
    pub fn kill(mut self) {
        assert_eq!(self.signalled(libc::SIGKILL).signal(), Some(libc::SIGKILL), "it was alive");
    }

    fn signalled(&mut self, signal: i32) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: the child was not waited for yet, so the id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the signal was sent");
        let mut ended = None;
        wait_for(STOP, || {
            ended = self.child.try_wait().expect("a child can be waited for");
            ended.is_some()
        });
        ended.unwrap_or_else(|| panic!("it does not stop:\n{}", self.log()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _status = self.child.wait();
    }
}
