//! The files of the WAL: one slice per shard, recorded in the metadata.
//!
//! A slice that the metadata does not record as closed empty holds acknowledged records: when its file is missing the start
//! is refused. Files of ours that nothing records are left-overs of a start that was cut short, and are removed, but for those that were
//! given up as lost; a directory with another broker's slices is refused, and one broker at a time has it.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use thalweg_record::{NodeId, ShardId};
use thalweg_shards::runtime::Runtime;
use thalweg_wal::{
    Device, LogConfig, Recovered, SliceIdentity,
    device::{SliceOptions, WalSync},
    format::Superblock,
};

use super::{Host, OpenSlice, Ports, SliceFiles, StartError};
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
    pub files: Arc<dyn SliceFiles>,
    pub host: Arc<dyn Host>,
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
    pub(super) fn of(
        config: &Config,
        cluster: &Cluster,
        ports: &Ports,
        host: &Arc<dyn Host>,
        accept_loss: bool,
    ) -> SliceSet {
        let share = config.wal_capacity_bytes / u64::from(config.shards) / BLOCK * BLOCK;
        SliceSet {
            devices: ports.slices.clone(),
            files: ports.files.clone(),
            host: host.clone(),
            dir: config.wal_path.clone(),
            cluster: cluster.cluster_uuid(),
            node: NodeId(config.node_id),
            len: share + SUPERBLOCKS * BLOCK,
            options: options(config),
            config: log_config(config),
            accept_loss,
        }
    }

    /// A new record, not yet in the metadata; no file yet.
    pub(super) fn draw(&self, shard: ShardId) -> SliceRecord {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.host.random().to_le_bytes());
        id[8..].copy_from_slice(&self.host.random().to_le_bytes());
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
        let file_fits = |r: &SliceRecord| self.files.len(&r.path).is_none_or(|len| len == self.len);
        let in_place = |r: &SliceRecord| r.path.parent() == Some(self.dir.as_path());
        of_shard.into_iter().eq(0..shards) && records.iter().all(|r| file_fits(r) && in_place(r))
    }

    /// Finds slices whose directory was moved as a whole: same file name, today's directory.
    pub(super) fn relocated(&self, records: Vec<SliceRecord>) -> Vec<SliceRecord> {
        let relocate = |mut record: SliceRecord| {
            let here = record.path.file_name().map(|name| self.dir.join(name));
            if let Some(here) =
                here.filter(|here| self.exists(here) || (record.closed_empty && !self.exists(&record.path)))
            {
                record.path = here;
            }
            record
        };
        records.into_iter().map(relocate).collect()
    }

    /// Checks that every slice that holds something is there.
    pub(super) fn check_present(&self, records: &[SliceRecord]) -> Result<(), StartError> {
        for record in records {
            let missing = !self.exists(&record.path);
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

    /// Of the recorded slices those that are lost.
    pub(super) fn lost(&self, records: &[SliceRecord]) -> Vec<SliceRecord> {
        records.iter().filter(|record| !record.closed_empty && !self.exists(&record.path)).cloned().collect()
    }

    /// What takes the places of lost slices: slices of other ids, so that a lost one that is found again is not taken for the one that the
    /// broker went on in. Each keeps its path: a lost file that is put back there is refused by its id. They hold nothing yet: should this
    /// start not come to an end, the lost one can be drained.
    pub(super) fn renew(&self, lost: &[SliceRecord]) -> Vec<SliceRecord> {
        lost.iter().map(|lost| SliceRecord { path: lost.path.clone(), ..self.draw(lost.shard) }).collect()
    }

    /// Removes files of ours in the WAL directory that nothing records; one that was given up as `lost` and is found again stays.
    pub(super) fn remove_unrecorded(&self, records: &[SliceRecord], lost: &[SliceRecord]) -> std::io::Result<()> {
        for path in self.files.list(&self.dir)? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let slice = is_slice(name);
            let draft = name.starts_with("slice-") && name.ends_with(".draft");
            if !(slice || draft) || records.iter().any(|r| self.files.same(&r.path, &path)) {
                continue;
            }
            let of = if slice { owner(&*self.files, &path)? } else { None };
            if slice && of.is_none() {
                tracing::warn!(path = %path.display(), "nothing records this WAL file, and it cannot be read; it stays");
                continue;
            }
            if of.is_some_and(|of| lost.iter().any(|lost| lost.id == of.slice)) {
                tracing::warn!(
                    path = %path.display(),
                    "this WAL slice was given up as lost, and may hold what nothing else does; it stays: stop the broker, and take what \
                     it holds with `thalweg wal drain`"
                );
                continue;
            }
            tracing::warn!(path = %path.display(), "removing a WAL file that no start has completed");
            self.files.remove(&path)?;
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.files.len(path).is_some()
    }

    /// Opens a slice on the calling executor, creating its file when it is missing.
    pub(super) async fn open(
        &self,
        record: &SliceRecord,
        runtime: &Rc<dyn Runtime>,
    ) -> Result<(Rc<dyn Device>, Recovered), String> {
        let device = if self.exists(&record.path) {
            self.device(record, runtime).await?
        } else {
            self.create(record, runtime).await?
        };
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
        if self.exists(&draft) {
            self.files.remove(&draft).map_err(|e| format!("{}: {e}", draft.display()))?;
        }
        self.files.create(&draft, self.len, self.options).map_err(|e| e.to_string())?;
        let device = self.device(&drafted, runtime).await?;
        let made = thalweg_wal::create(device.clone(), self.identity(record), self.config, runtime.random()).await;
        made.map_err(|e| format!("{}: {e}", draft.display()))?;
        self.files.publish(&draft, &record.path).map_err(|e| format!("{}: {e}", record.path.display()))?;
        Ok(device)
    }
}

/// Refuses a directory that holds slices of other brokers than `own` (cluster and node; none: a broker that begins): what is
/// theirs must not be removed as a left-over of ours.
pub(super) fn refuse_strangers(
    files: &dyn SliceFiles,
    dir: &Path,
    own: Option<([u8; 16], NodeId)>,
) -> Result<(), StartError> {
    for path in files.list(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !is_slice(name) {
            continue;
        }
        let refused = |why: String| StartError::Wal(format!("{}: {why}", path.display()));
        let owner = owner(files, &path).map_err(|e| refused(e.to_string()))?;
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

/// How slices are opened.
pub(super) fn options(config: &Config) -> SliceOptions {
    SliceOptions { sync: sync(config.wal_sync), allow_tmpfs: config.wal_allow_tmpfs }
}

/// How their logs are read and written.
pub(super) fn log_config(config: &Config) -> LogConfig {
    LogConfig {
        max_group_bytes: config.wal_max_group_bytes,
        // Well above what the shard lets into flight; recovery looks this far past the log's end.
        max_in_flight_bytes: 64 << 20,
        ..LogConfig::default()
    }
}

/// The slices of broker `node` in a directory, each with its cluster, as their superblocks tell.
pub(super) fn found(files: &dyn SliceFiles, dir: &Path, node: NodeId) -> Vec<([u8; 16], SliceRecord)> {
    let mut paths = files.list(dir).unwrap_or_default();
    paths.sort();
    let slice = |path: PathBuf| {
        let named = path.file_name().and_then(|n| n.to_str()).is_some_and(is_slice);
        let identity = owner(files, &path).ok()?.filter(|identity| named && identity.node == node)?;
        let (id, shard) = (identity.slice, identity.shard);
        Some((identity.cluster, SliceRecord { id, shard, path, closed_empty: false }))
    };
    paths.into_iter().filter_map(slice).collect()
}

/// Whether a file is a slice by its name.
fn is_slice(name: &str) -> bool {
    name.starts_with("slice-") && name.ends_with(".wal")
}

/// Whose a slice is, as its superblocks say; `None` when they cannot be read.
pub(super) fn owner(files: &dyn SliceFiles, path: &Path) -> io::Result<Option<SliceIdentity>> {
    let blocks = files.head(path, SUPERBLOCKS * BLOCK)?;
    let found = blocks.chunks_exact(BLOCK as usize).find_map(|block| Superblock::decode(block).ok());
    Ok(found.map(|superblock| superblock.identity))
}

/// Locks the directory against other brokers until what is returned is dropped.
pub(super) fn lock(files: &dyn SliceFiles, dir: &Path) -> Result<Box<dyn Any + Send>, StartError> {
    files.lock(dir).map_err(|error| {
        StartError::Wal(match error.kind() {
            io::ErrorKind::WouldBlock => format!(
                "{} is in use by another broker: stop it, or give this one a \"wal.path\" of its own",
                dir.display()
            ),
            _ => format!("{}: cannot be locked: {error}", dir.display()),
        })
    })
}

fn sync(setting: config::WalSync) -> WalSync {
    match setting {
        config::WalSync::Dsync => WalSync::Dsync,
        config::WalSync::Fdatasync => WalSync::Fdatasync,
    }
}
