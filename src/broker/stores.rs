//! Opens the object store that `object.store.url` names.

use std::sync::Arc;

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_objectstore_s3::Limits;
use url::Url;

use super::StartError;

/// Opens the store for a broker. S3 needs the tokio runtime's handle; directories do not.
///
/// # Errors
/// [`StartError::Store`] with what is wrong and how to mend it.
pub(super) fn open(url: &Url, runtime: &tokio::runtime::Handle) -> Result<Arc<dyn ObjectStore>, StartError> {
    let refused = |e: &dyn std::fmt::Display| StartError::Store(e.to_string());
    match url.scheme() {
        "s3" => thalweg_objectstore_s3::open(url.as_str(), runtime, Limits::default()).map_err(|e| refused(&e)),
        _ => thalweg_objectstore::open(url.as_str(), Access::ReadWrite).map_err(|e| refused(&e)),
    }
}
