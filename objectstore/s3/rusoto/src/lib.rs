//! The S3 engine of the object-store port on `rusoto_s3`, selectable with `object.store.s3.engine`.
//!
//! `rusoto_s3` is at its end of life, so it stays behind [`Requests`](thalweg_objectstore_s3::Requests) in this leaf crate.
//! It builds requests and reads answers; they are addressed, signed with its own signer, and sent in `dispatch.rs`.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

use std::sync::Arc;

use thalweg_objectstore::{Access, ObjectStore};
use thalweg_objectstore_s3::{Limits, UrlError};
use tokio::runtime::Handle;

mod dispatch;
mod errors;
mod requests;
#[cfg(test)]
mod tests;

pub use requests::Rusoto;

/// Opens the store at an `s3://` URL: [`thalweg_objectstore_s3::open`].
///
/// # Errors
/// [`UrlError`], whose text tells the user what to mend.
pub fn open(url: &str, access: Access, runtime: &Handle, limits: Limits) -> Result<Arc<dyn ObjectStore>, UrlError> {
    thalweg_objectstore_s3::open(url, access, runtime, limits, Rusoto::new)
}
