//! From the library's errors to the port's.

use std::fmt::Debug;

use rusoto_core::RusotoError;
use thalweg_objectstore::{ObjectKey, StoreError};
use thalweg_objectstore_s3::refusal;

/// What a failed call means for `key`. `service` says it for the errors that the library has a type for
/// (whose name says more than their text, which servers leave empty).
pub(crate) fn store_error<E: Debug>(
    key: &ObjectKey,
    error: RusotoError<E>,
    service: impl FnOnce(&E) -> Option<StoreError>,
) -> StoreError {
    match error {
        RusotoError::Service(e) => service(&e).unwrap_or_else(|| StoreError::Refused(format!("{e:?}"))),
        RusotoError::Unknown(response) => refusal(key, response.status.as_u16(), &response.body),
        RusotoError::Credentials(e) => StoreError::Refused(format!("no credentials: {e}")),
        RusotoError::Validation(e) => StoreError::Refused(e),
        RusotoError::HttpDispatch(e) => StoreError::Retry(e.to_string()),
        RusotoError::ParseError(e) => StoreError::Retry(format!("an answer that is not S3's: {e}")),
        RusotoError::Blocking => StoreError::Retry("the request was not run".to_owned()),
    }
}
