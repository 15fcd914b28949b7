//! What the bucket holds of the metadata, so that it alone is enough: snapshots, written while the broker runs, and the
//! deletion of objects behind them.
//!
//! The keeper lives on the metadata thread beside the two actors and waits for nothing but the object store and its alarm; a
//! snapshot is copied page by page between their turns.

mod copy;
mod deletion;
mod format;
mod keeper;
mod listed;
mod meters;
mod progress;
pub(super) mod rebuild;
mod release;
mod restore;
mod stored;
mod tail;
#[cfg(test)]
mod tests;
mod verify;

pub(super) use self::{
    copy::Copy,
    format::Entry,
    keeper::{keep, keep_last},
    stored::newest_written,
};
pub use self::{
    keeper::BucketPorts,
    meters::{BUCKET_METRICS, BucketMeters},
    progress::{LogNotes, Progress},
    rebuild::{RebuildError, RebuildSettings, Rebuilt},
    restore::{rebuild_store, restore, verify_bucket, verify_local, verify_store},
    verify::Verified,
};
