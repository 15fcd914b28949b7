//! Multipart uploads that nobody will complete: what a crash left behind stays in the bucket unseen, and is paid for.

use std::sync::Weak;

use chrono::DateTime;
use thalweg_objectstore::{DATA_FOLDER, ObjectKey, StoreError, parse_data_key};
use tokio::time::{Duration, sleep};

use crate::{
    Requests,
    attempt::Repeat,
    multipart::abort,
    requests::{Markers, Upload},
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
pub(crate) async fn keep_clear<R: Requests>(store: Weak<Inner<R>>) {
    let mut wait = FIRST;
    loop {
        sleep(wait).await;
        wait = BETWEEN;
        let Some(inner) = store.upgrade() else { return };
        match clear(&inner, inner.connection.now_s()).await {
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
pub(crate) async fn clear<R: Requests>(store: &Inner<R>, now_s: i64) -> Result<usize, StoreError> {
    let mut aborted = 0;
    for folder in FOLDERS {
        let mut after: Option<Markers> = None;
        loop {
            let page = || store.engine.list_uploads(folder, after.as_ref());
            let page = store.attempts.run(Repeat::Harmless, page).await?;
            for upload in page.uploads {
                let Some((key, id)) = stale(&upload, &store.connection.url().prefix, now_s) else { continue };
                abort(store, &key, &id).await?;
                aborted += 1;
            }
            // A server that repeats its markers would be listed for ever.
            if page.next.is_none() || page.next == after {
                break;
            }
            after = page.next;
        }
    }
    Ok(aborted)
}

/// Key and id of an upload that is ours by its key, and old.
fn stale(upload: &Upload, prefix: &str, now_s: i64) -> Option<(ObjectKey, String)> {
    let key = ObjectKey::new(upload.key.strip_prefix(prefix)?).ok()?;
    let ours = parse_data_key(&key).is_some() || key.as_str().starts_with("metadata/");
    let begun_s = DateTime::parse_from_rfc3339(&upload.initiated).ok()?.timestamp();
    let old = begun_s < now_s - STALE_S;
    (ours && old && !upload.id.is_empty()).then(|| (key, upload.id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_uploads_of_our_own_keys_are_stale() {
        let now_s = DateTime::parse_from_rfc3339("2030-01-03T00:00:00Z").expect("a time").timestamp();
        let judge = |key: &str, initiated: &str| {
            let upload = Upload { key: key.to_owned(), initiated: initiated.to_owned(), id: "u".to_owned() };
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
