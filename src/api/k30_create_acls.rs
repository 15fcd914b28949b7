//! CreateAcls (k30, KIP-140, KIP-290): each rule is refused with SECURITY_DISABLED (54), for there is no authorizer.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, CreateAclsRequest, CreateAclsResponse, create_acls_response::AclCreationResult},
    protocol::StrBytes,
};

use super::{Api, Call, Handled};

/// How k30 is served.
pub const API: Api = Api::asking(ApiKey::CreateAcls, 1, 3, handle);

/// Kafka's text for it, where rules are made or deleted.
pub(super) const NO_AUTHORIZER: &str = "No Authorizer is configured.";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: CreateAclsRequest = call.decode(body)?;
        let refused = AclCreationResult::default()
            .with_error_code(ResponseError::SecurityDisabled.code())
            .with_error_message(Some(StrBytes::from_static_str(NO_AUTHORIZER)));
        call.respond(&CreateAclsResponse::default().with_results(vec![refused; request.creations.len()]))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::create_acls_request::AclCreation;

    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn each_rule_is_refused() {
        let fake = FakeBroker::new(1, &[]);
        for version in 1..=3 {
            let rule = AclCreation::default().with_resource_pattern_type(3);
            let request = CreateAclsRequest::default().with_creations(vec![rule.clone(), rule]);
            let answer: CreateAclsResponse = fake.finish(fake.ask(&API, version, &request));
            let codes: Vec<i16> = answer.results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [54, 54], "version {version}");
        }
    }
}
