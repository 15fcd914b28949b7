//! What an engine does: single requests. Everything above them (trying again, reading twice, uploads in parts, the way
//! from a shard's thread into the runtime and back) is the same for all engines, and lies in this crate.

use std::{fmt, ops::Range};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::BoxStream};
use thalweg_objectstore::{ObjectKey, ObjectMeta, PutCondition, StoreError};

/// What a read brings: its head has come, its bytes have not.
pub struct Reading {
    /// Whether the server says that it sends a part of the object.
    pub partial: bool,
    /// How many bytes it says will come.
    pub length_bytes: Option<u64>,
    /// The bytes; `None` when the library has thrown them away.
    pub body: Option<BoxStream<'static, Result<Bytes, StoreError>>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading(partial: {}, length: {:?})", self.partial, self.length_bytes)
    }
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Full keys (the store's prefix included) and sizes, in key order.
    pub objects: Vec<(String, u64)>,
    /// Whether there may be more after the last key.
    pub more: bool,
}

/// A part that the store has, and what it was checked with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// From 1.
    pub number: u32,
    /// The server's tag of it.
    pub tag: String,
    /// CRC-32C as headers carry it.
    pub checksum: Option<String>,
}

/// A multipart upload that is not completed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Upload {
    /// Its full key.
    pub key: String,
    /// Its id.
    pub id: String,
    /// When it began, as S3 writes times (RFC 3339).
    pub initiated: String,
}

/// Where a listing of uploads goes on: key and id.
pub type Markers = (String, String);

/// A page of uploads.
#[derive(Debug, Default)]
pub struct Uploads {
    /// In key order.
    pub uploads: Vec<Upload>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<Markers>,
}

/// A library that speaks to S3, one request a call, each made once. Futures run on tokio.
pub trait Requests: fmt::Debug + Send + Sync + 'static {
    /// The library's name.
    const LIBRARY: &'static str;

    /// Puts an object in one request, with checksum and encryption as the URL says.
    fn put(
        &self,
        key: &ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Begins to read a range that is not empty.
    fn read(&self, key: &ObjectKey, range: Range<u64>) -> impl Future<Output = Result<Reading, StoreError>> + Send;

    /// An object's size in bytes.
    fn size(&self, key: &ObjectKey) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Deletes an object; what is not there may be [`StoreError::NotFound`].
    fn delete(&self, key: &ObjectKey) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lists at most `limit` objects whose key below the store's prefix begins with `prefix`, after `after`.
    fn list(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Begins an upload in parts; its id.
    fn begin_upload(&self, key: &ObjectKey) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Uploads a part.
    fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &str,
        number: u32,
        pieces: Vec<Bytes>,
    ) -> impl Future<Output = Result<Part, StoreError>> + Send;

    /// Makes an object of all parts. S3 may say 200 first and put an error into the body; that is an error.
    fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &str,
        parts: &[Part],
        condition: PutCondition,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Drops an upload and its parts; what is not there may be [`StoreError::NotFound`].
    fn abort_upload(&self, key: &ObjectKey, upload: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Lists uploads that are not completed below `folder` of the store.
    fn list_uploads(
        &self,
        folder: &str,
        after: Option<&Markers>,
    ) -> impl Future<Output = Result<Uploads, StoreError>> + Send;
}

/// `Ok` also for what was not there.
pub(crate) fn gone(outcome: Result<(), StoreError>) -> Result<(), StoreError> {
    match outcome {
        // Some servers say so where S3 says nothing.
        Err(StoreError::NotFound(_)) => Ok(()),
        other => other,
    }
}

/// How many bytes `range` has.
///
/// # Errors
/// When it is empty.
pub(crate) fn wanted(key: &ObjectKey, range: &Range<u64>) -> Result<u64, StoreError> {
    range.end.checked_sub(range.start).filter(|n| *n > 0).ok_or_else(|| past_the_end(key, range))
}

fn past_the_end(key: &ObjectKey, range: &Range<u64>) -> StoreError {
    StoreError::Refused(format!("{key} does not have bytes {}..{}", range.start, range.end))
}

/// The bytes of a read, exactly those of `range`.
pub(crate) async fn collect(key: &ObjectKey, range: &Range<u64>, reading: Reading) -> Result<Bytes, StoreError> {
    let wanted = wanted(key, range)?;
    let Reading { partial, length_bytes, body } = reading;
    if length_bytes.is_some_and(|n| n < wanted)
        || (!partial && range.start > 0 && length_bytes.is_some_and(|n| n < range.end))
    {
        return Err(past_the_end(key, range));
    }
    if !partial && length_bytes != Some(wanted) {
        return Err(StoreError::Retry("the server does not serve ranges".to_owned()));
    }
    let short = || StoreError::Retry(format!("{key}: the answer ended early"));
    // The length is the server's word by now, and at most what was asked for.
    let mut content = BytesMut::with_capacity(usize::try_from(wanted).map_err(|_| past_the_end(key, range))?);
    let mut pieces = body.ok_or_else(short)?;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if (content.len() + piece.len()) as u64 > wanted {
            return Err(StoreError::Retry(format!("{key}: more than was asked for")));
        }
        content.extend_from_slice(&piece);
    }
    if content.len() as u64 == wanted { Ok(content.freeze()) } else { Err(short()) }
}

/// The objects of a page whose keys are ours below `prefix`; what is not was put there by somebody else.
pub(crate) fn ours(page: Page, prefix: &str) -> Vec<ObjectMeta> {
    let meta = |(name, size_bytes): (String, u64)| {
        let key = ObjectKey::new(name.strip_prefix(prefix)?).ok()?;
        Some(ObjectMeta { key, size_bytes })
    };
    page.objects.into_iter().filter_map(meta).collect()
}
