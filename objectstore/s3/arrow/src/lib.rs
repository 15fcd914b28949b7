//! The S3 engine of the object-store port on `object_store` (Apache Arrow), the default of `object.store.s3.engine`.
//!
//! The library builds requests and reads answers. Its retries, timeouts, credentials and client are switched off: those are
//! the same for all engines ([`thalweg_objectstore_s3`]). What it sends goes through `service.rs`, which adds what it does
//! not know (CRC-32C, the condition of an upload in parts), signs with the library's signer, and notes what the server said,
//! for the library's errors do not tell statuses. Listings are requests of our own (`listings.rs` says why).

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

use std::sync::Arc;

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_objectstore_s3::{Limits, UrlError};
use tokio::runtime::Handle;

mod listings;
mod requests;
mod service;
#[cfg(test)]
mod tests;

pub use requests::Arrow;

/// Opens the store at an `s3://` URL: [`thalweg_objectstore_s3::open`].
///
/// # Errors
/// [`UrlError`], whose text tells the user what to mend.
pub fn open(url: &str, access: Access, runtime: &Handle, limits: Limits) -> Result<Arc<dyn ObjectStore>, UrlError> {
    thalweg_objectstore_s3::open(url, access, runtime, limits, Arrow::new)
}
