//! The upload pipeline of a shard: durable batches of the ring become objects, commits move the trim point.
//!
//! `plan` decides (pure), `job` writes and commits (a task of the upload queue), `pipeline` is the shard's side of it.
//! Uploads run side by side, commits happen in LSN order, and the ring is trimmed only after the metadata is durable.

mod config;
mod job;
mod pipeline;
mod plan;
#[cfg(feature = "planted-bugs")]
mod pretend;

pub use config::{UploadConfig, WriterIdentity};
pub(crate) use pipeline::Uploader;
#[cfg(feature = "planted-bugs")]
pub use pretend::{Aborted, pretend_aborted};
