//! Large objects: uploaded in parts, which become an object all at once, or are aborted.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use thalweg_objectstore::{ObjectKey, PutCondition, StoreError};

use crate::{
    Requests,
    attempt::Repeat,
    paced::Paced,
    requests::{Part, gone},
    store::Inner,
};

/// Uploads `parts` as one object, at the pace of what has time. When it fails, the upload is aborted, as far as the store answers.
pub(crate) async fn put<R: Requests>(
    store: &Inner<R>,
    key: &ObjectKey,
    parts: Vec<Bytes>,
    condition: PutCondition,
    paced: &Paced,
) -> Result<(), StoreError> {
    let (engine, attempts) = (&store.engine, &store.attempts);
    // The condition acts at the end; looking first spares an upload that must fail.
    if condition == PutCondition::IfAbsent {
        match store.size(key).await {
            Ok(_) => return Err(StoreError::Exists(key.clone())),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let size_bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
    let upload = attempts.run(Repeat::Harmless, || engine.begin_upload(key)).await?;
    let done = async {
        let part_bytes = even(size_bytes as usize, attempts.limits.part_bytes);
        let pieces = cut(parts, part_bytes);
        let uploads = pieces.into_iter().zip(1u32..).map(|(piece, number)| {
            let upload = upload.as_str();
            async move {
                let bytes = piece.iter().map(|p| p.len() as u64).sum();
                paced.begin(bytes).await;
                let send = || engine.upload_part(key, upload, number, piece.clone());
                attempts.moving(bytes, Repeat::Harmless, send).await
            }
        });
        let parts: Vec<Part> = stream::iter(uploads).buffered(paced.parts_at_once()).try_collect().await?;
        complete(store, key, &upload, &parts, condition, size_bytes).await
    };
    let outcome = done.await;
    if outcome.is_err() {
        if let Err(error) = abort(store, key, &upload).await {
            tracing::warn!(key = key.as_str(), upload, %error, "parts of a failed upload may stay in the bucket");
        }
    }
    outcome
}

/// Drops an upload, which may be gone.
pub(crate) async fn abort<R: Requests>(store: &Inner<R>, key: &ObjectKey, upload: &str) -> Result<(), StoreError> {
    gone(store.attempts.run(Repeat::Harmless, || store.engine.abort_upload(key, upload)).await)
}

async fn complete<R: Requests>(
    store: &Inner<R>,
    key: &ObjectKey,
    upload: &str,
    parts: &[Part],
    condition: PutCondition,
    size_bytes: u64,
) -> Result<(), StoreError> {
    let repeat = match condition {
        PutCondition::Always => Repeat::Harmless,
        PutCondition::IfAbsent => Repeat::Ambiguous,
    };
    match store.attempts.run(repeat, || store.engine.complete_upload(key, upload, parts, condition)).await {
        // An earlier attempt may have completed the upload, whose id is then gone.
        Err(StoreError::NotFound(_)) => match store.size(key).await {
            Ok(found) if found == size_bytes && repeat == Repeat::Harmless => Ok(()),
            _ => Err(StoreError::Retry(format!("{key}: the upload is gone"))),
        },
        other => other,
    }
}

/// The size of parts that are as few as may be, and as large as each other: then they end together.
fn even(size_bytes: usize, most: usize) -> usize {
    size_bytes.div_ceil(size_bytes.div_ceil(most).max(1)).max(1)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_parts_as_may_be_are_alike() {
        assert_eq!(even(64, 48), 32);
        assert_eq!(even(48, 48), 48);
        assert_eq!(even(260, 48), 44);
        assert_eq!(even(101, 100), 51);
        assert_eq!(even(0, 48), 1);
    }

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
