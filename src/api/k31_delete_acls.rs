//! DeleteAcls (k31, KIP-140, KIP-290): each filter is refused with SECURITY_DISABLED (54), for there is no authorizer.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{ApiKey, DeleteAclsRequest, DeleteAclsResponse, delete_acls_response::DeleteAclsFilterResult},
    protocol::StrBytes,
};

use super::{Api, Call, Handled, k30_create_acls::NO_AUTHORIZER};

/// How k31 is served.
pub const API: Api = Api::asking(ApiKey::DeleteAcls, 1, 3, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DeleteAclsRequest = call.decode(body)?;
        let refused = DeleteAclsFilterResult::default()
            .with_error_code(ResponseError::SecurityDisabled.code())
            .with_error_message(Some(StrBytes::from_static_str(NO_AUTHORIZER)));
        call.respond(&DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()]))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;

    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn each_filter_is_refused() {
        let fake = FakeBroker::new(1, &[]);
        for version in 1..=3 {
            let filter = DeleteAclsFilter::default().with_pattern_type_filter(1);
            let request = DeleteAclsRequest::default().with_filters(vec![filter.clone(), filter]);
            let answer: DeleteAclsResponse = fake.finish(fake.ask(&API, version, &request));
            let codes: Vec<i16> = answer.filter_results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [54, 54], "version {version}");
        }
    }
}
