//! ExpireDelegationToken (k40, KIP-48): a token is for a connection with an authentication
//! that is worth passing on, and no connection here has one: 64, as Kafka answers on PLAINTEXT.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse},
};

use super::{Api, Call, Handled};

/// How k40 is served.
pub const API: Api = Api::asking(ApiKey::ExpireDelegationToken, 1, 2, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _asked: ExpireDelegationTokenRequest = call.decode(body)?;
        let answer = ExpireDelegationTokenResponse::default()
            .with_error_code(ResponseError::DelegationTokenRequestNotAllowed.code())
            .with_expiry_timestamp_ms(-1);
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
        for version in 1..=2 {
            let answer: ExpireDelegationTokenResponse =
                fake.finish(fake.ask(&API, version, &ExpireDelegationTokenRequest::default()));
            assert_eq!((answer.error_code, answer.expiry_timestamp_ms), (64, -1));
        }
    }
}
