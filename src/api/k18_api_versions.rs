//! ApiVersions (k18, KIP-35, KIP-511, KIP-584): which keys and versions are served.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, api_versions_response::ApiVersion},
    protocol::StrBytes,
};

use super::{Api, Call, Close, Handled, Response, errors, table};

/// How k18 is served.
pub const API: Api = Api::asking(ApiKey::ApiVersions, 0, 4, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move { answer(&call, body) })
}

fn answer(call: &Call, body: Bytes) -> Result<Response, Close> {
    let request: ApiVersionsRequest = call.decode(body)?;
    if call.version >= 3 {
        let (name, version) = (request.client_software_name, request.client_software_version);
        if !is_software_word(&name) || !is_software_word(&version) {
            return Response::encode(&offered(ResponseError::InvalidRequest.code()), call.version);
        }
        *call.caller.software.borrow_mut() = Some((owned(&name), owned(&version)));
    }
    Response::encode(&offered(errors::NONE), call.version)
}

/// A copy that does not keep the receive chunk alive.
fn owned(word: &StrBytes) -> StrBytes {
    StrBytes::from_string(word.as_str().to_owned())
}

/// The answer to a version of k18 that is not served: a v0 body with the list, so that the client tries again with a
/// version of the list.
///
/// # Errors
/// As [`Response::encode`].
pub fn unsupported_version() -> Result<Response, Close> {
    Response::encode(&offered(ResponseError::UnsupportedVersion.code()), 0)
}

fn offered(error_code: i16) -> ApiVersionsResponse {
    let keys = table::TABLE.iter().map(|api| {
        ApiVersion::default().with_api_key(api.key as i16).with_min_version(api.min).with_max_version(api.max)
    });
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(keys.collect())
}

/// KIP-511: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`
fn is_software_word(word: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let bytes = word.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
        && bytes.iter().all(|b| inner(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_follow_kip_511() {
        for good in ["a", "librdkafka", "apache-kafka-java", "3.9.0", "v2-rc.1"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-", "a-", ".a", "a b", "a_b", "\u{e9}"] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }

    #[test]
    fn the_list_is_the_table() {
        let list = offered(errors::NONE).api_keys;
        assert!(list.iter().any(|api| api.api_key == 18 && api.min_version == 0 && api.max_version == 4));
        assert_eq!(list.len(), table::TABLE.len());
    }
}
