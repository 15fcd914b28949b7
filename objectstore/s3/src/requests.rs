//! Single requests: one call of the library each, its answer checked.

use std::{io, ops::Range};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use rusoto_core::ByteStream;
use rusoto_s3::{
    DeleteObjectRequest, GetObjectError, GetObjectRequest, HeadObjectError, HeadObjectRequest, ListObjectsV2Request,
    PutObjectRequest, S3, S3Client,
};
use thalweg_objectstore::{ObjectKey, ObjectMeta, PutCondition, StoreError};

use crate::{
    S3Url,
    connect::{Connection, Extras},
    errors::store_error,
    headers::checksum,
    hedge::Hedge,
};

/// The bucket, and how to reach it.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) connection: Connection,
    pub(crate) url: S3Url,
    pub(crate) hedge: Hedge,
}

/// A request's body in pieces, with its size, which S3 demands. Its signature leaves it out: a checksum, TLS on the way,
/// and a CRC for each block of an object guard it.
pub(crate) fn body(parts: Vec<Bytes>) -> ByteStream {
    let size = parts.iter().map(Bytes::len).sum();
    ByteStream::new_with_size(stream::iter(parts.into_iter().map(Ok::<_, io::Error>)), size)
}

impl Bucket {
    /// For requests without anything special.
    pub(crate) async fn plain(&self) -> Result<S3Client, StoreError> {
        self.connection.client(Extras::default()).await
    }

    pub(crate) fn full_key(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.url.prefix)
    }

    pub(crate) async fn put(
        &self,
        key: &ObjectKey,
        parts: Vec<Bytes>,
        condition: PutCondition,
    ) -> Result<(), StoreError> {
        let size = parts.iter().map(Bytes::len).sum::<usize>();
        let checksum = checksum(self.url.checksum, &parts);
        let (server_side_encryption, ssekms_key_id) = self.url.encryption.headers();
        let request = PutObjectRequest {
            bucket: self.url.bucket.clone(),
            key: self.full_key(key),
            content_length: Some(size as i64),
            body: Some(body(parts)),
            server_side_encryption,
            ssekms_key_id,
            ..PutObjectRequest::default()
        };
        let client =
            self.connection.client(Extras::default().conditional(condition).checked(checksum.as_deref())).await?;
        client.put_object(request).await.map(drop).map_err(|e| store_error(key, e, |_| None))
    }

    pub(crate) async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let past_the_end = || StoreError::Refused(format!("{key} does not have bytes {}..{}", range.start, range.end));
        let wanted = range.end.checked_sub(range.start).filter(|n| *n > 0).ok_or_else(past_the_end)?;
        let request = GetObjectRequest {
            bucket: self.url.bucket.clone(),
            key: self.full_key(key),
            range: Some(format!("bytes={}-{}", range.start, range.end - 1)),
            ..GetObjectRequest::default()
        };
        let ask = || async {
            self.plain().await?.get_object(request.clone()).await.map_err(|e| {
                store_error(key, e, |e| {
                    matches!(e, GetObjectError::NoSuchKey(_)).then(|| StoreError::NotFound(key.clone()))
                })
            })
        };
        let answer = self.hedge.first(ask).await?;
        let partial = answer.content_range.is_some();
        let length = answer.content_length.and_then(|n| u64::try_from(n).ok());
        if length.is_some_and(|n| n < wanted) || (!partial && range.start > 0 && length.is_some_and(|n| n < range.end))
        {
            return Err(past_the_end());
        }
        if !partial && length != Some(wanted) {
            return Err(StoreError::Retry("the server does not serve ranges".to_owned()));
        }
        let short = || StoreError::Retry(format!("{key}: the answer ended early"));
        // The length is the server's word by now, and at most what was asked for.
        let mut content = BytesMut::with_capacity(usize::try_from(wanted).map_err(|_| past_the_end())?);
        let mut stream = answer.body.ok_or_else(short)?;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|e| StoreError::Retry(format!("{key}: {e}")))?;
            if (content.len() + piece.len()) as u64 > wanted {
                return Err(StoreError::Retry(format!("{key}: more than was asked for")));
            }
            content.extend_from_slice(&piece);
        }
        if content.len() as u64 == wanted { Ok(content.freeze()) } else { Err(short()) }
    }

    pub(crate) async fn head(&self, key: &ObjectKey) -> Result<ObjectMeta, StoreError> {
        let request = HeadObjectRequest {
            bucket: self.url.bucket.clone(),
            key: self.full_key(key),
            ..HeadObjectRequest::default()
        };
        let answer = self.plain().await?.head_object(request).await.map_err(|e| {
            let missing = |e: &HeadObjectError| {
                matches!(e, HeadObjectError::NoSuchKey(_)).then(|| StoreError::NotFound(key.clone()))
            };
            store_error(key, e, missing)
        })?;
        let size = answer.content_length.and_then(|n| u64::try_from(n).ok());
        let size_bytes = size.ok_or_else(|| StoreError::Retry(format!("{key}: no size in the answer")))?;
        Ok(ObjectMeta { key: key.clone(), size_bytes })
    }

    pub(crate) async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = DeleteObjectRequest {
            bucket: self.url.bucket.clone(),
            key: self.full_key(key),
            ..DeleteObjectRequest::default()
        };
        match self.plain().await?.delete_object(request).await.map_err(|e| store_error(key, e, |_| None)) {
            // Some servers say so where S3 says nothing.
            Err(StoreError::NotFound(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// One page of a listing, and whether there may be more after its last key.
    pub(crate) async fn list_page(
        &self,
        prefix: &str,
        after: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<(Vec<ObjectMeta>, bool), StoreError> {
        let request = ListObjectsV2Request {
            bucket: self.url.bucket.clone(),
            prefix: Some(format!("{}{prefix}", self.url.prefix)),
            start_after: after.map(|key| self.full_key(key)),
            max_keys: Some(limit as i64),
            ..ListObjectsV2Request::default()
        };
        let nobody = ObjectKey::new("listing").expect("a key");
        let answer =
            self.plain().await?.list_objects_v2(request).await.map_err(|e| store_error(&nobody, e, |_| None))?;
        let mut found = Vec::new();
        for object in answer.contents.unwrap_or_default() {
            let name = object.key.unwrap_or_default();
            // A key that is none of ours was put there by somebody else.
            let Some(Ok(key)) = name.strip_prefix(&self.url.prefix).map(ObjectKey::new) else { continue };
            let size_bytes = object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            found.push(ObjectMeta { key, size_bytes });
        }
        Ok((found, answer.is_truncated.unwrap_or(false)))
    }
}
