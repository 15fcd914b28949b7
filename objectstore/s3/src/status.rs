//! From a server's refusals to the port's errors: by what the caller does next.

use thalweg_objectstore::{ObjectKey, StoreError};

/// Most of a server's words that go into an error.
const WORDS: usize = 300;

/// What an answer that is none of success means for `key`.
pub fn refusal(key: &ObjectKey, status: u16, body: &[u8]) -> StoreError {
    let body: String = String::from_utf8_lossy(body).chars().take(WORDS).collect();
    let says = |code: &str| body.contains(&format!("<Code>{code}</Code>"));
    let why = format!("HTTP {status}: {}", body.replace('\n', " "));
    match status {
        404 if says("NoSuchBucket") => StoreError::Refused(why),
        404 => StoreError::NotFound(key.clone()),
        412 => StoreError::Exists(key.clone()),
        // A conditional put met another one under way.
        409 => StoreError::Retry(why),
        // Damaged on the way.
        400 if says("BadDigest") || says("XAmzContentChecksumMismatch") => StoreError::Retry(why),
        // The server does not know the request, and never will.
        501 => StoreError::Refused(why),
        400 if says("RequestTimeout") || says("InternalError") => StoreError::Retry(why),
        429 | 500..=599 => StoreError::Retry(why),
        _ => StoreError::Refused(why),
    }
}

/// Whether such an answer proves that nothing was done: the store asks for less, and has not begun. Other 5xx may come from what stands
/// between, or from a store that stumbled midway.
pub(crate) fn turned_away(status: u16, body: &[u8]) -> bool {
    // MinIO tells reading from writing (`SlowDownWrite`).
    let slower = || String::from_utf8_lossy(body).contains("<Code>SlowDown");
    status == 429 || (status == 503 && slower())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_what_to_do() {
        let key = ObjectKey::new("k").expect("a key");
        let status = |code: u16, body: &str| refusal(&key, code, body.as_bytes());
        assert_eq!(status(404, ""), StoreError::NotFound(key.clone()));
        assert_eq!(status(412, ""), StoreError::Exists(key.clone()));
        for code in [409, 429, 500, 503] {
            assert!(matches!(status(code, ""), StoreError::Retry(_)), "{code}");
        }
        assert!(matches!(status(400, "<Code>RequestTimeout</Code>"), StoreError::Retry(_)));
        assert!(matches!(status(400, "<Code>BadDigest</Code>"), StoreError::Retry(_)));
        for (code, body) in [(404, "<Code>NoSuchBucket</Code>"), (501, ""), (403, ""), (400, ""), (301, ""), (416, "")]
        {
            assert!(matches!(status(code, body), StoreError::Refused(_)), "{code} {body}");
        }
    }
    #[test]
    fn only_who_is_turned_away_has_done_nothing() {
        let slower = "<Error><Code>SlowDown</Code></Error>";
        for (status, body, nothing) in [
            (429, "", true),
            (503, slower, true),
            (503, "<Error><Code>SlowDownWrite</Code></Error>", true),
            (503, "", false),
            (503, "<Error><Code>ServiceUnavailable</Code></Error>", false),
            (500, slower, false),
            (409, slower, false),
        ] {
            assert_eq!(turned_away(status, body.as_bytes()), nothing, "{status} {body}");
        }
    }
}
