//! From the library's errors to the port's: by what the caller does next.

use std::fmt::Debug;

use rusoto_core::{RusotoError, request::BufferedHttpResponse};
use thalweg_objectstore::{ObjectKey, StoreError};

/// Most of a server's words that go into an error.
const WORDS: usize = 300;

/// What a failed call means for `key`. `service` says it for the errors that the library has a type for
/// (whose name says more than their text, which servers leave empty).
pub(crate) fn store_error<E: Debug>(
    key: &ObjectKey,
    error: RusotoError<E>,
    service: impl FnOnce(&E) -> Option<StoreError>,
) -> StoreError {
    match error {
        RusotoError::Service(e) => service(&e).unwrap_or_else(|| StoreError::Refused(format!("{e:?}"))),
        RusotoError::Unknown(response) => by_status(key, &response),
        RusotoError::Credentials(e) => StoreError::Refused(format!("no credentials: {e}")),
        RusotoError::Validation(e) => StoreError::Refused(e),
        RusotoError::HttpDispatch(e) => StoreError::Retry(e.to_string()),
        RusotoError::ParseError(e) => StoreError::Retry(format!("an answer that is not S3's: {e}")),
        RusotoError::Blocking => StoreError::Retry("the request was not run".to_owned()),
    }
}

fn by_status(key: &ObjectKey, response: &BufferedHttpResponse) -> StoreError {
    let body: String = String::from_utf8_lossy(&response.body).chars().take(WORDS).collect();
    let says = |code: &str| body.contains(&format!("<Code>{code}</Code>"));
    let why = format!("HTTP {}: {}", response.status.as_u16(), body.replace('\n', " "));
    match response.status.as_u16() {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, body: &str) -> StoreError {
        let status = hyper::StatusCode::from_u16(code).expect("a status");
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        by_status(
            &ObjectKey::new("k").expect("a key"),
            &BufferedHttpResponse { status, body, headers: Default::default() },
        )
    }

    #[test]
    fn statuses_say_what_to_do() {
        let key = ObjectKey::new("k").expect("a key");
        assert_eq!(status(404, ""), StoreError::NotFound(key.clone()));
        assert_eq!(status(412, ""), StoreError::Exists(key));
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
}
