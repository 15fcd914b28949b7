//! CreateDelegationToken (k38, KIP-48): a token is for a connection with an authentication
//! that is worth passing on, and no connection here has one: 64, as Kafka answers on PLAINTEXT.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, CreateDelegationTokenRequest, CreateDelegationTokenResponse},
    protocol::StrBytes,
};

use super::{Api, Call, Handled};

/// How k38 is served.
pub const API: Api = Api::asking(ApiKey::CreateDelegationToken, 1, 3, handle);

/// Everybody, on a connection without authentication.
const USER: &str = "User";
const ANONYMOUS: &str = "ANONYMOUS";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _asked: CreateDelegationTokenRequest = call.decode(body)?;
        let answer = CreateDelegationTokenResponse::default()
            .with_error_code(ResponseError::DelegationTokenRequestNotAllowed.code())
            .with_principal_type(StrBytes::from_static_str(USER))
            .with_principal_name(StrBytes::from_static_str(ANONYMOUS))
            .with_issue_timestamp_ms(-1)
            .with_expiry_timestamp_ms(-1)
            .with_max_timestamp_ms(-1);
        // Who asked is told apart from whom it is for since version 3.
        let answer = match call.version {
            3.. => answer
                .with_token_requester_principal_type(StrBytes::from_static_str(USER))
                .with_token_requester_principal_name(StrBytes::from_static_str(ANONYMOUS)),
            _ => answer,
        };
        call.respond(&answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn it_is_refused_in_every_version() {
        let fake = FakeBroker::new(1, &[]);
        for version in 1..=3 {
            let answer: CreateDelegationTokenResponse =
                fake.finish(fake.ask(&API, version, &CreateDelegationTokenRequest::default()));
            assert_eq!((answer.error_code, answer.expiry_timestamp_ms, answer.hmac.len()), (64, -1, 0));
        }
    }
}
