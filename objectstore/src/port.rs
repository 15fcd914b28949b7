//! The port: what Thalweg asks of an object store.

use std::{fmt, num::NonZeroU64, ops::Range, pin::Pin};

use bytes::Bytes;
use thalweg_record::NodeId;

/// Key of an object below the store's prefix: `/`-separated segments of `[A-Za-z0-9._=-]`, no empty, `.` or `..` segment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Checks and takes a key.
    ///
    /// # Errors
    /// The offending text, when a segment is empty, `.`, `..`, or has another character, or the key exceeds 900 bytes.
    pub fn new(key: impl Into<String>) -> Result<ObjectKey, String> {
        let key = key.into();
        let fits = key.len() <= 900
            && key.split('/').all(|s| {
                !s.is_empty()
                    && s != "."
                    && s != ".."
                    && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._=-".contains(&b))
            });
        if fits { Ok(ObjectKey(key)) } else { Err(key) }
    }

    /// The key's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// On what condition a put takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutCondition {
    /// Creates or replaces.
    Always,
    /// Creates; [`StoreError::Exists`] when the key is there. Atomic.
    IfAbsent,
}

/// What a listing tells of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMeta {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What the world did wrong, by what the caller does next.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// No such object. Final.
    #[error("object {0} does not exist")]
    NotFound(ObjectKey),
    /// [`PutCondition::IfAbsent`] found the key taken. Final.
    #[error("object {0} exists already")]
    Exists(ObjectKey),
    /// A passing fault, whose effect may or may not have been applied: try again later.
    #[error("object store is not answering: {0}")]
    Retry(String),
    /// Permission, credentials, a missing bucket: trying again does not help until somebody mends it.
    #[error("object store refuses: {0}")]
    Refused(String),
}

/// What the port's calls return.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// An object store. Puts are atomic: a reader sees the whole object or none. A put whose future ended with `Ok` is
/// durable. Listings may lag on real stores; nothing relies on them but clean-up and diagnosis.
pub trait ObjectStore: Send + Sync + 'static {
    /// Writes an object; `parts` are concatenated. The engine may split it into a multipart upload.
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()>;

    /// As [`ObjectStore::put`], for what has time: its bytes go out evenly, at most `bytes_per_second` of them, as far as the engine can,
    /// so that what is urgent is not stuck behind them.
    fn put_slowly<'a>(
        &'a self,
        key: &'a ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
        bytes_per_second: NonZeroU64,
    ) -> StoreFuture<'a, ()> {
        let _at_once = bytes_per_second;
        self.put(key, parts, condition)
    }

    /// Tells that the store's user writes data objects as `node` in its epoch `node_epoch`: what earlier epochs of that node have begun
    /// to put, nobody will end.
    fn writes_as(&self, node: NodeId, node_epoch: u64) {
        let _nothing_is_left_half_done = (node, node_epoch);
    }

    /// Reads `range` of an object: exactly its length, or an error. A range that is empty or
    /// reaches past the end is [`StoreError::Refused`].
    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes>;

    /// An object's size.
    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta>;

    /// Deletes an object; `Ok` also when it was not there.
    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()>;

    /// Up to `limit` objects (at most 1,000) whose key starts with `prefix` (any text), in key order, after `after`.
    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>>;
}
