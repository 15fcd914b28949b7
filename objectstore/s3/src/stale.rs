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
/// Younger uploads may be under way, here or at another node.
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

/// Aborts uploads of this store's objects that were begun more than a day before `now_s` (seconds since 1970), or by an earlier
/// epoch of this node; says how many.
///
/// # Errors
/// Whatever listing or aborting meets.
pub(crate) async fn clear<R: Requests>(store: &Inner<R>, now_s: i64) -> Result<usize, StoreError> {
    let (mut aborted, writer) = (0, store.writer.get().copied());
    for folder in FOLDERS {
        let mut after: Option<Markers> = None;
        loop {
            let page = || store.engine.list_uploads(folder, after.as_ref());
            let page = store.attempts.run(Repeat::Harmless, page).await?;
            for upload in page.uploads {
                let Some((key, id)) = stale(&upload, &store.connection.url().prefix, now_s, writer) else { continue };
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

/// Key and id of an upload that is ours by its key, and that nobody will complete: it is old, or an earlier epoch of the `writer`'s node
/// began it, whose commits are refused.
fn stale(upload: &Upload, prefix: &str, now_s: i64, writer: Option<(i32, u64)>) -> Option<(ObjectKey, String)> {
    let key = ObjectKey::new(upload.key.strip_prefix(prefix)?).ok()?;
    let data = parse_data_key(&key);
    let ours = data.is_some() || key.as_str().starts_with("metadata/");
    let superseded = data.zip(writer).is_some_and(|((_, node, epoch), own)| node == own.0 && epoch < own.1);
    let begun_s = DateTime::parse_from_rfc3339(&upload.initiated).map(|begun| begun.timestamp());
    let old = begun_s.is_ok_and(|begun_s| begun_s < now_s - STALE_S);
    (ours && (old || superseded) && !upload.id.is_empty()).then(|| (key, upload.id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_uploads_of_our_own_keys_are_stale() {
        let now_s = DateTime::parse_from_rfc3339("2030-01-03T00:00:00Z").expect("a time").timestamp();
        let judge = |key: &str, initiated: &str| {
            let upload = Upload { key: key.to_owned(), initiated: initiated.to_owned(), id: "u".to_owned() };
            stale(&upload, "p/", now_s, None).map(|(key, _)| key.as_str().to_owned())
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
    #[test]
    fn what_an_earlier_epoch_of_this_node_began_is_stale_at_once() {
        let judge = |key: &str, writer| {
            let upload = Upload { key: key.to_owned(), initiated: "just now".to_owned(), id: "u".to_owned() };
            stale(&upload, "p/", 0, writer).is_some()
        };
        let data = "p/data/9e/0000000000000001-n7-e3";
        assert!(judge(data, Some((7, 4))));
        assert!(!judge(data, Some((7, 3))), "its own");
        assert!(!judge(data, Some((7, 2))), "a later one's: this broker is the one that was replaced");
        assert!(!judge(data, Some((8, 4))), "another node's");
        assert!(!judge(data, None), "nobody knows yet");
        assert!(!judge("p/metadata/0000000000000001", Some((7, 4))), "whose it is, the key does not tell");
        assert!(!judge("q/data/9e/0000000000000001-n7-e3", Some((7, 4))));
    }
}
