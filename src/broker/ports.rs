//! What a broker is built on: where its log and its metadata are kept.
//!
//! The binary takes the machine ([`Ports::default`]); tests put devices and stores that fail in their place. Slices are opened
//! on the cores that own them, the metadata on the main thread.

use std::{path::Path, rc::Rc, sync::Arc};

use thalweg_shards::runtime::{LocalBoxFuture, Runtime};
use thalweg_wal::{
    Device,
    device::{DeviceError, GlommioDevice, SliceOptions},
};

use crate::cluster::{OpenStore, store};

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

/// What a broker is built on.
#[derive(Clone)]
pub struct Ports {
    /// The devices of the log.
    pub slices: Arc<dyn OpenSlice>,
    /// The store of the metadata.
    pub metadata: Arc<OpenStore>,
}

impl Default for Ports {
    fn default() -> Ports {
        Ports { slices: Arc::new(Disk), metadata: Arc::new(store::open_sled) }
    }
}

/// Slices on the disks of this machine.
struct Disk;

impl OpenSlice for Disk {
    fn open<'a>(
        &'a self,
        path: &'a Path,
        options: SliceOptions,
        _runtime: &'a Rc<dyn Runtime>,
    ) -> LocalBoxFuture<'a, Result<Rc<dyn Device>, DeviceError>> {
        Box::pin(async move { Ok(Rc::new(GlommioDevice::open(path, options).await?) as Rc<dyn Device>) })
    }
}
