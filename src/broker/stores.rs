//! Opens the object store that `object.store.url` names.

use std::sync::Arc;

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_objectstore_s3::Limits;
use thalweg_objectstore_s3_arrow as arrow;
use thalweg_objectstore_s3_rusoto as rusoto;
use tokio::runtime::Handle;

use super::{StartError, ballast};
use crate::config::{Config, S3Engine};

/// Opens the store for a broker. S3 needs the tokio runtime's handle; directories do not, and leave room to metadata on their disk.
///
/// # Errors
/// [`StartError::Store`] with what is wrong and how to mend it.
pub(super) fn open(config: &Config, runtime: &Handle) -> Result<Arc<dyn ObjectStore>, StartError> {
    open_keeping(config, runtime, Access::ReadWrite, ballast::kept_from_objects(config))
}

/// Opens the store; a command that only reads changes nothing, not even left-overs of a crash.
///
/// # Errors
/// As [`open`].
pub(super) fn open_for(config: &Config, runtime: &Handle, access: Access) -> Result<Arc<dyn ObjectStore>, StartError> {
    open_keeping(config, runtime, access, 0)
}

fn open_keeping(
    config: &Config,
    runtime: &Handle,
    access: Access,
    keep_free_bytes: u64,
) -> Result<Arc<dyn ObjectStore>, StartError> {
    let (url, limits) = (config.object_store_url.as_str(), Limits::default());
    let opened = match (config.object_store_url.scheme(), config.object_store_s3_engine) {
        ("s3", S3Engine::Rusoto) => rusoto::open(url, access, runtime, limits).map_err(|e| e.to_string()),
        ("s3", S3Engine::ObjectStore) => arrow::open(url, access, runtime, limits).map_err(|e| e.to_string()),
        _ => thalweg_objectstore::open(url, access, keep_free_bytes).map_err(|e| e.to_string()),
    };
    opened.map_err(StartError::Store)
}

/// Opens the store for a command, which has no broker around it, and the runtime that carries it.
///
/// # Errors
/// As [`open`].
pub(super) fn open_for_command(
    config: &Config,
    access: Access,
) -> Result<(tokio::runtime::Runtime, Arc<dyn ObjectStore>), StartError> {
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let objects = open_for(config, tokio.handle(), access)?;
    Ok((tokio, objects))
}
