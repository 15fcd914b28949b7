//! Large objects: uploaded in parts, which become an object all at once, or are aborted.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use rusoto_s3::{
    AbortMultipartUploadRequest, CompleteMultipartUploadRequest, CompletedMultipartUpload, CompletedPart,
    CreateMultipartUploadRequest, S3, UploadPartRequest,
};
use thalweg_objectstore::{ObjectKey, PutCondition, StoreError};

use crate::{
    attempt::{Attempts, Repeat},
    connect::Extras,
    errors::store_error,
    headers::{Uploaded, checksum},
    requests::{Bucket, body},
};

/// Parts of one upload in flight.
const PARTS_AT_ONCE: usize = 4;

/// Uploads `parts` as one object. When it fails, the upload is aborted, as far as the store answers.
pub(crate) async fn put(
    bucket: &Bucket,
    attempts: &Attempts,
    key: &ObjectKey,
    parts: Vec<Bytes>,
    condition: PutCondition,
) -> Result<(), StoreError> {
    // The condition acts at the end; looking first spares an upload that must fail.
    if condition == PutCondition::IfAbsent {
        match attempts.run(Repeat::Harmless, || bucket.head(key)).await {
            Ok(_) => return Err(StoreError::Exists(key.clone())),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let size_bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let upload = attempts.run(Repeat::Harmless, || create(bucket, key)).await?;
    let done = async {
        let pieces = cut(parts, attempts.limits.part_bytes);
        let uploads = pieces.into_iter().zip(1i64..).map(|(piece, number)| {
            let upload = upload.as_str();
            async move {
                let bytes = piece.iter().map(|p| p.len() as u64).sum();
                attempts
                    .moving(bytes, Repeat::Harmless, || upload_part(bucket, key, upload, number, piece.clone()))
                    .await
            }
        });
        let completed: Vec<Uploaded> = stream::iter(uploads).buffered(PARTS_AT_ONCE).try_collect().await?;
        complete(bucket, attempts, key, &upload, completed, condition, size_bytes).await
    };
    let outcome = done.await;
    if outcome.is_err() {
        let aborted = attempts.run(Repeat::Harmless, || abort(bucket, key, &upload)).await;
        if let Err(error) = aborted {
            tracing::warn!(key = key.as_str(), upload, %error, "parts of a failed upload may stay in the bucket");
        }
    }
    outcome
}

/// Cuts pieces into parts of `part_bytes`, the last one shorter, without a copy.
fn cut(pieces: Vec<Bytes>, part_bytes: usize) -> Vec<Vec<Bytes>> {
    let (mut parts, mut part, mut room) = (Vec::new(), Vec::new(), part_bytes);
    for mut piece in pieces {
        while piece.len() >= room {
            part.push(piece.split_to(room));
            parts.push(std::mem::take(&mut part));
            room = part_bytes;
        }
        if !piece.is_empty() {
            room -= piece.len();
            part.push(piece);
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

async fn create(bucket: &Bucket, key: &ObjectKey) -> Result<String, StoreError> {
    let (server_side_encryption, ssekms_key_id) = bucket.url.encryption.headers();
    let request = CreateMultipartUploadRequest {
        bucket: bucket.url.bucket.clone(),
        key: bucket.full_key(key),
        server_side_encryption,
        ssekms_key_id,
        ..CreateMultipartUploadRequest::default()
    };
    let client = bucket.connection.client(Extras::default().of_checked_parts(bucket.url.checksum)).await?;
    let answer = client.create_multipart_upload(request).await;
    let upload = answer.map_err(|e| store_error(key, e, |_| None))?.upload_id;
    upload.ok_or_else(|| StoreError::Retry("an upload without an id".to_owned()))
}

async fn upload_part(
    bucket: &Bucket,
    key: &ObjectKey,
    upload: &str,
    number: i64,
    pieces: Vec<Bytes>,
) -> Result<Uploaded, StoreError> {
    let checksum = checksum(bucket.url.checksum, &pieces);
    let request = UploadPartRequest {
        bucket: bucket.url.bucket.clone(),
        key: bucket.full_key(key),
        upload_id: upload.to_owned(),
        part_number: number,
        content_length: Some(pieces.iter().map(Bytes::len).sum::<usize>() as i64),
        body: Some(body(pieces)),
        ..UploadPartRequest::default()
    };
    let client = bucket.connection.client(Extras::default().checked(checksum.as_deref())).await?;
    let answer = client.upload_part(request).await.map_err(|e| store_error(key, e, |_| None))?;
    Ok(Uploaded { part: CompletedPart { e_tag: answer.e_tag, part_number: Some(number) }, checksum })
}

async fn complete(
    bucket: &Bucket,
    attempts: &Attempts,
    key: &ObjectKey,
    upload: &str,
    parts: Vec<Uploaded>,
    condition: PutCondition,
    size_bytes: u64,
) -> Result<(), StoreError> {
    let repeat = match condition {
        PutCondition::Always => Repeat::Harmless,
        PutCondition::IfAbsent => Repeat::Ambiguous,
    };
    let extras = Extras::default().conditional(condition).completing(&parts);
    let parts: Vec<CompletedPart> = parts.into_iter().map(|uploaded| uploaded.part).collect();
    let call = || async {
        let request = CompleteMultipartUploadRequest {
            bucket: bucket.url.bucket.clone(),
            key: bucket.full_key(key),
            upload_id: upload.to_owned(),
            multipart_upload: Some(CompletedMultipartUpload { parts: Some(parts.clone()) }),
            ..CompleteMultipartUploadRequest::default()
        };
        let client = bucket.connection.client(extras.clone()).await?;
        let answer = client.complete_multipart_upload(request).await.map_err(|e| store_error(key, e, |_| None))?;
        // S3 may say 200 first and put an error into the body; then there is no tag.
        answer.e_tag.map(drop).ok_or_else(|| StoreError::Retry("the upload was not completed".to_owned()))
    };
    match attempts.run(repeat, call).await {
        // An earlier attempt may have completed the upload, whose id is then gone.
        Err(StoreError::NotFound(_)) => match attempts.run(Repeat::Harmless, || bucket.head(key)).await {
            Ok(found) if found.size_bytes == size_bytes && repeat == Repeat::Harmless => Ok(()),
            _ => Err(StoreError::Retry(format!("{key}: the upload is gone"))),
        },
        other => other,
    }
}

pub(crate) async fn abort(bucket: &Bucket, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
    let request = AbortMultipartUploadRequest {
        bucket: bucket.url.bucket.clone(),
        key: bucket.full_key(key),
        upload_id: upload.to_owned(),
        ..AbortMultipartUploadRequest::default()
    };
    let gone = |_: &_| Some(StoreError::NotFound(key.clone()));
    match bucket.plain().await?.abort_multipart_upload(request).await.map_err(|e| store_error(key, e, gone)) {
        Err(StoreError::NotFound(_)) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_to_size_and_lose_nothing() {
        for sizes in [vec![], vec![0], vec![10], vec![3, 0, 4, 13, 1], vec![10, 10], vec![25]] {
            let pieces: Vec<Bytes> = sizes.iter().map(|n| (0..*n as u8).collect()).collect();
            let parts = cut(pieces.clone(), 10);
            let all: Vec<u8> = parts.iter().flatten().flat_map(|p| p.to_vec()).collect();
            assert_eq!(all, pieces.concat());
            let lengths: Vec<usize> = parts.iter().map(|p| p.iter().map(Bytes::len).sum()).collect();
            let (last, full) = lengths.split_last().unwrap_or((&1, &[]));
            assert!(full.iter().all(|n| *n == 10) && (1..=10).contains(last), "{lengths:?}");
        }
    }
}
