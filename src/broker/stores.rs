//! Opens the object store that `object.store.url` names.

use std::sync::Arc;

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_objectstore_s3::Limits;
use url::Url;

use super::{StartError, ballast};
use crate::config::Config;

/// Opens the store for a broker. S3 needs the tokio runtime's handle; directories do not, and leave room to metadata on their disk.
///
/// # Errors
/// [`StartError::Store`] with what is wrong and how to mend it.
pub(super) fn open(config: &Config, runtime: &tokio::runtime::Handle) -> Result<Arc<dyn ObjectStore>, StartError> {
    open_keeping(&config.object_store_url, runtime, Access::ReadWrite, ballast::kept_from_objects(config))
}

/// Opens the store; a command that only reads changes nothing, not even left-overs of a crash.
///
/// # Errors
/// As [`open`].
pub(super) fn open_for(
    url: &Url,
    runtime: &tokio::runtime::Handle,
    access: Access,
) -> Result<Arc<dyn ObjectStore>, StartError> {
    open_keeping(url, runtime, access, 0)
}

fn open_keeping(
    url: &Url,
    runtime: &tokio::runtime::Handle,
    access: Access,
    keep_free_bytes: u64,
) -> Result<Arc<dyn ObjectStore>, StartError> {
    let refused = |e: &dyn std::fmt::Display| StartError::Store(e.to_string());
    match url.scheme() {
        "s3" => thalweg_objectstore_s3::open(url.as_str(), access, runtime, Limits::default()).map_err(|e| refused(&e)),
        _ => thalweg_objectstore::open(url.as_str(), access, keep_free_bytes).map_err(|e| refused(&e)),
    }
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
    let objects = open_for(&config.object_store_url, tokio.handle(), access)?;
    Ok((tokio, objects))
}
