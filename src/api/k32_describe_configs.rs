//! DescribeConfigs (k32, KIP-133, KIP-226, KIP-569): settings of topics, brokers and groups, and where they come from.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeConfigsRequest,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
    protocol::{Encodable, StrBytes},
};

use super::{
    Api, Call, Close, ErrorTally, Handled, Response,
    access::{self, Demand},
    described::{self, Described},
    k03_metadata::unknown,
    message,
};
use crate::cluster::ConfigTarget;

/// How k32 is served.
pub const API: Api = Api::asking(ApiKey::DescribeConfigs, 1, 4, handle);

/// First version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 4;
/// Kafka's type of a topic as a resource.
pub(super) const TOPIC: i8 = 2;
/// Kafka's type of a broker as a resource.
pub(super) const BROKER: i8 = 4;
/// Likewise of a broker's loggers.
pub(super) const BROKER_LOGGER: i8 = 8;
/// Likewise of a subscription of client metrics (KIP-714).
pub(super) const CLIENT_METRICS: i8 = 16;
/// Likewise of a group (KIP-848).
pub(super) const GROUP: i8 = 32;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeConfigsRequest = call.decode(body)?;
        let mut body = BytesMut::new();
        put_head(&mut body, call.version, request.resources.len());
        let (mut seen, mut errors) = (BTreeSet::new(), ErrorTally::default());
        for resource in &request.resources {
            // Told again and again, one resource would make a giant answer to a small request.
            let result = match seen.insert((resource.resource_type, &resource.resource_name)) {
                true => describe(&call, &request, resource),
                false => refused(resource, ResponseError::InvalidRequest, "The resource is in the request twice."),
            };
            // One by one: all of a large cluster's settings as structs would take many times the answer's size.
            let unfit = |error| Close::new(format!("the settings do not fit version {}: {error}", call.version));
            errors.add(result.error_code);
            result.encode(&mut body, call.version).map_err(unfit)?;
        }
        if call.version >= FLEXIBLE {
            body.put_u8(0);
        }
        Ok(Response::from_pieces(vec![body.freeze()], errors))
    })
}

/// What comes before the results: no throttling, and their number.
fn put_head(body: &mut BytesMut, version: i16, results: usize) {
    body.put_i32(0);
    let mut count = results as u32 + 1;
    if version < FLEXIBLE {
        return body.put_i32(results as i32);
    }
    while count >= 0x80 {
        body.put_u8(count as u8 | 0x80);
        count >>= 7;
    }
    body.put_u8(count as u8);
}

fn refused(resource: &DescribeConfigsResource, error: ResponseError, why: &str) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_code(error.code())
        .with_error_message(Some(message(why)))
}

fn describe(
    call: &Call,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> DescribeConfigsResult {
    let settings = match settings(call, resource) {
        Ok(settings) => settings,
        Err((error, why)) => return refused(resource, error, &why),
    };
    let wanted = |setting: &Described| match &resource.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == setting.name),
        _ => true,
    };
    let told = settings.into_iter().filter(wanted).map(|setting| tell(request, setting));
    DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None)
        .with_configs(told.collect())
}

fn settings(call: &Call, resource: &DescribeConfigsResource) -> Result<Vec<Described>, (ResponseError, String)> {
    let snapshot = call.edge.snapshot();
    let name = resource.resource_name.as_str();
    let demands = (access::SEE_TOPIC_CONFIGS, access::SEE_GROUP_CONFIGS, access::SEE_CLUSTER_CONFIGS);
    authorize(call, demands, resource.resource_type, name)?;
    match resource.resource_type {
        TOPIC => match snapshot.topics.get(name) {
            Some(view) => Ok(described::topic(&call.edge.config, &snapshot.altered, &view.settings.overrides)),
            None => Err((unknown(name), "This server does not host this topic.".to_owned())),
        },
        BROKER if name.is_empty() => Ok(described::brokers(&snapshot.altered)),
        BROKER if name == snapshot.broker.node.to_string() => {
            Ok(described::broker(&call.edge.config, &snapshot.altered))
        }
        GROUP if name.is_empty() => Err((ResponseError::InvalidRequest, "Group name must not be empty".to_owned())),
        GROUP => Ok(described::group(snapshot.altered.of(&ConfigTarget::Group(name.to_owned())))),
        BROKER => Err((
            ResponseError::InvalidRequest,
            format!("Unexpected broker id, expected {} or empty string, but received {name}", snapshot.broker.node),
        )),
        other => Err((ResponseError::InvalidRequest, format!("Unsupported resource type: {other}"))),
    }
}

/// Whether the caller may do to the settings of a resource what is demanded for topics, groups, and all else.
///
/// # Errors
/// 29, 30 or 31.
pub(super) fn authorize(
    call: &Call,
    (topic, group, cluster): (Demand, Demand, Demand),
    kind: i8,
    name: &str,
) -> Result<(), (ResponseError, String)> {
    let access = call.access();
    let checked = match kind {
        TOPIC => access.check(topic, name),
        GROUP => access.check(group, name),
        BROKER | BROKER_LOGGER | CLIENT_METRICS => access.check_cluster(cluster),
        _ => Ok(()),
    };
    checked.map_err(|error| (error, "Not authorized for the settings of this resource.".to_owned()))
}

fn tell(request: &DescribeConfigsRequest, setting: Described) -> DescribeConfigsResourceResult {
    let shown = |value: String| (!setting.sensitive).then(|| StrBytes::from_string(value));
    let synonym = |(name, value, source): (String, String, i8)| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(name))
            .with_value(shown(value))
            .with_source(source)
    };
    let synonyms = match request.include_synonyms {
        true => setting.synonyms.into_iter().map(synonym).collect(),
        false => Vec::new(),
    };
    let documentation = request.include_documentation.then(|| StrBytes::from_string(setting.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(setting.name))
        .with_value(shown(setting.value))
        .with_read_only(setting.read_only)
        .with_is_sensitive(setting.sensitive)
        .with_config_source(setting.source)
        .with_synonyms(synonyms)
        .with_config_type(setting.config_type)
        .with_documentation(documentation)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::DescribeConfigsResponse;

    use super::*;
    use crate::{api::fake::FakeBroker, cluster::Altered, config::SETTINGS};

    fn ask(broker: &FakeBroker, version: i16, request: &DescribeConfigsRequest) -> Vec<DescribeConfigsResult> {
        let answer: DescribeConfigsResponse = broker.finish(broker.ask(&API, version, request));
        answer.results
    }

    fn resource(kind: i8, name: &str, keys: Option<&[&'static str]>) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| StrBytes::from_static_str(key)).collect()))
    }

    #[test]
    fn many_resources_are_told_and_none_twice() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let mut resources: Vec<_> = (0..200).map(|n| resource(TOPIC, &format!("t{n}"), None)).collect();
        resources.extend([resource(TOPIC, "logs", None), resource(TOPIC, "logs", None)]);
        for version in 1..=4 {
            let results = ask(&broker, version, &DescribeConfigsRequest::default().with_resources(resources.clone()));
            let codes: Vec<i16> = results[198..].iter().map(|result| result.error_code).collect();
            assert_eq!((results.len(), codes), (202, vec![3, 3, 0, 42]), "version {version}");
        }
    }

    #[test]
    fn topics_and_this_broker_are_described_in_every_version() {
        let broker = FakeBroker::with(&[("num.partitions", "3")], 1, &[("logs", 1)]);
        for version in 1..=4 {
            let request = DescribeConfigsRequest::default()
                .with_resources(vec![
                    resource(TOPIC, "logs", Some(&["retention.ms"])),
                    resource(BROKER, "1", None),
                    resource(BROKER, "", None),
                ])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            let results = ask(&broker, version, &request);
            let retention = &results[0].configs[0];
            assert_eq!(
                (results[0].configs.len(), retention.name.as_str(), retention.read_only),
                (1, "retention.ms", false)
            );
            assert_eq!((retention.value.as_deref(), retention.config_source), (Some("604800000"), 5));
            assert!(retention.synonyms.is_empty(), "Kafka keeps this default under log.retention.hours");
            assert_eq!(results[1].configs.len(), SETTINGS.len());
            let partitions = results[1].configs.iter().find(|c| c.name.as_str() == "num.partitions").expect("told");
            assert_eq!(
                (partitions.value.as_deref(), partitions.config_source, partitions.read_only),
                (Some("3"), 4, true)
            );
            assert_eq!(partitions.synonyms.len(), 2, "what was set, and the default");
            if version >= 3 {
                assert_eq!(partitions.config_type, 3);
                assert!(partitions.documentation.as_ref().is_some_and(|text| !text.is_empty()));
            }
            assert_eq!((results[2].error_code, results[2].configs.len()), (0, 0));
        }
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let request = DescribeConfigsRequest::default().with_resources(vec![resource(TOPIC, "logs", Some(&[]))]);
        let results = ask(&broker, 4, &request);
        assert!(results[0].configs.len() > 5, "no keys are all keys");
        assert!(results[0].configs.iter().all(|c| c.synonyms.is_empty() && c.documentation.is_none()));
    }

    #[test]
    fn strangers_have_their_codes() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let request = DescribeConfigsRequest::default().with_resources(vec![
            resource(TOPIC, "nope", None),
            resource(TOPIC, "a b", None),
            resource(BROKER, "2", None),
            resource(BROKER, "one", None),
            resource(99, "x", None),
        ]);
        let codes: Vec<i16> = ask(&broker, 4, &request).iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [3, 17, 42, 42, 42]);
    }

    #[test]
    fn what_was_altered_is_told_and_secrets_are_not() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let one = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        broker.alter(Altered {
            broker: [one("log.retention.ms", "5"), one("a.plugin.password", "s3cret")].into(),
            brokers: [one("background.threads", "9")].into(),
            groups: [("g".to_owned(), std::sync::Arc::new([one("consumer.session.timeout.ms", "50000")].into()))]
                .into(),
        });
        let request = DescribeConfigsRequest::default().with_include_synonyms(true).with_resources(vec![
            resource(BROKER, "1", Some(&["log.retention.ms", "a.plugin.password", "num.partitions"])),
            resource(BROKER, "", None),
            resource(TOPIC, "logs", Some(&["retention.ms"])),
            resource(GROUP, "g", Some(&["consumer.session.timeout.ms"])),
            resource(GROUP, "", None),
        ]);
        let results = ask(&broker, 4, &request);
        let told = |at: usize| -> Vec<(&str, Option<&str>, i8, bool, bool)> {
            let row = |c: &'_ DescribeConfigsResourceResult| (c.config_source, c.read_only, c.is_sensitive);
            let rows = results[at].configs.iter().map(|c| (c.name.as_str(), c.value.as_deref(), row(c)));
            rows.map(|(name, value, (source, read_only, secret))| (name, value, source, read_only, secret)).collect()
        };
        assert_eq!(
            told(0),
            [
                ("a.plugin.password", None, 2, true, true),
                ("log.retention.ms", Some("5"), 2, false, false),
                ("num.partitions", Some("1"), 5, true, false)
            ]
        );
        assert_eq!(results[0].configs[0].synonyms[0].value, None, "not among the synonyms either");
        assert_eq!(told(1), [("background.threads", Some("9"), 3, false, false)]);
        assert_eq!(told(2), [("retention.ms", Some("5"), 2, false, false)]);
        assert_eq!(told(3), [("consumer.session.timeout.ms", Some("50000"), 8, false, false)]);
        assert_eq!(results[4].error_code, 42);
    }
}
