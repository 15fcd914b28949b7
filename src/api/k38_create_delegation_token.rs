//! CreateDelegationToken (k38, KIP-48): a token is for a connection with an authentication
//! that is worth passing on, and no connection here has one: 64, as Kafka answers on PLAINTEXT.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, CreateDelegationTokenRequest, CreateDelegationTokenResponse},
};

use super::{Api, Call, Handled, group_lane::wire};

/// How k38 is served.
pub const API: Api = Api::asking(ApiKey::CreateDelegationToken, 1, 3, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _asked: CreateDelegationTokenRequest = call.decode(body)?;
        let principal = call.caller.principal.borrow().clone();
        let (kind, name) = principal.as_str().split_once(':').unwrap_or(("User", principal.as_str()));
        let answer = CreateDelegationTokenResponse::default()
            .with_error_code(ResponseError::DelegationTokenRequestNotAllowed.code())
            .with_principal_type(wire(kind))
            .with_principal_name(wire(name))
            .with_issue_timestamp_ms(-1)
            .with_expiry_timestamp_ms(-1)
            .with_max_timestamp_ms(-1);
        // Who asked is told apart from whom it is for since version 3.
        let answer = match call.version {
            3.. => {
                answer.with_token_requester_principal_type(wire(kind)).with_token_requester_principal_name(wire(name))
            }
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
            let whose = (answer.principal_type.as_str(), answer.principal_name.as_str());
            assert_eq!(whose, ("User", "ANONYMOUS"), "of the connection");
            assert_eq!(answer.token_requester_principal_name.as_str(), if version < 3 { "" } else { "ANONYMOUS" });
        }
    }
}
