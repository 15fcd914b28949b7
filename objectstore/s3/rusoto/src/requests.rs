//! Single requests: one call of the library each, its answer checked.

use std::{fmt, io, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rusoto_core::ByteStream;
use rusoto_s3::{
    AbortMultipartUploadRequest, CompleteMultipartUploadRequest, CompletedMultipartUpload, CompletedPart,
    CreateMultipartUploadRequest, DeleteObjectRequest, GetObjectError, GetObjectRequest, HeadObjectError,
    HeadObjectRequest, ListMultipartUploadsRequest, ListObjectsV2Request, MultipartUpload, PutObjectRequest, S3,
    S3Client, UploadPartRequest,
};
use thalweg_objectstore::{ObjectKey, PutCondition, StoreError};
use thalweg_objectstore_s3::{
    Connection, Extras, Markers, Page, Part, Reading, Requests, S3Url, Upload, Uploads, checksum,
};

use crate::{dispatch, errors::store_error};

/// The engine.
pub struct Rusoto {
    connection: Arc<Connection>,
}

impl fmt::Debug for Rusoto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rusoto({:?})", self.connection)
    }
}

/// A request's body in pieces, with its size, which S3 demands. Its signature leaves it out: a checksum, TLS on the way,
/// and a CRC for each block of an object guard it.
fn body(parts: Vec<Bytes>) -> ByteStream {
    let size = parts.iter().map(Bytes::len).sum();
    ByteStream::new_with_size(stream::iter(parts.into_iter().map(Ok::<_, io::Error>)), size)
}

/// For errors of requests without a key, which are never about one.
fn nobody() -> ObjectKey {
    ObjectKey::new("listing").expect("a key")
}

/// A length of the library's, when it is one.
fn length(given: Option<i64>) -> Option<u64> {
    given.and_then(|n| u64::try_from(n).ok())
}

impl Rusoto {
    /// The engine of one bucket.
    pub fn new(connection: Arc<Connection>) -> Rusoto {
        Rusoto { connection }
    }

    fn url(&self) -> &S3Url {
        self.connection.url()
    }

    async fn client(&self, extras: Extras) -> Result<S3Client, StoreError> {
        dispatch::client(&self.connection, extras).await
    }

    /// For requests without anything special.
    async fn plain(&self) -> Result<S3Client, StoreError> {
        self.client(Extras::default()).await
    }
}

impl Requests for Rusoto {
    const LIBRARY: &'static str = "rusoto_s3";

    async fn put(&self, key: &ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> Result<(), StoreError> {
        let size = parts.iter().map(Bytes::len).sum::<usize>();
        let checksum = checksum(self.url().checksum, &parts);
        let request = PutObjectRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            content_length: Some(size as i64),
            body: Some(body(parts)),
            ..PutObjectRequest::default()
        };
        let extras = Extras::default().conditional(condition).checked(checksum.as_deref());
        let client = self.client(extras.encrypted(&self.url().encryption)).await?;
        client.put_object(request).await.map(drop).map_err(|e| store_error(key, e, |_| None))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Reading, StoreError> {
        let request = GetObjectRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            range: Some(format!("bytes={}-{}", range.start, range.end - 1)),
            ..GetObjectRequest::default()
        };
        let answer = self.plain().await?.get_object(request).await.map_err(|e| {
            let missing = |e: &GetObjectError| {
                matches!(e, GetObjectError::NoSuchKey(_)).then(|| StoreError::NotFound(key.clone()))
            };
            store_error(key, e, missing)
        })?;
        let named = key.clone();
        let told = move |e| StoreError::Retry(format!("{named}: {e}"));
        let body = answer.body.map(|body| body.map_err(told).boxed());
        Ok(Reading { partial: answer.content_range.is_some(), length_bytes: length(answer.content_length), body })
    }

    async fn size(&self, key: &ObjectKey) -> Result<u64, StoreError> {
        let request = HeadObjectRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            ..HeadObjectRequest::default()
        };
        let answer = self.plain().await?.head_object(request).await.map_err(|e| {
            let missing = |e: &HeadObjectError| {
                matches!(e, HeadObjectError::NoSuchKey(_)).then(|| StoreError::NotFound(key.clone()))
            };
            store_error(key, e, missing)
        })?;
        length(answer.content_length).ok_or_else(|| StoreError::Retry(format!("{key}: no size in the answer")))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let request = DeleteObjectRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            ..DeleteObjectRequest::default()
        };
        self.plain().await?.delete_object(request).await.map(drop).map_err(|e| store_error(key, e, |_| None))
    }

    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Page, StoreError> {
        let request = ListObjectsV2Request {
            bucket: self.url().bucket.clone(),
            prefix: Some(format!("{}{prefix}", self.url().prefix)),
            start_after: after.map(|key| self.url().full_key(key)),
            max_keys: Some(limit as i64),
            ..ListObjectsV2Request::default()
        };
        let answer = self.plain().await?.list_objects_v2(request).await;
        let answer = answer.map_err(|e| store_error(&nobody(), e, |_| None))?;
        let object = |object: rusoto_s3::Object| (object.key.unwrap_or_default(), length(object.size).unwrap_or(0));
        let objects = answer.contents.unwrap_or_default().into_iter().map(object).collect();
        Ok(Page { objects, more: answer.is_truncated.unwrap_or(false) })
    }

    async fn begin_upload(&self, key: &ObjectKey) -> Result<String, StoreError> {
        let request = CreateMultipartUploadRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            ..CreateMultipartUploadRequest::default()
        };
        let extras = Extras::default().of_checked_parts(self.url().checksum).encrypted(&self.url().encryption);
        let client = self.client(extras).await?;
        let answer = client.create_multipart_upload(request).await;
        let upload = answer.map_err(|e| store_error(key, e, |_| None))?.upload_id;
        upload.ok_or_else(|| StoreError::Retry("an upload without an id".to_owned()))
    }

    async fn upload_part(
        &self,
        key: &ObjectKey,
        upload: &str,
        number: u32,
        pieces: Vec<Bytes>,
    ) -> Result<Part, StoreError> {
        let checksum = checksum(self.url().checksum, &pieces);
        let request = UploadPartRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            upload_id: upload.to_owned(),
            part_number: i64::from(number),
            content_length: Some(pieces.iter().map(Bytes::len).sum::<usize>() as i64),
            body: Some(body(pieces)),
            ..UploadPartRequest::default()
        };
        let client = self.client(Extras::default().checked(checksum.as_deref())).await?;
        let answer = client.upload_part(request).await.map_err(|e| store_error(key, e, |_| None))?;
        Ok(Part { number, tag: answer.e_tag.unwrap_or_default(), checksum })
    }

    async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &str,
        parts: &[Part],
        condition: PutCondition,
    ) -> Result<(), StoreError> {
        let part =
            |part: &Part| CompletedPart { e_tag: Some(part.tag.clone()), part_number: Some(i64::from(part.number)) };
        let request = CompleteMultipartUploadRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            upload_id: upload.to_owned(),
            multipart_upload: Some(CompletedMultipartUpload { parts: Some(parts.iter().map(part).collect()) }),
            ..CompleteMultipartUploadRequest::default()
        };
        let client = self.client(Extras::default().conditional(condition).completing(parts)).await?;
        let answer = client.complete_multipart_upload(request).await.map_err(|e| store_error(key, e, |_| None))?;
        // Without a tag it was an error behind a 200.
        answer.e_tag.map(drop).ok_or_else(|| StoreError::Retry("the upload was not completed".to_owned()))
    }

    async fn abort_upload(&self, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
        let request = AbortMultipartUploadRequest {
            bucket: self.url().bucket.clone(),
            key: self.url().full_key(key),
            upload_id: upload.to_owned(),
            ..AbortMultipartUploadRequest::default()
        };
        let gone = |_: &_| Some(StoreError::NotFound(key.clone()));
        self.plain().await?.abort_multipart_upload(request).await.map(drop).map_err(|e| store_error(key, e, gone))
    }

    async fn list_uploads(&self, folder: &str, after: Option<&Markers>) -> Result<Uploads, StoreError> {
        let (key_marker, upload_id_marker) = after.cloned().unzip();
        let request = ListMultipartUploadsRequest {
            bucket: self.url().bucket.clone(),
            prefix: Some(format!("{}{folder}/", self.url().prefix)),
            key_marker,
            upload_id_marker: upload_id_marker.filter(|marker| !marker.is_empty()),
            ..ListMultipartUploadsRequest::default()
        };
        let answer = self.plain().await?.list_multipart_uploads(request).await;
        let answer = answer.map_err(|e| store_error(&nobody(), e, |_| None))?;
        let upload = |upload: MultipartUpload| Upload {
            key: upload.key.unwrap_or_default(),
            id: upload.upload_id.unwrap_or_default(),
            initiated: upload.initiated.unwrap_or_default(),
        };
        let uploads = answer.uploads.unwrap_or_default().into_iter().map(upload).collect();
        let more = answer.is_truncated.unwrap_or(false);
        let markers = answer.next_key_marker.map(|key| (key, answer.next_upload_id_marker.unwrap_or_default()));
        Ok(Uploads { uploads, next: markers.filter(|_| more) })
    }
}
