//! Multipart uploads that nobody will complete: what a crash left behind stays in the bucket unseen, and is paid for.

use std::sync::Weak;

use chrono::DateTime;
use rusoto_s3::{ListMultipartUploadsOutput, ListMultipartUploadsRequest, MultipartUpload, S3};
use thalweg_objectstore::{DATA_FOLDER, ObjectKey, StoreError, parse_data_key};
use tokio::time::{Duration, sleep};

use crate::{
    attempt::{Attempts, Repeat},
    errors::store_error,
    multipart::abort,
    requests::Bucket,
    store::Inner,
};

/// The folders whose objects a broker writes, below the store's prefix.
const FOLDERS: [&str; 2] = [DATA_FOLDER, "metadata"];
/// Younger uploads may be under way, here or in a broker that is being replaced.
const STALE_S: i64 = 24 * 3600;
/// The start has better things to do.
const FIRST: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(6 * 3600);

/// Looks for stale uploads as long as the store lives. What fails is left to the next time.
pub(crate) async fn keep_clear(store: Weak<Inner>) {
    let mut wait = FIRST;
    loop {
        sleep(wait).await;
        wait = BETWEEN;
        let Some(inner) = store.upgrade() else { return };
        match clear(&inner.bucket, &inner.attempts, inner.bucket.connection.now_s()).await {
            Ok(0) => {}
            Ok(aborted) => tracing::info!(aborted, "aborted multipart uploads that a crash had left behind"),
            // Not every server lists them, and not every role may.
            Err(error) => tracing::info!(%error, "stale multipart uploads were not looked for to the end"),
        }
    }
}

/// Aborts uploads of this store's objects that were begun more than a day before `now_s` (seconds since 1970); says how
/// many.
///
/// # Errors
/// Whatever listing or aborting meets.
pub(crate) async fn clear(bucket: &Bucket, attempts: &Attempts, now_s: i64) -> Result<usize, StoreError> {
    let mut aborted = 0;
    for folder in FOLDERS {
        let (mut key_marker, mut upload_marker) = (None, None);
        loop {
            let page = || list(bucket, folder, key_marker.clone(), upload_marker.clone());
            let page = attempts.run(Repeat::Harmless, page).await?;
            for upload in page.uploads.unwrap_or_default() {
                let Some((key, id)) = stale(&upload, &bucket.url.prefix, now_s) else { continue };
                attempts.run(Repeat::Harmless, || abort(bucket, &key, &id)).await?;
                aborted += 1;
            }
            let more = page.is_truncated.unwrap_or(false) && page.next_key_marker.is_some();
            // A server that repeats its markers would be listed for ever.
            if !more || (&page.next_key_marker, &page.next_upload_id_marker) == (&key_marker, &upload_marker) {
                break;
            }
            (key_marker, upload_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }
    Ok(aborted)
}

async fn list(
    bucket: &Bucket,
    folder: &str,
    key_marker: Option<String>,
    upload_id_marker: Option<String>,
) -> Result<ListMultipartUploadsOutput, StoreError> {
    let request = ListMultipartUploadsRequest {
        bucket: bucket.url.bucket.clone(),
        prefix: Some(format!("{}{folder}/", bucket.url.prefix)),
        key_marker,
        upload_id_marker,
        ..ListMultipartUploadsRequest::default()
    };
    let nobody = ObjectKey::new("listing").expect("a key");
    bucket.plain().await?.list_multipart_uploads(request).await.map_err(|e| store_error(&nobody, e, |_| None))
}

/// Key and id of an upload that is ours by its key, and old.
fn stale(upload: &MultipartUpload, prefix: &str, now_s: i64) -> Option<(ObjectKey, String)> {
    let key = ObjectKey::new(upload.key.as_deref()?.strip_prefix(prefix)?).ok()?;
    let ours = parse_data_key(&key).is_some() || key.as_str().starts_with("metadata/");
    let begun_s = DateTime::parse_from_rfc3339(upload.initiated.as_deref()?).ok()?.timestamp();
    (ours && begun_s < now_s - STALE_S).then_some((key, upload.upload_id.clone()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_uploads_of_our_own_keys_are_stale() {
        let now_s = DateTime::parse_from_rfc3339("2030-01-03T00:00:00Z").expect("a time").timestamp();
        let judge = |key: &str, initiated: &str| {
            let (key, initiated) = (Some(key.to_owned()), Some(initiated.to_owned()));
            let upload = MultipartUpload { key, initiated, upload_id: Some("u".to_owned()), ..Default::default() };
            stale(&upload, "p/", now_s).map(|(key, _)| key.as_str().to_owned())
        };
        let old = "2030-01-01T23:59:59.000Z";
        let data = "data/9e/0000000000000001-n7-e3";
        assert_eq!(judge(&format!("p/{data}"), old).as_deref(), Some(data));
        assert_eq!(judge("p/metadata/0000000000000001", old).as_deref(), Some("metadata/0000000000000001"));
        assert_eq!(judge(&format!("p/{data}"), "2030-01-02T00:00:01Z"), None, "young");
        assert_eq!(judge(&format!("p/{data}"), "yesterday"), None);
        for foreign in [data, "p/data/film.mp4", "p/other/metadata/1", "q/data/9e/0000000000000001-n7-e3", "p/ x"] {
            assert_eq!(judge(foreign, old), None, "{foreign}");
        }
    }
}
