//! What a broker's data is kept on: where its log and its metadata lie.
//!
//! The binary takes the machine ([`Ports::default`]); tests put devices and stores that fail in their place. Slices are opened
//! on the cores that own them, files and metadata are looked after on the main thread.

use std::{
    any::Any,
    io,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use thalweg_objectstore::ObjectStore;
use thalweg_shards::runtime::{LocalBoxFuture, Runtime};
use thalweg_wal::{
    Device,
    device::{DeviceError, SliceOptions},
};

use super::{StartError, disk::Disk, metadata};
use crate::{
    cluster::{Cluster, ClusterSettings, store},
    config::Config,
};

/// Opens the devices of WAL slices.
pub trait OpenSlice: Send + Sync {
    /// Opens the slice at `path`, which exists, on the calling core.
    fn open<'a>(
        &'a self,
        path: &'a Path,
        options: SliceOptions,
        runtime: &'a Rc<dyn Runtime>,
    ) -> LocalBoxFuture<'a, Result<Rc<dyn Device>, DeviceError>>;
}

/// The directory that WAL slices lie in.
pub trait SliceFiles: Send + Sync {
    /// Creates the directory if need be; its one name.
    ///
    /// # Errors
    /// The file system's; so for all calls.
    fn prepare(&self, dir: &Path) -> io::Result<PathBuf>;

    /// Locks the directory against other brokers until the lock is dropped; `WouldBlock` when another has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Any + Send>>;

    /// The files of the directory; none when there is no directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// A file's length in bytes; `None` when it is not there.
    fn len(&self, path: &Path) -> Option<u64>;

    /// The first `len` bytes of a file, fewer when it is shorter.
    fn head(&self, path: &Path, len: u64) -> io::Result<Vec<u8>>;

    /// Whether two paths name one file.
    fn same(&self, a: &Path, b: &Path) -> bool;

    /// Creates a file of `len` bytes for a slice.
    fn create(&self, path: &Path, len: u64, options: SliceOptions) -> Result<(), DeviceError>;

    /// Gives a file its name for good, durably.
    fn publish(&self, draft: &Path, path: &Path) -> io::Result<()>;

    /// Removes a file; at once, and durable some time.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// What metadata is opened with.
pub struct MetadataParts<'a> {
    /// The broker's settings.
    pub config: &'a Config,
    /// What the cluster is opened with, as often as it is tried.
    pub settings: &'a dyn Fn() -> ClusterSettings,
    /// The files of the log, which say whose it is.
    pub files: &'a dyn SliceFiles,
    /// The object store.
    pub objects: &'a dyn ObjectStore,
    /// Whether what is missing may be lost.
    pub accept_loss: bool,
}

/// Opens the metadata, or begins it, and takes a new epoch.
pub trait OpenMetadata: Send + Sync {
    /// Opens it. May block for as long as a start may wait for the object store.
    ///
    /// # Errors
    /// See [`Cluster::open`].
    fn open(&self, parts: MetadataParts<'_>) -> Result<Cluster, StartError>;
}

/// A store in a directory of its own below `data.dir`, made anew from the bucket when it must be.
impl<F> OpenMetadata for F
where
    F: Fn(&Path) -> Result<Arc<dyn store::MetadataStore>, store::MetadataError> + Send + Sync + 'static,
{
    fn open(&self, parts: MetadataParts<'_>) -> Result<Cluster, StartError> {
        metadata::open(self, parts)
    }
}

/// What a broker's data is kept on.
#[derive(Clone)]
pub struct Ports {
    /// The devices of the log.
    pub slices: Arc<dyn OpenSlice>,
    /// Their files.
    pub files: Arc<dyn SliceFiles>,
    /// The metadata.
    pub metadata: Arc<dyn OpenMetadata>,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { slices: Arc::new(Disk), files: Arc::new(Disk), metadata: Arc::new(store::open_sled) }
    }
}
