//! DescribeDelegationToken (k41, KIP-48): a token is for a connection with an authentication
//! that is worth passing on, and no connection here has one: 64, as Kafka answers on PLAINTEXT.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, DescribeDelegationTokenRequest, DescribeDelegationTokenResponse},
};

use super::{Api, Call, Handled};

/// How k41 is served.
pub const API: Api = Api::asking(ApiKey::DescribeDelegationToken, 1, 3, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _asked: DescribeDelegationTokenRequest = call.decode(body)?;
        let answer = DescribeDelegationTokenResponse::default()
            .with_error_code(ResponseError::DelegationTokenRequestNotAllowed.code());
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
            let answer: DescribeDelegationTokenResponse =
                fake.finish(fake.ask(&API, version, &DescribeDelegationTokenRequest::default()));
            assert_eq!((answer.error_code, answer.tokens.len()), (64, 0));
        }
    }
}
