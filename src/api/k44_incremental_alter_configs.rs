//! IncrementalAlterConfigs (k44, KIP-339): changes single settings of topics; in force on every shard at the answer.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
};

use super::{
    Api, Call, Handled, Stopping, control,
    errors::ToKafka,
    k03_metadata::unknown,
    k32_describe_configs::{BROKER, TOPIC},
    message,
};
use crate::cluster::{ConfigOp, ControlRequest};

/// How k44 is served.
pub const API: Api = Api::new(ApiKey::IncrementalAlterConfigs, 0, 1, handle);

/// Why a resource is not changed.
pub(super) type Refusal = (ResponseError, String);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: IncrementalAlterConfigsRequest = call.decode(body)?;
        let twice = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
            let outcome = match ops(resource) {
                _ if twice.contains(&(kind, name)) => Err(duplicate()),
                Ok(ops) => alter(&call, kind, name, ops, request.validate_only).await?,
                Err(refusal) => Err(refusal),
            };
            let response = AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(resource.resource_name.clone());
            responses.push(match outcome {
                Ok(()) => response.with_error_message(None),
                Err((error, why)) => response.with_error_code(error.code()).with_error_message(Some(message(&why))),
            });
        }
        call.respond(&IncrementalAlterConfigsResponse::default().with_responses(responses))
    })
}

/// What occurs more than once.
pub(super) fn repeated<T: Ord + Copy>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    all.filter(|one| !seen.insert(*one)).collect()
}

/// The refusal of a resource that is named twice.
pub(super) fn duplicate() -> Refusal {
    (ResponseError::InvalidRequest, "Each resource must appear at most once.".to_owned())
}

/// Has control change a topic's settings. Those of the broker are read at its start, and not changed later.
pub(super) async fn alter(
    call: &Call,
    kind: i8,
    name: &str,
    ops: Vec<ConfigOp>,
    validate_only: bool,
) -> Result<Result<(), Refusal>, Stopping> {
    match kind {
        TOPIC if !call.edge.snapshot().topics.contains_key(name) => {
            return Ok(Err((unknown(name), format!("The topic '{}' does not exist.", name.escape_default()))));
        }
        TOPIC => {}
        // The tool that reassigns partitions clears its throttles, which no broker here has.
        BROKER if is_here(call, name) && ops.iter().all(|op| clears_nothing(call, op)) => return Ok(Ok(())),
        BROKER => {
            let why = "Settings of this broker are read when it starts: change its configuration file.";
            return Ok(Err((ResponseError::InvalidRequest, why.to_owned())));
        }
        other => return Ok(Err((ResponseError::InvalidRequest, format!("Unsupported resource type: {other}")))),
    }
    let topic = name.to_owned();
    let result =
        control::ask(&call.edge, |reply| ControlRequest::AlterTopicConfigs { topic, ops, validate_only, reply })
            .await?;
    Ok(result.map_err(|error| (error.to_kafka(), error.to_string())))
}

/// Whether a resource of type broker is this one, or all of them.
fn is_here(call: &Call, name: &str) -> bool {
    name.is_empty() || name == call.edge.snapshot().broker.node.to_string()
}

/// Whether `op` takes away a setting that this broker does not have, and so changes nothing.
fn clears_nothing(call: &Call, op: &ConfigOp) -> bool {
    matches!(op, ConfigOp::Delete(name) if call.edge.config.entry(name).is_none())
}

fn ops(resource: &AlterConfigsResource) -> Result<Vec<ConfigOp>, Refusal> {
    if let Some(name) = repeated(resource.configs.iter().map(|config| config.name.as_str())).first() {
        return Err((ResponseError::InvalidRequest, format!("Error due to duplicate config keys: {name}")));
    }
    resource.configs.iter().map(op).collect()
}

fn op(config: &AlterableConfig) -> Result<ConfigOp, Refusal> {
    let name = config.name.to_string();
    match (config.config_operation, &config.value) {
        (1, _) => Ok(ConfigOp::Delete(name)),
        (0, Some(value)) => Ok(ConfigOp::Set(name, value.to_string())),
        (2, Some(value)) => Ok(ConfigOp::Append(name, value.to_string())),
        (3, Some(value)) => Ok(ConfigOp::Subtract(name, value.to_string())),
        (0 | 2 | 3, None) => Err((ResponseError::InvalidRequest, format!("Null value not supported for : {name}"))),
        (other, _) => Err((ResponseError::InvalidRequest, format!("Unknown operation {other} for {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::{api::fake::FakeBroker, cluster::ControlError};

    fn config(name: &'static str, operation: i8, value: Option<&'static str>) -> AlterableConfig {
        AlterableConfig::default()
            .with_name(name.into())
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_static_str))
    }

    fn resource(kind: i8, name: &'static str, configs: Vec<AlterableConfig>) -> AlterConfigsResource {
        AlterConfigsResource::default().with_resource_type(kind).with_resource_name(name.into()).with_configs(configs)
    }

    #[test]
    fn operations_reach_control_topic_by_topic() {
        let broker = FakeBroker::new(1, &[("a", 1), ("b", 1)]);
        let request = IncrementalAlterConfigsRequest::default().with_validate_only(true).with_resources(vec![
            resource(
                TOPIC,
                "a",
                vec![
                    config("retention.ms", 0, Some("5")),
                    config("retention.bytes", 1, None),
                    config("cleanup.policy", 2, Some("compact")),
                    config("x", 3, Some("y")),
                ],
            ),
            resource(TOPIC, "b", vec![config("retention.ms", 0, Some("soon"))]),
        ]);
        let asked = broker.ask(&API, 1, &request);
        let ControlRequest::AlterTopicConfigs { topic, ops, validate_only, reply } = broker.control_request() else {
            panic!("not a change")
        };
        let text = str::to_owned;
        assert_eq!((topic.as_str(), validate_only), ("a", true));
        assert_eq!(
            ops,
            [
                ConfigOp::Set(text("retention.ms"), text("5")),
                ConfigOp::Delete(text("retention.bytes")),
                ConfigOp::Append(text("cleanup.policy"), text("compact")),
                ConfigOp::Subtract(text("x"), text("y")),
            ]
        );
        reply.try_send(Ok(())).expect("awaited");
        let ControlRequest::AlterTopicConfigs { reply, .. } = broker.control_request() else { panic!("not a change") };
        reply.try_send(Err(ControlError::InvalidConfig("no number".into()))).expect("awaited");
        let answer: IncrementalAlterConfigsResponse = broker.finish(asked);
        assert_eq!(answer.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(), [0, 40]);
        assert_eq!(answer.responses[1].error_message.as_deref(), Some("no number"));
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        let broker = FakeBroker::new(1, &[("a", 1), ("c", 1), ("d", 1)]);
        let set = |name| vec![config(name, 0, Some("1"))];
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![
            resource(TOPIC, "nope", set("retention.ms")),
            resource(BROKER, "1", set("num.partitions")),
            resource(77, "x", set("y")),
            resource(TOPIC, "a", set("retention.ms")),
            resource(TOPIC, "a", set("retention.ms")),
            resource(TOPIC, "c", [set("retention.ms"), set("retention.ms")].concat()),
            resource(TOPIC, "d", vec![config("retention.ms", 0, None)]),
        ]);
        let answer: IncrementalAlterConfigsResponse = broker.finish(broker.ask(&API, 0, &request));
        assert_eq!(answer.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(), [3, 42, 42, 42, 42, 42, 42]);
        assert!(broker.control.is_empty());
    }

    #[test]
    fn what_a_broker_does_not_have_can_be_taken_from_it() {
        let broker = FakeBroker::new(1, &[]);
        let clear = |name| config(name, 1, None);
        let throttles = vec![clear("leader.replication.throttled.rate"), clear("follower.replication.throttled.rate")];
        for (name, configs, code) in [
            ("1", throttles.clone(), 0),
            ("", throttles.clone(), 0),
            ("1", Vec::new(), 0),
            ("2", throttles.clone(), 42),
            ("1", [throttles.clone(), vec![clear("num.partitions")]].concat(), 42),
            ("1", vec![config("leader.replication.throttled.rate", 0, Some("5"))], 42),
        ] {
            let resources = vec![resource(BROKER, name, configs.clone())];
            let request = IncrementalAlterConfigsRequest::default().with_resources(resources);
            let answer: IncrementalAlterConfigsResponse = broker.finish(broker.ask(&API, 1, &request));
            assert_eq!(answer.responses[0].error_code, code, "{name:?} {configs:?}");
        }
        assert!(broker.control.is_empty());
    }
}
