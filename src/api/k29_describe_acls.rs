//! DescribeAcls (k29, KIP-140, KIP-290): the access rules that a filter means. Without an authorizer there are none:
//! SECURITY_DISABLED (54).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeAclsRequest, DescribeAclsResponse,
        describe_acls_response::{AclDescription, DescribeAclsResource},
    },
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    group_lane::wire,
    message,
};
use crate::auth::{AclBinding, AclFilter};

/// How k29 is served.
pub const API: Api = Api::asking(ApiKey::DescribeAcls, 1, 3, handle);

/// Kafka's text for it.
const NO_AUTHORIZER: &str = "No Authorizer is configured on the broker";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeAclsRequest = call.decode(body)?;
        let answer = DescribeAclsResponse::default();
        let refused = |error: ResponseError, why: &str| {
            answer.clone().with_error_code(error.code()).with_error_message(Some(message(why)))
        };
        if call.edge.authorizer.is_none() {
            return call.respond(&refused(ResponseError::SecurityDisabled, NO_AUTHORIZER));
        }
        if let Err(error) = call.access().check_cluster(access::SEE_CLUSTER) {
            return call.respond(&refused(error, UNAUTHORIZED));
        }
        let texts = [request.resource_name_filter, request.principal_filter, request.host_filter];
        let codes =
            [request.resource_type_filter, request.pattern_type_filter, request.operation, request.permission_type];
        match filter(codes, texts) {
            Ok(filter) => {
                let snapshot = call.edge.snapshot();
                let resources = by_resource(snapshot.acls.iter().filter(|rule| filter.matches(rule)));
                call.respond(&answer.with_resources(resources))
            }
            Err(why) => call.respond(&refused(ResponseError::InvalidRequest, why)),
        }
    })
}

/// A filter as it came.
pub(super) fn filter(codes: [i8; 4], texts: [Option<StrBytes>; 3]) -> Result<AclFilter, &'static str> {
    AclFilter::new(codes, texts.map(|text| text.map(|text| text.to_string())))
}

/// Rules of one resource stand together.
fn by_resource<'a>(rules: impl Iterator<Item = &'a AclBinding>) -> Vec<DescribeAclsResource> {
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    for rule in rules {
        let (kind, pattern) = (rule.kind.code(), rule.pattern.code());
        let same = |last: &&mut DescribeAclsResource| {
            (last.resource_type, last.pattern_type, last.resource_name.as_str()) == (kind, pattern, rule.name.as_str())
        };
        let told = AclDescription::default()
            .with_principal(wire(&rule.principal))
            .with_host(wire(&rule.host))
            .with_operation(rule.operation.code())
            .with_permission_type(rule.permission.code());
        match resources.last_mut().filter(same) {
            Some(last) => last.acls.push(told),
            None => {
                let resource = DescribeAclsResource::default().with_resource_type(kind).with_pattern_type(pattern);
                resources.push(resource.with_resource_name(wire(&rule.name)).with_acls(vec![told]));
            }
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::{AUTHORIZED, FakeBroker};

    fn ask(fake: &FakeBroker, version: i16, request: &DescribeAclsRequest) -> DescribeAclsResponse {
        fake.finish(fake.ask(&API, version, request))
    }

    fn all() -> DescribeAclsRequest {
        let all = DescribeAclsRequest::default().with_resource_type_filter(1).with_resource_name_filter(None);
        let all = all.with_pattern_type_filter(1).with_principal_filter(None).with_host_filter(None);
        all.with_operation(1).with_permission_type(1)
    }

    #[test]
    fn there_are_no_rules_without_an_authorizer() {
        let fake = FakeBroker::new(1, &[]);
        for version in 1..=3 {
            let answer = ask(&fake, version, &all());
            assert_eq!((answer.error_code, answer.resources.len()), (54, 0), "version {version}");
        }
    }

    #[test]
    fn rules_are_told_by_resource() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        let see = "cluster literal kafka-cluster User:ANONYMOUS * describe allow";
        fake.rules(&[see, "topic literal a User:x * read allow", "topic literal a User:y 10.0.0.1 write deny"]);
        for version in 1..=3 {
            let answer = ask(&fake, version, &all());
            let told: Vec<(i8, i8, &str, usize)> = (answer.resources.iter())
                .map(|r| (r.resource_type, r.pattern_type, r.resource_name.as_str(), r.acls.len()))
                .collect();
            assert_eq!((answer.error_code, told), (0, vec![(2, 3, "a", 2), (4, 3, "kafka-cluster", 1)]));
            let last = &answer.resources[0].acls[1];
            let texts = (last.principal.as_str(), last.host.as_str());
            assert_eq!((texts, last.operation, last.permission_type), (("User:y", "10.0.0.1"), 4, 2));
        }
        let one = all().with_principal_filter(Some(StrBytes::from_static_str("User:x")));
        assert_eq!(ask(&fake, 3, &one).resources.len(), 1);
        assert_eq!(ask(&fake, 3, &all().with_operation(99)).error_code, 42);
    }

    #[test]
    fn who_may_not_see_the_cluster_sees_no_rules() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        fake.rules(&["topic literal a User:ANONYMOUS * all allow"]);
        let answer = ask(&fake, 3, &all());
        assert_eq!((answer.error_code, answer.resources.len()), (31, 0));
    }
}
