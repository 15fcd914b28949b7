//! AlterConfigs (k33, KIP-133): replaces all settings of topics, brokers and groups; what is not named goes back to its default.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, ApiKey, alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
};

use super::{
    Api, Call, Handled,
    k44_incremental_alter_configs::{Refusal, alter, authorize, check_names, duplicate, repeated, target},
    message,
};
use crate::cluster::{ConfigOp, ConfigTarget};

/// How k33 is served.
pub const API: Api = Api::new(ApiKey::AlterConfigs, 0, 2, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: AlterConfigsRequest = call.decode(body)?;
        let twice = repeated(request.resources.iter().map(|r| (r.resource_type, r.resource_name.as_str())));
        let mut responses = Vec::with_capacity(request.resources.len());
        for resource in &request.resources {
            let (kind, name) = (resource.resource_type, resource.resource_name.as_str());
            let wanted = authorize(&call, kind, name).and_then(|()| target(&call, kind, name));
            let wanted = wanted.and_then(|target| Ok((ops(&call, resource, &target)?, target)));
            let outcome = match wanted {
                _ if twice.contains(&(kind, name)) => Err(duplicate()),
                Ok((ops, target)) => alter(&call, target, ops, request.validate_only).await?,
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
        call.respond(&AlterConfigsResponse::default().with_responses(responses))
    })
}

/// Sets what is named, and takes away every other override.
fn ops(call: &Call, resource: &AlterConfigsResource, target: &ConfigTarget) -> Result<Vec<ConfigOp>, Refusal> {
    let names = resource.configs.iter().map(|config| config.name.as_str());
    check_names(names.clone())?;
    let named: BTreeSet<&str> = names.collect();
    let snapshot = call.edge.snapshot();
    let overrides = match target {
        ConfigTarget::Topic(name) => snapshot.topics.get(name.as_str()).map(|view| &view.settings.overrides),
        _ => Some(snapshot.altered.of(target)),
    };
    let dropped =
        overrides.into_iter().flat_map(|overrides| overrides.keys()).filter(|name| !named.contains(name.as_str()));
    let dropped = dropped.map(|name| Ok(ConfigOp::Delete(name.clone())));
    let set = resource.configs.iter().map(|config| match &config.value {
        Some(value) => Ok(ConfigOp::Set(config.name.to_string(), value.to_string())),
        None => {
            Err((ResponseError::InvalidRequest, format!("Null value not supported for : {}", config.name.as_str())))
        }
    });
    dropped.chain(set).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_protocol::messages::alter_configs_request::AlterableConfig;

    use super::*;
    use crate::{
        api::{
            fake::{FakeBroker, snapshot, topic},
            k32_describe_configs::TOPIC,
        },
        cluster::{ControlRequest, TopicSettings, TopicView},
    };

    #[test]
    fn settings_that_are_not_named_go() {
        let broker = FakeBroker::new(1, &[]);
        let base = Arc::into_inner(topic("logs", 1)).expect("only here");
        let overrides = [("retention.ms", "5"), ("segment.ms", "6")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let settings = TopicSettings { overrides: overrides.into(), ..base.settings };
        let view = Arc::new(TopicView { settings, ..base });
        let mut newer = Arc::into_inner(snapshot(2, 1, &[])).expect("only here");
        newer.topics.insert("logs".into(), view);
        broker.edge.publish(Arc::new(newer));

        let config = AlterableConfig::default().with_name("retention.ms".into()).with_value(Some("7".into()));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name("logs".into())
            .with_configs(vec![config]);
        let asked = broker.ask(&API, 1, &AlterConfigsRequest::default().with_resources(vec![resource]));
        let ControlRequest::AlterConfigs { ops, reply, .. } = broker.control_request() else { panic!("no change") };
        let text = str::to_owned;
        assert_eq!(ops, [ConfigOp::Delete(text("segment.ms")), ConfigOp::Set(text("retention.ms"), text("7"))]);
        reply.try_send(Ok(())).expect("awaited");
        let answer: AlterConfigsResponse = broker.finish(asked);
        assert_eq!(answer.responses[0].error_code, 0);
        let one = |n: usize| AlterableConfig::default().with_name(format!("n{n}").into()).with_value(Some("1".into()));
        let resource = AlterConfigsResource::default().with_resource_type(TOPIC).with_resource_name("logs".into());
        let request =
            AlterConfigsRequest::default().with_resources(vec![resource.with_configs((0..2_001).map(one).collect())]);
        let answer: AlterConfigsResponse = broker.finish(broker.ask(&API, 1, &request));
        assert_eq!((answer.responses[0].error_code, broker.control.is_empty()), (42, true), "too many");
    }
}
