//! CreateAcls (k30, KIP-140, KIP-290): creates access rules, each on its own fate; in force on every core at the answer. Without an
//! authorizer each is refused with SECURITY_DISABLED (54).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, CreateAclsRequest, CreateAclsResponse, create_acls_request::AclCreation,
        create_acls_response::AclCreationResult,
    },
};

use super::{
    Api, Call, Handled, Stopping,
    access::{self, UNAUTHORIZED},
    control,
    errors::ToKafka,
    message,
};
use crate::{
    auth::{AclBinding, Operation, PatternType, Permission, ResourceType},
    cluster::ControlRequest,
};

/// How k30 is served.
pub const API: Api = Api::new(ApiKey::CreateAcls, 1, 3, handle);

/// Kafka's text for it, where rules are made or deleted.
const NO_AUTHORIZER: &str = "No Authorizer is configured.";

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: CreateAclsRequest = call.decode(body)?;
        let results = match refusal(&call) {
            Some((error, why)) => vec![told(Err((error, why.to_owned()))); request.creations.len()],
            None => create(&call, &request.creations).await?,
        };
        call.respond(&CreateAclsResponse::default().with_results(results))
    })
}

/// Why nobody can, or this caller must not, change rules.
pub(super) fn refusal(call: &Call) -> Option<(ResponseError, &'static str)> {
    if call.edge.authorizer.is_none() {
        return Some((ResponseError::SecurityDisabled, NO_AUTHORIZER));
    }
    call.access().check_cluster(access::ALTER_CLUSTER).err().map(|error| (error, UNAUTHORIZED))
}

async fn create(call: &Call, creations: &[AclCreation]) -> Result<Vec<AclCreationResult>, Stopping> {
    let asked: Vec<Result<AclBinding, String>> = creations.iter().map(rule).collect();
    let rules = asked.iter().filter_map(|rule| rule.as_ref().ok()).cloned().collect();
    let mut results = control::ask(&call.edge, |reply| ControlRequest::CreateAcls { rules, reply }).await?.into_iter();
    let answered = asked.into_iter().map(|asked| match asked {
        Ok(_) => {
            let result = results.next().expect("control answers for each rule");
            told(result.map_err(|error| (error.to_kafka(), error.to_string())))
        }
        Err(why) => told(Err((ResponseError::InvalidRequest, why))),
    });
    Ok(answered.collect())
}

fn told(result: Result<(), (ResponseError, String)>) -> AclCreationResult {
    let answer = AclCreationResult::default();
    match result {
        Ok(()) => answer.with_error_message(Some(Default::default())),
        Err((error, why)) => answer.with_error_code(error.code()).with_error_message(Some(message(&why))),
    }
}

/// The rule that is asked for; control checks its texts.
fn rule(asked: &AclCreation) -> Result<AclBinding, String> {
    let known = |what: &str, code: i8| format!("Invalid {what} {code}");
    Ok(AclBinding {
        kind: ResourceType::of(asked.resource_type).ok_or_else(|| known("resourceType", asked.resource_type))?,
        pattern: PatternType::of(asked.resource_pattern_type)
            .ok_or_else(|| known("patternType", asked.resource_pattern_type))?,
        name: asked.resource_name.to_string(),
        principal: asked.principal.to_string(),
        host: asked.host.to_string(),
        operation: Operation::of(asked.operation).ok_or_else(|| known("operation", asked.operation))?,
        permission: Permission::of(asked.permission_type)
            .ok_or_else(|| known("permissionType", asked.permission_type))?,
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::{
        api::fake::{AUTHORIZED, FakeBroker},
        auth::tests::rule as rule_of,
    };

    fn creation() -> AclCreation {
        let text = StrBytes::from_static_str;
        let creation = AclCreation::default().with_resource_type(2).with_resource_name(text("a"));
        let creation = creation.with_resource_pattern_type(3).with_principal(text("User:x")).with_host(text("*"));
        creation.with_operation(3).with_permission_type(3)
    }

    fn codes(answer: &CreateAclsResponse) -> Vec<i16> {
        answer.results.iter().map(|result| result.error_code).collect()
    }

    #[test]
    fn each_rule_is_refused_without_an_authorizer_or_the_right_to_it() {
        for (settings, code) in [(&[][..], 54), (AUTHORIZED, 31)] {
            let fake = FakeBroker::with(settings, 1, &[]);
            for version in 1..=3 {
                let request = CreateAclsRequest::default().with_creations(vec![creation(), creation()]);
                let answer: CreateAclsResponse = fake.finish(fake.ask(&API, version, &request));
                assert_eq!(codes(&answer), [code, code], "version {version}");
            }
        }
    }

    #[test]
    fn what_kafka_does_not_know_is_refused_alone() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        fake.rules(&["cluster literal kafka-cluster User:ANONYMOUS * alter allow"]);
        let creations = vec![
            creation().with_resource_type(1),
            creation().with_resource_pattern_type(2),
            creation(),
            creation().with_operation(1),
            creation().with_permission_type(1),
        ];
        let asked = fake.ask(&API, 3, &CreateAclsRequest::default().with_creations(creations));
        let ControlRequest::CreateAcls { rules, reply } = fake.control_request() else { panic!("not a creation") };
        assert_eq!(rules, [rule_of("topic literal a User:x * read allow")]);
        reply.try_send(vec![Ok(())]).expect("awaited");
        assert_eq!(codes(&fake.finish(asked)), [42, 42, 0, 42, 42]);
    }
}
