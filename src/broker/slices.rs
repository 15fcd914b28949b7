//! The files of the WAL: one slice per shard, recorded in the metadata.
//!
//! A slice that the metadata does not record as closed empty holds acknowledged records: when its file is missing the start
//! is refused. Files of ours that nothing records are left-overs of a start that was cut short, and are removed; a directory
//! with another broker's slices is refused, and one broker at a time has it.
#![expect(clippy::disallowed_methods, reason = "file names and removal at the start, on the main thread")]

use std::{
    fs,
    io::{self, Read},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use thalweg_record::{NodeId, ShardId};
use thalweg_shards::runtime::{Runtime, random_bits};
use thalweg_wal::{
    Device, LogConfig, Recovered, SliceIdentity,
    device::{GlommioDevice, SliceOptions, WalSync},
    format::Superblock,
};

use super::{OpenSlice, StartError};
use crate::{
    cluster::{Cluster, SliceRecord},
    config::{self, Config},
};

const BLOCK: u64 = 4096;
const SUPERBLOCKS: u64 = 2;

/// What all slices of a broker share.
#[derive(Clone)]
pub(super) struct SliceSet {
    pub devices: Arc<dyn OpenSlice>,
    pub dir: PathBuf,
    pub cluster: [u8; 16],
    pub node: NodeId,
    /// Length of each slice's file in bytes.
    pub len: u64,
    pub options: SliceOptions,
    pub config: LogConfig,
    pub accept_loss: bool,
}

impl SliceSet {
    pub(super) fn of(config: &Config, cluster: &Cluster, devices: Arc<dyn OpenSlice>, accept_loss: bool) -> SliceSet {
        let share = config.wal_capacity_bytes / u64::from(config.shards) / BLOCK * BLOCK;
        SliceSet {
            devices,
            dir: config.wal_path.clone(),
            cluster: cluster.cluster_uuid(),
            node: NodeId(config.node_id),
            len: share + SUPERBLOCKS * BLOCK,
            options: SliceOptions { sync: sync(config.wal_sync), allow_tmpfs: config.wal_allow_tmpfs },
            config: LogConfig {
                max_group_bytes: config.wal_max_group_bytes,
                // Well above what the shard lets into flight; recovery looks this far past the log's end.
                max_in_flight_bytes: 64 << 20,
                ..LogConfig::default()
            },
            accept_loss,
        }
    }

    /// A new record, not yet in the metadata; no file yet.
    pub(super) fn draw(&self, shard: ShardId) -> SliceRecord {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random_bits().to_le_bytes());
        id[8..].copy_from_slice(&random_bits().to_le_bytes());
        let hex: String = id.iter().map(|b| format!("{b:02x}")).collect();
        let path = self.dir.join(format!("slice-{shard}-{hex}.wal"));
        SliceRecord { id, shard, path, closed_empty: true }
    }

    fn identity(&self, record: &SliceRecord) -> SliceIdentity {
        SliceIdentity { cluster: self.cluster, node: self.node, shard: record.shard, slice: record.id }
    }

    /// Whether the recorded slices are those that the settings ask for, one per shard.
    pub(super) fn matches(&self, records: &[SliceRecord], shards: u16) -> bool {
        let mut of_shard: Vec<u16> = records.iter().map(|r| r.shard.0).collect();
        of_shard.sort_unstable();
        let file_fits = |r: &SliceRecord| match fs::metadata(&r.path) {
            Ok(file) => file.len() == self.len,
            Err(_) => true,
        };
        let in_place = |r: &SliceRecord| r.path.parent() == Some(self.dir.as_path());
        of_shard.into_iter().eq(0..shards) && records.iter().all(|r| file_fits(r) && in_place(r))
    }

    /// Finds slices whose directory was moved as a whole: same file name, today's directory.
    pub(super) fn relocated(&self, records: Vec<SliceRecord>) -> Vec<SliceRecord> {
        let relocate = |mut record: SliceRecord| {
            let here = record.path.file_name().map(|name| self.dir.join(name));
            if let Some(here) = here.filter(|here| here.exists() || (record.closed_empty && !record.path.exists())) {
                record.path = here;
            }
            record
        };
        records.into_iter().map(relocate).collect()
    }

    /// Checks that every slice that holds something is there.
    pub(super) fn check_present(&self, records: &[SliceRecord]) -> Result<(), StartError> {
        for record in records {
            let missing = !record.path.exists();
            if missing && !record.closed_empty && !self.accept_loss {
                return Err(StartError::Wal(format!(
                    "the WAL slice {} of shard {} is missing, and it held acknowledged records that no object has yet. Put \
                     the file (or its volume) back; if it is lost for good, start once with `thalweg serve --accept-loss`",
                    record.path.display(),
                    record.shard
                )));
            }
        }
        Ok(())
    }

    /// Removes files of ours in the WAL directory that nothing records.
    pub(super) fn remove_unrecorded(&self, records: &[SliceRecord]) -> std::io::Result<()> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Ok(()) };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let slice = is_slice(name);
            let draft = name.starts_with("slice-") && name.ends_with(".draft");
            if !(slice || draft) || records.iter().any(|r| same_file(&r.path, &path)) {
                continue;
            }
            if slice && owner(&path)?.is_none() {
                tracing::warn!(path = %path.display(), "nothing records this WAL file, and it cannot be read; it stays");
                continue;
            }
            tracing::warn!(path = %path.display(), "removing a WAL file that no start has completed");
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Opens a slice on the calling executor, creating its file when it is missing.
    pub(super) async fn open(
        &self,
        record: &SliceRecord,
        runtime: &Rc<dyn Runtime>,
    ) -> Result<(Rc<dyn Device>, Recovered), String> {
        let exists = record.path.exists();
        let device = if exists { self.device(record, runtime).await? } else { self.create(record, runtime).await? };
        let identity = self.identity(record);
        let opened = thalweg_wal::open(device.clone(), identity, self.config, runtime.random(), self.accept_loss).await;
        let recovered = opened.map_err(|e| format!("{}: {e}", record.path.display()))?;
        Ok((device, recovered))
    }

    async fn device(&self, record: &SliceRecord, runtime: &Rc<dyn Runtime>) -> Result<Rc<dyn Device>, String> {
        self.devices.open(&record.path, self.options, runtime).await.map_err(|e| e.to_string())
    }

    async fn create(&self, record: &SliceRecord, runtime: &Rc<dyn Runtime>) -> Result<Rc<dyn Device>, String> {
        // Under another name until its superblocks are written: a start that is cut short leaves no half slice behind.
        let draft = record.path.with_extension("draft");
        let drafted = SliceRecord { path: draft.clone(), ..record.clone() };
        if draft.exists() {
            fs::remove_file(&draft).map_err(|e| format!("{}: {e}", draft.display()))?;
        }
        GlommioDevice::create_file(&draft, self.len, self.options).map_err(|e| e.to_string())?;
        let device = self.device(&drafted, runtime).await?;
        let made = thalweg_wal::create(device.clone(), self.identity(record), self.config, runtime.random()).await;
        made.map_err(|e| format!("{}: {e}", draft.display()))?;
        let durable = fs::rename(&draft, &record.path).and_then(|()| fs::File::open(&self.dir)?.sync_all());
        durable.map_err(|e| format!("{}: {e}", record.path.display()))?;
        Ok(device)
    }
}

/// Refuses a directory that holds slices of other brokers than `own` (cluster and node; none: a broker that begins): what is
/// theirs must not be removed as a left-over of ours.
pub(super) fn refuse_strangers(dir: &Path, own: Option<([u8; 16], NodeId)>) -> Result<(), StartError> {
    let Ok(entries) = fs::read_dir(dir) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !is_slice(name) {
            continue;
        }
        let refused = |why: String| StartError::Wal(format!("{}: {why}", path.display()));
        let owner = owner(&path).map_err(|e| refused(e.to_string()))?;
        // One of ours that cannot be read is judged when it is opened.
        let ours = own.is_some() && (owner.is_none() || owner.map(|o| (o.cluster, o.node)) == own);
        if !ours {
            let whose = owner.map_or_else(|| "nobody knows whose".to_owned(), |o| format!("broker {}'s", o.node.0));
            return Err(refused(format!(
                "the slice is not of this broker but {whose}, and may hold what no object has: give this broker a \"wal.path\" of \
                 its own, or point \"data.dir\" to the directory that was used with it"
            )));
        }
    }
    Ok(())
}

/// Whether a file is a slice by its name.
fn is_slice(name: &str) -> bool {
    name.starts_with("slice-") && name.ends_with(".wal")
}

/// Whose a slice is, as its superblocks say; `None` when they cannot be read.
fn owner(path: &Path) -> io::Result<Option<SliceIdentity>> {
    let mut blocks = Vec::new();
    fs::File::open(path)?.take(SUPERBLOCKS * BLOCK).read_to_end(&mut blocks)?;
    let found = blocks.chunks_exact(BLOCK as usize).find_map(|block| Superblock::decode(block).ok());
    Ok(found.map(|superblock| superblock.identity))
}

/// Locks the directory against other brokers until the file is closed.
pub(super) fn lock(dir: &Path) -> Result<fs::File, StartError> {
    let file = fs::File::open(dir).map_err(|e| StartError::Wal(format!("{}: {e}", dir.display())))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(file);
    }
    let error = io::Error::last_os_error();
    Err(StartError::Wal(match error.kind() {
        io::ErrorKind::WouldBlock => format!(
            "{} is in use by another broker: stop it, or give this one a \"wal.path\" of its own",
            dir.display()
        ),
        _ => format!("{}: cannot be locked: {error}", dir.display()),
    }))
}

fn same_file(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn sync(setting: config::WalSync) -> WalSync {
    match setting {
        config::WalSync::Dsync => WalSync::Dsync,
        config::WalSync::Fdatasync => WalSync::Fdatasync,
    }
}
