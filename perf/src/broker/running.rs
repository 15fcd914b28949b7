//! One broker process: started, asked for its first answer, watched, ended.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    metrics::Metrics,
    page_cache,
    process::{self, Usage},
};
use crate::{client::wire::API_VERSIONS, figures::Rival};

/// Generous: on a busy machine a JVM takes its time, and how long it took is a figure of its own.
const ANSWERS_WITHIN: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(2);
/// A broker rests when, for two such periods, it used next to no CPU and wrote next to nothing.
const REST_PERIOD: Duration = Duration::from_millis(250);
const REST_WRITTEN_BYTES: u64 = 1 << 20;
/// How much of a broker's log is shown when it failed.
const LOG_END_BYTES: usize = 4000;

/// A running broker. Dropped, it is killed and its directory removed.
#[derive(Debug)]
pub struct Broker {
    /// Who it is.
    pub rival: Rival,
    /// Where it listens.
    pub bootstrap: String,
    /// From the start of the process to its first answer.
    pub ready: Duration,
    /// Where Thalweg tells its metrics.
    http: Option<String>,
    process: Child,
    directory: PathBuf,
}

/// Two loopback ports that nobody listens on.
pub(crate) fn free_ports() -> Result<[u16; 2], String> {
    let bind = || TcpListener::bind("127.0.0.1:0").map_err(|e| format!("no free port: {e}"));
    let port = |socket: &TcpListener| socket.local_addr().map(|a| a.port()).map_err(|e| e.to_string());
    let (one, two) = (bind()?, bind()?);
    Ok([port(&one)?, port(&two)?])
}

impl Broker {
    pub(super) fn start(
        rival: Rival,
        mut command: Command,
        directory: PathBuf,
        ports: [u16; 2],
    ) -> Result<Broker, String> {
        let failed = |e: std::io::Error| format!("{} cannot be started: {e}", rival.name());
        let log = File::create(log_path(&directory)).map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(failed)?).stderr(log).current_dir(&directory);
        prepare_child(&mut command);
        let began = Instant::now();
        let process = command.spawn().map_err(failed)?;
        let [bootstrap, http] = ports.map(|port| format!("127.0.0.1:{port}"));
        let http = rival.is_thalweg().then_some(http);
        let mut broker = Broker { rival, bootstrap, ready: Duration::ZERO, http, process, directory };
        while !answers(&broker.bootstrap) {
            if let Ok(Some(status)) = broker.process.try_wait() {
                return Err(broker.failure(&format!("ended with {status} instead of starting")));
            }
            if began.elapsed() > ANSWERS_WITHIN {
                return Err(broker.failure("answered nothing in time"));
            }
            thread::sleep(PAUSE);
        }
        broker.ready = began.elapsed();
        Ok(broker)
    }

    /// What the process has cost so far.
    ///
    /// # Errors
    /// When it is gone; with the end of its log.
    pub fn usage(&mut self) -> Result<Usage, String> {
        match self.process.try_wait() {
            Ok(None) => process::usage(self.process.id()),
            ended => Err(self.failure(&format!("ended by itself: {ended:?}"))),
        }
    }

    /// Waits until the broker has come to rest, but not longer than `at_most`.
    ///
    /// # Errors
    /// When it is gone.
    pub fn settle(&mut self, at_most: Duration) -> Result<Usage, String> {
        let began = Instant::now();
        let (mut before, mut rests) = (self.usage()?, 0);
        while rests < 2 && began.elapsed() < at_most {
            thread::sleep(REST_PERIOD);
            let now = self.usage()?;
            let idle = now.cpu_s - before.cpu_s <= 1.5 * process::tick().as_secs_f64();
            let quiet = now.written_bytes - before.written_bytes <= REST_WRITTEN_BYTES;
            rests = if idle && quiet { rests + 1 } else { 0 };
            before = now;
        }
        Ok(before)
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What the broker tells of itself; none of a broker that is not Thalweg.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Option<Metrics>, String> {
        self.http.as_deref().map(Metrics::read).transpose()
    }

    /// Takes the files of the broker's data out of the page cache, after what is dirty was written; the bytes of the files.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn drop_page_cache(&self) -> Result<u64, String> {
        page_cache::drop_below(&self.directory.join("data"))
    }

    fn failure(&self, why: &str) -> String {
        let log = fs::read(log_path(&self.directory)).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_END_BYTES)..]).into_owned();
        format!("{} {why}\n{end}", self.rival.name())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ended = self.process.kill();
        let _status = self.process.wait();
        let _kept = fs::remove_dir_all(&self.directory);
    }
}

fn log_path(directory: &Path) -> PathBuf {
    directory.join("broker.log")
}

/// Whether whoever listens there answers a Kafka request.
fn answers(bootstrap: &str) -> bool {
    let ask = || -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(bootstrap)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(&API_VERSIONS)?;
        stream.read(&mut [0; 64])
    };
    ask().is_ok_and(|bytes| bytes > 8)
}

/// The child may lock memory for io_uring as far as this process may, and does not outlive it.
pub(crate) fn prepare_child(command: &mut Command) {
    // SAFETY: the closure runs in the forked child and makes system calls only; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            if libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
            Ok(())
        });
    }
}
