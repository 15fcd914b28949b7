//! A file that takes room on the disk of `data.dir` while there is some, and gives it up when others have filled the disk: the
//! metadata must be written all the same, or nothing is committed, the log is never trimmed, and nothing is deleted.
//!
//! Lives on a thread of its own; the main thread looks once before the metadata is opened. While the ballast is given up no topics and
//! no partitions are created.
#![expect(clippy::disallowed_methods, reason = "has a thread of its own, and looks at files before any shard runs")]

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use flume::{RecvTimeoutError, Sender};
use metrics::Gauge;

use crate::config::{Config, host};

/// The file's name below `data.dir`.
const NAME: &str = "ballast";
/// How often the disk is looked at. What is written in between fits into what sled's file has ahead of its end.
const LOOK: Duration = Duration::from_millis(250);
/// Looks between two tries to make a file that could not be made: a minute.
const LOOKS_AFTER_FAILURE: u64 = 240;

thalweg_shards::meters! {
    /// The disk of the metadata; one set in the process.
    pub struct BallastMeters(BALLAST_METRICS, labels: []) {
        /// Room that the ballast file keeps for the metadata; 0 while it is given up because the disk is nearly full.
        ballast_bytes: Gauge = "thalweg_metadata_ballast_bytes", "bytes";
        /// Room that is left on the disk of "data.dir".
        free_bytes: Gauge = "thalweg_data_dir_free_bytes", "bytes";
    }
}

impl BallastMeters {
    /// The handles, registered with the recorder in force.
    pub fn new() -> BallastMeters {
        BallastMeters::register(&[])
    }
}

impl Default for BallastMeters {
    fn default() -> BallastMeters {
        BallastMeters::new()
    }
}

/// Room that objects in a directory on the same disk leave to the metadata, in bytes; 0 when they lie elsewhere.
pub(super) fn kept_from_objects(config: &Config) -> u64 {
    let beside = host::object_dir(config).is_some_and(|objects| host::same_file_system(&config.data_dir, &objects));
    // As much as it takes to make the ballast again: what objects find free must not keep it away for ever.
    if beside { config.metadata_ballast_bytes.saturating_mul(2) } else { 0 }
}

/// The ballast of one broker.
pub(super) struct Ballast {
    data_dir: PathBuf,
    bytes: u64,
    /// It may be made: not while the broker starts, which may yet be refused.
    makes: AtomicBool,
    /// It is given up, or there was no room for it.
    short: AtomicBool,
    /// The file system has promised its room; not all of them show that in the file's blocks.
    promised: AtomicBool,
    /// Looks to let pass before it is tried again to make it.
    waits: AtomicU64,
    free_bytes: AtomicU64,
    meters: BallastMeters,
}

/// Ends the thread when it is dropped.
pub(super) struct Watch {
    _ends_when_dropped: Sender<()>,
}

impl Ballast {
    /// Looks once, before the metadata is opened: on a full disk its room is needed for that. Creates nothing.
    pub(super) fn find(config: &Config) -> Arc<Ballast> {
        Ballast::of(&config.data_dir, config.metadata_ballast_bytes)
    }

    fn of(data_dir: &Path, bytes: u64) -> Arc<Ballast> {
        let data_dir = data_dir.to_owned();
        let [makes, short, promised] = [(); 3].map(|()| AtomicBool::new(false));
        let (waits, free_bytes) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let meters = BallastMeters::new();
        let ballast = Ballast { data_dir, bytes, makes, short, promised, waits, free_bytes, meters };
        if ballast.held() > 0 && ballast.free().is_some_and(|free| free < ballast.mark()) {
            ballast.give_up();
        }
        Arc::new(ballast)
    }

    /// Why nothing may be created that makes the metadata grow; `None` when it may.
    pub(super) fn no_growth(&self) -> Option<String> {
        let free = self.free_bytes.load(Ordering::Relaxed);
        self.short.load(Ordering::Relaxed).then(|| {
            format!(
                "The disk of this broker's metadata is nearly full, {free} bytes are left: it creates topics and partitions again \
                 when {} are free.",
                self.enough()
            )
        })
    }

    /// Looks now, and from now on at every [`LOOK`].
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn watch(self: &Arc<Ballast>) -> io::Result<Watch> {
        let ballast = self.clone();
        let (end, ended) = flume::bounded(0);
        ballast.look();
        let run = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                ballast.look();
            }
        };
        thread::Builder::new().name("thalweg-ballast".into()).spawn(run)?;
        Ok(Watch { _ends_when_dropped: end })
    }

    /// Makes the file, now and whenever there is room again.
    pub(super) fn allow(&self) {
        self.makes.store(true, Ordering::Relaxed);
        self.look();
    }

    /// With less than this free it is given up.
    fn mark(&self) -> u64 {
        self.bytes / 2
    }

    /// With this much free it is made: as much is left then, and it is not given up again at once.
    fn enough(&self) -> u64 {
        self.bytes.saturating_mul(2)
    }

    fn path(&self) -> PathBuf {
        self.data_dir.join(NAME)
    }

    fn free(&self) -> Option<u64> {
        let free = u64::try_from(host::room(&self.data_dir)?.usable_bytes).unwrap_or(0);
        self.free_bytes.store(free, Ordering::Relaxed);
        Some(free)
    }

    /// What the file takes on the disk, in bytes.
    fn held(&self) -> u64 {
        let promised = if self.promised.load(Ordering::Relaxed) { self.bytes } else { 0 };
        fs::metadata(self.path()).map_or(0, |file| promised.max(file.blocks() * 512))
    }

    fn look(&self) {
        let Some(free) = self.free() else { return };
        let mut held = self.held();
        if held > 0 && (self.bytes == 0 || free < self.mark()) {
            self.give_up();
            held = self.held();
        } else if self.makes.load(Ordering::Relaxed) && held < self.bytes && free >= self.enough() {
            held = self.make();
        }
        // Where it cannot be made there is room all the same.
        let roomy = held >= self.bytes || free >= self.enough();
        if roomy && self.short.swap(false, Ordering::Relaxed) {
            tracing::info!(
                ballast_bytes = held,
                free_bytes = free,
                "the disk of \"data.dir\" has room again; topics can be created"
            );
        }
        if !roomy && !self.short.swap(true, Ordering::Relaxed) {
            self.tell(free);
        }
        self.meters.ballast_bytes.set(held as f64);
        self.meters.free_bytes.set(free as f64);
    }

    /// Takes the room; answers what it has.
    fn make(&self) -> u64 {
        let waits = self.waits.load(Ordering::Relaxed);
        if waits > 0 {
            self.waits.store(waits - 1, Ordering::Relaxed);
            return self.held();
        }
        let made = allocate(&self.path(), self.bytes);
        self.promised.store(made.is_ok(), Ordering::Relaxed);
        if let Err(error) = made {
            tracing::warn!(path = %self.path().display(), %error, "the ballast file could not be made; it is tried again in a minute");
            self.waits.store(LOOKS_AFTER_FAILURE, Ordering::Relaxed);
            let _left = fs::remove_file(self.path());
        }
        self.held()
    }

    /// Gives the room back, durably: until then some file systems do not let anybody have it.
    fn give_up(&self) {
        let path = self.path();
        self.promised.store(false, Ordering::Relaxed);
        let emptied = File::options().write(true).open(&path).and_then(|file| {
            file.set_len(0)?;
            file.sync_all()
        });
        if let Err(error) = emptied.and_then(|()| fs::remove_file(&path)) {
            tracing::error!(path = %path.display(), %error, "the ballast file could not be removed: remove it by hand");
        }
        if self.bytes > 0 && !self.short.swap(true, Ordering::Relaxed) {
            self.tell(self.free_bytes.load(Ordering::Relaxed));
        }
    }

    fn tell(&self, free: u64) {
        tracing::error!(
            free_bytes = free,
            needed_bytes = self.enough(),
            "THE DISK OF \"data.dir\" IS NEARLY FULL: its ballast is given up to the metadata. Records are taken as before; no topics and \
             no partitions are created until there is room again"
        );
    }
}

/// Makes a file that takes `bytes` on the disk; where a file system cannot allocate, the C library writes.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let len = i64::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; no memory is passed.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => file.sync_all(),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_where_there_is_room_and_given_up_where_there_is_little() {
        let dir = tempfile::tempdir().expect("a directory");
        let roomy = Ballast::of(dir.path(), 1 << 20);
        assert_eq!(roomy.held(), 0, "finding it creates nothing");
        roomy.look();
        assert_eq!(roomy.held(), 0, "nor does a look while the broker starts");
        roomy.allow();
        assert!(roomy.held() >= 1 << 20);
        assert_eq!(roomy.no_growth(), None);
        // A ballast for which this disk is too small: found at a start, it goes before anything else.
        let tight = Ballast::of(dir.path(), 1 << 60);
        assert_eq!(tight.held(), 0);
        assert!(tight.no_growth().expect("refused").contains("nearly full"));
        tight.allow();
        assert!(tight.no_growth().is_some());
        // Turned off, it neither takes room nor stands in the way.
        roomy.look();
        let off = Ballast::of(dir.path(), 0);
        off.look();
        assert_eq!((off.held(), off.no_growth()), (0, None));
    }
}
