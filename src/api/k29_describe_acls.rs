//! DescribeAcls (k29, KIP-140, KIP-290): there is no authorizer, so there are no rules: SECURITY_DISABLED (54), as Kafka
//! answers without one.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, DescribeAclsRequest, DescribeAclsResponse},
    protocol::StrBytes,
};

use super::{Api, Call, Handled};

/// How k29 is served.
pub const API: Api = Api::asking(ApiKey::DescribeAcls, 1, 3, handle);

/// Kafka's text for it.
const NO_AUTHORIZER: &str = "No Authorizer is configured on the broker";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let _filter: DescribeAclsRequest = call.decode(body)?;
        let answer = DescribeAclsResponse::default()
            .with_error_code(ResponseError::SecurityDisabled.code())
            .with_error_message(Some(StrBytes::from_static_str(NO_AUTHORIZER)));
        call.respond(&answer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn there_are_no_rules_without_an_authorizer() {
        let fake = FakeBroker::new(1, &[]);
        for version in 1..=3 {
            let request = DescribeAclsRequest::default().with_pattern_type_filter(1);
            let answer: DescribeAclsResponse = fake.finish(fake.ask(&API, version, &request));
            assert_eq!((answer.error_code, answer.resources.len()), (54, 0), "version {version}");
        }
    }
}
