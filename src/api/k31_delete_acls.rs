//! DeleteAcls (k31, KIP-140, KIP-290): deletes the access rules that filters mean; out of force on every core at the answer. Without
//! an authorizer each filter is refused with SECURITY_DISABLED (54).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DeleteAclsRequest, DeleteAclsResponse,
        delete_acls_request::DeleteAclsFilter,
        delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl},
    },
};

use super::{
    Api, Call, Handled, Stopping, control, errors::ToKafka, group_lane::wire, k29_describe_acls::filter,
    k30_create_acls::refusal, message,
};
use crate::{
    auth::{AclBinding, AclFilter},
    cluster::ControlRequest,
};

/// How k31 is served.
pub const API: Api = Api::new(ApiKey::DeleteAcls, 1, 3, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DeleteAclsRequest = call.decode(body)?;
        let results = match refusal(&call) {
            Some((error, why)) => vec![refused(error, why); request.filters.len()],
            None => delete(&call, request.filters).await?,
        };
        call.respond(&DeleteAclsResponse::default().with_filter_results(results))
    })
}

async fn delete(call: &Call, asked: Vec<DeleteAclsFilter>) -> Result<Vec<DeleteAclsFilterResult>, Stopping> {
    let asked: Vec<Result<AclFilter, &str>> = asked.into_iter().map(one).collect();
    let filters = asked.iter().filter_map(|filter| filter.as_ref().ok()).cloned().collect();
    let mut deleted =
        control::ask(&call.edge, |reply| ControlRequest::DeleteAcls { filters, reply }).await?.into_iter();
    let answered = asked.into_iter().map(|asked| match asked {
        Ok(_) => match deleted.next().expect("control answers for each filter") {
            Ok(rules) => DeleteAclsFilterResult::default()
                .with_error_message(None)
                .with_matching_acls(rules.iter().map(told).collect()),
            Err(error) => refused(error.to_kafka(), &error.to_string()),
        },
        Err(why) => refused(ResponseError::InvalidRequest, why),
    });
    Ok(answered.collect())
}

fn one(asked: DeleteAclsFilter) -> Result<AclFilter, &'static str> {
    let codes = [asked.resource_type_filter, asked.pattern_type_filter, asked.operation, asked.permission_type];
    filter(codes, [asked.resource_name_filter, asked.principal_filter, asked.host_filter])
}

fn refused(error: ResponseError, why: &str) -> DeleteAclsFilterResult {
    DeleteAclsFilterResult::default().with_error_code(error.code()).with_error_message(Some(message(why)))
}

fn told(rule: &AclBinding) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(rule.kind.code())
        .with_resource_name(wire(&rule.name))
        .with_pattern_type(rule.pattern.code())
        .with_principal(wire(&rule.principal))
        .with_host(wire(&rule.host))
        .with_operation(rule.operation.code())
        .with_permission_type(rule.permission.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::fake::{AUTHORIZED, FakeBroker},
        auth::tests::rule,
    };

    fn any() -> DeleteAclsFilter {
        let any = DeleteAclsFilter::default().with_resource_type_filter(1).with_resource_name_filter(None);
        let any = any.with_pattern_type_filter(1).with_principal_filter(None).with_host_filter(None);
        any.with_operation(1).with_permission_type(1)
    }

    #[test]
    fn each_filter_is_refused_without_an_authorizer_or_the_right_to_it() {
        for (settings, code) in [(&[][..], 54), (AUTHORIZED, 31)] {
            let fake = FakeBroker::with(settings, 1, &[]);
            for version in 1..=3 {
                let request = DeleteAclsRequest::default().with_filters(vec![any(), any()]);
                let answer: DeleteAclsResponse = fake.finish(fake.ask(&API, version, &request));
                let codes: Vec<i16> = answer.filter_results.iter().map(|result| result.error_code).collect();
                assert_eq!(codes, [code, code], "version {version}");
            }
        }
    }

    #[test]
    fn what_is_deleted_is_told() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        fake.rules(&["cluster literal kafka-cluster User:ANONYMOUS * alter allow"]);
        let filters = vec![any().with_operation(0), any()];
        let asked = fake.ask(&API, 3, &DeleteAclsRequest::default().with_filters(filters));
        let ControlRequest::DeleteAcls { filters, reply } = fake.control_request() else { panic!("not a deletion") };
        assert_eq!(filters.len(), 1, "the other is unknown");
        let gone = rule("group prefixed g User:x 10.0.0.1 read deny");
        reply.try_send(vec![Ok(vec![gone])]).expect("awaited");
        let answer: DeleteAclsResponse = fake.finish(asked);
        let [unknown, good] = &answer.filter_results[..] else { panic!("two filters") };
        assert_eq!((unknown.error_code, unknown.matching_acls.len(), good.error_code), (42, 0, 0));
        let [told] = &good.matching_acls[..] else { panic!("one rule") };
        assert_eq!((told.resource_type, told.pattern_type, told.operation, told.permission_type), (3, 4, 3, 2));
        let texts = (told.resource_name.as_str(), told.principal.as_str(), told.host.as_str());
        assert_eq!(texts, ("g", "User:x", "10.0.0.1"));
    }
}
