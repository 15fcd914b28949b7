//! IncrementalAlterConfigs (k44, KIP-339): changes single settings of topics, brokers and groups; in force on every shard at the answer.

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
    Api, Call, Handled, Stopping, access, control,
    errors::ToKafka,
    k03_metadata::unknown,
    k32_describe_configs::{self, BROKER, GROUP, TOPIC},
    message,
};
use crate::cluster::{ConfigOp, ConfigTarget, ControlRequest};

/// How k44 is served.
pub const API: Api = Api::new(ApiKey::IncrementalAlterConfigs, 0, 1, handle);

/// The longest id of a group that has settings of its own.
const MAX_GROUP_ID_BYTES: usize = 900;
/// The most settings of one resource in a request.
const MAX_CONFIGS: usize = 2_000;

/// Why a resource is not changed.
pub(super) type Refusal = (ResponseError, String);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: IncrementalAlterConfigsRequest = call.decode(body)?;
        let twice = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
            let wanted = authorize(&call, kind, name).and_then(|()| target(&call, kind, name));
            let wanted = wanted.and_then(|target| Ok((target, ops(resource)?)));
            let outcome = match wanted {
                _ if twice.contains(&(kind, name)) => Err(duplicate()),
                Ok((target, ops)) => alter(&call, target, ops, request.validate_only).await?,
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

/// The names of one resource's settings: not too many, and none twice.
pub(super) fn check_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Refusal> {
    if names.len() > MAX_CONFIGS {
        let why = format!("More than {MAX_CONFIGS} settings of one resource in a request.");
        return Err((ResponseError::InvalidRequest, why));
    }
    match repeated(names).first() {
        Some(name) => Err((ResponseError::InvalidRequest, format!("Error due to duplicate config keys: {name}"))),
        None => Ok(()),
    }
}

/// Whether the caller may alter the settings of a resource.
pub(super) fn authorize(call: &Call, kind: i8, name: &str) -> Result<(), Refusal> {
    let demands = (access::ALTER_TOPIC_CONFIGS, access::ALTER_GROUP_CONFIGS, access::ALTER_CLUSTER_CONFIGS);
    k32_describe_configs::authorize(call, demands, kind, name)
}

/// What a resource's settings are of.
///
/// # Errors
/// There is no such thing.
pub(super) fn target(call: &Call, kind: i8, name: &str) -> Result<ConfigTarget, Refusal> {
    let snapshot = call.edge.snapshot();
    let node = snapshot.broker.node.to_string();
    let invalid = |why: String| Err((ResponseError::InvalidRequest, why));
    match kind {
        TOPIC if snapshot.topics.contains_key(name) => Ok(ConfigTarget::Topic(name.to_owned())),
        TOPIC => Err((unknown(name), format!("The topic '{}' does not exist.", name.escape_default()))),
        BROKER if name.is_empty() => Ok(ConfigTarget::Brokers),
        BROKER if name == node => Ok(ConfigTarget::Broker),
        BROKER if name.parse::<i32>().is_err() => invalid(format!("Node id must be an integer, but it is: {name}")),
        BROKER => invalid(format!("Unexpected broker id, expected {node}, but received {name}")),
        GROUP if name.is_empty() => invalid("Default group resources are not allowed.".to_owned()),
        // Its settings are found by its id in the metadata store, whose keys are short.
        GROUP if name.len() > MAX_GROUP_ID_BYTES => {
            invalid(format!("The id of a group with settings may have {MAX_GROUP_ID_BYTES} bytes."))
        }
        GROUP => Ok(ConfigTarget::Group(name.to_owned())),
        other => invalid(format!("Unsupported resource type: {other}")),
    }
}

/// Has control change settings.
pub(super) async fn alter(
    call: &Call,
    target: ConfigTarget,
    ops: Vec<ConfigOp>,
    validate_only: bool,
) -> Result<Result<(), Refusal>, Stopping> {
    let ask = |reply| ControlRequest::AlterConfigs { target, ops, validate_only, reply };
    let result = control::ask(&call.edge, ask).await?;
    Ok(result.map_err(|error| (error.to_kafka(), error.to_string())))
}

fn ops(resource: &AlterConfigsResource) -> Result<Vec<ConfigOp>, Refusal> {
    check_names(resource.configs.iter().map(|config| config.name.as_str()))?;
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
        let ControlRequest::AlterConfigs { target, ops, validate_only, reply } = broker.control_request() else {
            panic!("not a change")
        };
        let text = str::to_owned;
        assert_eq!((target, validate_only), (ConfigTarget::Topic("a".into()), true));
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
        let ControlRequest::AlterConfigs { reply, .. } = broker.control_request() else { panic!("not a change") };
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
            resource(BROKER, "2", set("num.partitions")),
            resource(BROKER, "one", set("num.partitions")),
            resource(GROUP, "", set("consumer.session.timeout.ms")),
            resource(77, "x", set("y")),
            resource(TOPIC, "a", set("retention.ms")),
            resource(TOPIC, "a", set("retention.ms")),
            resource(TOPIC, "c", [set("retention.ms"), set("retention.ms")].concat()),
            resource(TOPIC, "d", vec![config("retention.ms", 0, None)]),
        ]);
        let answer: IncrementalAlterConfigsResponse = broker.finish(broker.ask(&API, 0, &request));
        assert_eq!(
            answer.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(),
            [3, 42, 42, 42, 42, 42, 42, 42, 42]
        );
        assert!(broker.control.is_empty());
    }

    #[test]
    fn one_resource_has_so_many_settings_in_a_request() {
        let broker = FakeBroker::new(1, &[]);
        let asked = |count: usize| {
            let named = |n: usize| config("", 1, None).with_name(StrBytes::from_string(format!("n{n}")));
            let resources = vec![resource(BROKER, "", (0..count).map(named).collect())];
            broker.ask(&API, 1, &IncrementalAlterConfigsRequest::default().with_resources(resources))
        };
        let answer: IncrementalAlterConfigsResponse = broker.finish(asked(MAX_CONFIGS + 1));
        assert_eq!((answer.responses[0].error_code, broker.control.is_empty()), (42, true));
        let taken = asked(MAX_CONFIGS);
        let ControlRequest::AlterConfigs { ops, reply, .. } = broker.control_request() else { panic!("no change") };
        assert_eq!(ops.len(), MAX_CONFIGS);
        reply.try_send(Ok(())).expect("awaited");
        let answer: IncrementalAlterConfigsResponse = broker.finish(taken);
        assert_eq!(answer.responses[0].error_code, 0);
    }

    #[test]
    fn brokers_and_groups_are_told_apart() {
        let broker = FakeBroker::new(1, &[]);
        for (kind, name, expected) in [
            (BROKER, "1", ConfigTarget::Broker),
            (BROKER, "", ConfigTarget::Brokers),
            (GROUP, "g", ConfigTarget::Group("g".into())),
        ] {
            let resources = vec![resource(kind, name, vec![config("x", 1, None)])];
            let asked = broker.ask(&API, 1, &IncrementalAlterConfigsRequest::default().with_resources(resources));
            let ControlRequest::AlterConfigs { target, reply, .. } = broker.control_request() else {
                panic!("no change")
            };
            assert_eq!(target, expected);
            reply.try_send(Ok(())).expect("awaited");
            let answer: IncrementalAlterConfigsResponse = broker.finish(asked);
            assert_eq!(answer.responses[0].error_code, 0);
        }
    }
}
