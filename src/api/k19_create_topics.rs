//! CreateTopics (k19, KIP-4, KIP-464, KIP-525): creates topics, each on its own fate.
//!
//! What is wrong with the request itself is told here; names, counts and settings are checked by control, which answers
//! when a topic is durable and open on its shards.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, BrokerId, CreateTopicsRequest, CreateTopicsResponse,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use thalweg_record::NodeId;
use uuid::Uuid;

use super::{
    Api, Call, Edge, Handled, Stopping, access, control, described, errors::ToKafka, k03_metadata::is_internal, message,
};
use crate::{
    cluster::{ControlRequest, CreateTopic, CreatedTopic},
    config::{Config, FactorCheck},
};

/// How k19 is served.
pub const API: Api = Api::new(ApiKey::CreateTopics, 2, 7, handle);

/// Why a topic is not created.
type Refusal = (ResponseError, String);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: CreateTopicsRequest = call.decode(body)?;
        // The answer is many times the request, and cannot be made again: its room is taken first.
        let room = call.edge.admission.response(request.topics.len() * ANSWER_BYTES).await;
        let answer = create(&call, &request).await?;
        Ok(call.respond(&answer)?.holding(room))
    })
}

/// What the answer says of one topic, its settings included from version 5 on.
const ANSWER_BYTES: usize = 2048;

async fn create(call: &Call, request: &CreateTopicsRequest) -> Result<CreateTopicsResponse, Stopping> {
    let config = &call.edge.config;
    let node = call.edge.snapshot().broker.node;
    let (mut seen, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for topic in &request.topics {
        if !seen.insert(&topic.name) {
            twice.insert(&topic.name);
        }
    }
    let access = call.access();
    let any = access.allows_cluster(access::CREATE_ANY_TOPIC);
    let check = |topic: &CreatableTopic| match twice.contains(&topic.name) {
        true => Err((ResponseError::InvalidRequest, "Duplicate topic name.".to_owned())),
        false if !(any || access.allows(access::CREATE_TOPIC, &topic.name)) => {
            Err((access::CREATE_TOPIC.refusal(), "Not authorized to create this topic.".to_owned()))
        }
        false => creation(config, node, topic),
    };
    let checked: Vec<_> = request.topics.iter().map(check).collect();
    let topics: Vec<CreateTopic> = checked.iter().filter_map(|topic| topic.as_ref().ok()).cloned().collect();
    let validate_only = request.validate_only;
    let mut results = match topics.is_empty() {
        true => Vec::new(),
        false => {
            control::ask(&call.edge, |reply| ControlRequest::CreateTopics { topics, validate_only, reply }).await?
        }
    }
    .into_iter();
    let answers = request.topics.iter().zip(checked).map(|(asked, checked)| {
        let created = checked.and_then(|topic| {
            let result = results.next().expect("control answers for each topic");
            result.map(|created| (topic, created)).map_err(|error| (error.to_kafka(), error.to_string()))
        });
        let result = CreatableTopicResult::default().with_name(asked.name.clone());
        match created {
            Ok((topic, created)) => {
                let result = result.with_error_message(None).with_topic_id(Uuid::from_bytes(created.id.0));
                match access.check(access::SEE_TOPIC_CONFIGS, &topic.name) {
                    _ if call.version < 5 => result,
                    Ok(()) => told(&call.edge, result, &topic, &created),
                    Err(refused) => result.with_topic_config_error_code(refused.code()).with_configs(Some(Vec::new())),
                }
            }
            Err((error, why)) => failure(result, error, why),
        }
    });
    Ok(CreateTopicsResponse::default().with_topics(answers.collect()))
}

/// What control is asked to create.
fn creation(config: &Config, node: NodeId, topic: &CreatableTopic) -> Result<CreateTopic, Refusal> {
    let partitions = match (&topic.assignments[..], topic.num_partitions) {
        ([], count) => {
            check_factor(config, topic.replication_factor)?;
            if count < -1 || count == 0 {
                return refuse(
                    ResponseError::InvalidPartitions,
                    "Number of partitions was set to an invalid non-positive value.",
                );
            }
            (count > 0).then_some(count)
        }
        (assignments, -1) if topic.replication_factor == -1 => Some(assigned(node, assignments)?),
        _ => {
            return refuse(
                ResponseError::InvalidRequest,
                "A manual partition assignment was specified, so neither a number of partitions nor a replication \
                 factor can be given.",
            );
        }
    };
    let setting = |entry: &kafka_protocol::messages::create_topics_request::CreatableTopicConfig| {
        let value = entry.value.as_ref().map(ToString::to_string);
        let missing = || (ResponseError::InvalidConfig, format!("{} has no value", entry.name.as_str()));
        Ok((entry.name.to_string(), value.ok_or_else(missing)?))
    };
    let configs = topic.configs.iter().map(setting).collect::<Result<BTreeMap<_, _>, Refusal>>()?;
    Ok(CreateTopic { name: topic.name.to_string(), partitions, configs, internal: is_internal(&topic.name) })
}

/// Tools written for clusters ask for a factor of 2 or 3. It is accepted: the records are as safe with 1.
fn check_factor(config: &Config, factor: i16) -> Result<(), Refusal> {
    match factor {
        0 | ..=-2 => refuse(
            ResponseError::InvalidReplicationFactor,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        2.. if config.replication_factor_check == FactorCheck::Strict => refuse(
            ResponseError::InvalidReplicationFactor,
            "Replication factor is larger than the number of brokers, 1 (replication.factor.check=strict).",
        ),
        _ => Ok(()),
    }
}

/// The number of partitions of a manual assignment, each of which must name this broker alone.
fn assigned(node: NodeId, assignments: &[CreatableReplicaAssignment]) -> Result<i32, Refusal> {
    let indexes: BTreeSet<i32> = assignments.iter().map(|assignment| assignment.partition_index).collect();
    if indexes.len() != assignments.len() || !indexes.iter().copied().eq(0..assignments.len() as i32) {
        return refuse(
            ResponseError::InvalidReplicaAssignment,
            "Partitions should be a consecutive 0-based integer sequence, each assigned once.",
        );
    }
    assignments.iter().try_for_each(|assignment| check_replicas(node, &assignment.broker_ids))?;
    Ok(assignments.len() as i32)
}

/// Whether a manual assignment of one partition names this broker alone.
///
/// # Errors
/// 39, with the reason.
pub(super) fn check_replicas(node: NodeId, replicas: &[BrokerId]) -> Result<(), Refusal> {
    match replicas {
        [replica] if replica.0 == node.0 => Ok(()),
        [] => refuse(ResponseError::InvalidReplicaAssignment, "A manual assignment names no broker."),
        [replica] => refuse(
            ResponseError::InvalidReplicaAssignment,
            format!("The manual partition assignment includes broker {}, but no such broker is registered.", replica.0),
        ),
        _ => refuse(
            ResponseError::InvalidReplicaAssignment,
            format!("A manual assignment can name one broker, {node}, the only one."),
        ),
    }
}

fn refuse<T>(error: ResponseError, why: impl Into<String>) -> Result<T, Refusal> {
    Err((error, why.into()))
}

fn failure(result: CreatableTopicResult, error: ResponseError, why: String) -> CreatableTopicResult {
    result.with_error_code(error.code()).with_error_message(Some(message(&why)))
}

/// From version 5 on a client is told count, factor and settings, which must not be null.
fn told(
    edge: &Edge,
    result: CreatableTopicResult,
    topic: &CreateTopic,
    created: &CreatedTopic,
) -> CreatableTopicResult {
    let told = |setting: described::Described| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_string(setting.name))
            .with_value(Some(StrBytes::from_string(setting.value)))
            .with_config_source(setting.source)
            .with_read_only(false)
    };
    let settings = described::topic(&edge.config, &edge.snapshot().altered, &topic.configs);
    let settings = settings.into_iter().map(told).collect();
    result.with_num_partitions(created.partitions).with_replication_factor(1).with_configs(Some(settings))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;
    use thalweg_record::TopicId;

    use super::*;
    use crate::{
        api::fake::{FakeBroker, topic_name},
        cluster::ControlError,
    };

    fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(factor)
    }

    fn assigned(mut topic: CreatableTopic, assignments: &[(i32, &[i32])]) -> CreatableTopic {
        let assignment = |(index, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
        };
        topic.assignments = assignments.iter().map(assignment).collect();
        topic
    }

    fn codes(answer: &CreateTopicsResponse) -> Vec<i16> {
        answer.topics.iter().map(|topic| topic.error_code).collect()
    }

    fn request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
        CreateTopicsRequest::default().with_topics(topics)
    }

    /// Has control say yes to everything; what it was asked.
    fn agree(broker: &FakeBroker) -> (Vec<CreateTopic>, bool) {
        let ControlRequest::CreateTopics { topics, validate_only, reply } = broker.control_request() else {
            panic!("not a creation")
        };
        let created =
            |topic: &CreateTopic| Ok(CreatedTopic { id: TopicId([7; 16]), partitions: topic.partitions.unwrap_or(4) });
        reply.try_send(topics.iter().map(created).collect()).expect("awaited");
        (topics, validate_only)
    }

    #[test]
    fn bad_requests_are_refused_without_control() {
        let broker = FakeBroker::new(1, &[]);
        let one = &[(0, &[1][..])];
        let null =
            CreatableTopicConfig::default().with_name(StrBytes::from_static_str("retention.ms")).with_value(None);
        let topics = vec![
            topic("twice", 1, 1),
            topic("twice", 1, 1),
            topic("none", 0, 1),
            topic("negative", -2, 1),
            topic("unreplicated", 1, 0),
            topic("replicated", 1, -2),
            assigned(topic("both", 1, -1), one),
            assigned(topic("factor", -1, 1), one),
            assigned(topic("stranger", -1, -1), &[(0, &[9])]),
            assigned(topic("pair", -1, -1), &[(0, &[1, 2])]),
            assigned(topic("gap", -1, -1), &[(0, &[1]), (2, &[1])]),
            topic("null", 1, 1).with_configs(vec![null]),
        ];
        let answer: CreateTopicsResponse = broker.finish(broker.ask(&API, 7, &request(topics)));
        assert_eq!(codes(&answer), [42, 42, 37, 37, 38, 38, 42, 42, 39, 39, 39, 40]);
        assert!(answer.topics.iter().all(|topic| topic.error_message.is_some() && topic.configs.is_some()));
        assert!(broker.control.is_empty());
    }

    #[test]
    fn control_decides_the_rest_topic_by_topic() {
        let broker = FakeBroker::new(1, &[]);
        let asked = broker.ask(&API, 5, &request(vec![topic("a", -1, -1), topic("bad", 0, 1), topic("b", 3, 3)]));
        let ControlRequest::CreateTopics { topics, reply, .. } = broker.control_request() else { panic!("no") };
        assert_eq!(topics.iter().map(|topic| topic.partitions).collect::<Vec<_>>(), [None, Some(3)]);
        let exists = ControlError::TopicExists("Topic 'b' already exists.".into());
        reply.try_send(vec![Ok(CreatedTopic { id: TopicId([7; 16]), partitions: 1 }), Err(exists)]).expect("awaited");
        let answer: CreateTopicsResponse = broker.finish(asked);
        assert_eq!(codes(&answer), [0, 37, 36]);
        assert_eq!(answer.topics[2].error_message.as_deref(), Some("Topic 'b' already exists."));
    }

    #[test]
    fn every_version_tells_what_its_clients_need() {
        for version in API.min..=API.max {
            let broker = FakeBroker::new(1, &[]);
            let retention =
                CreatableTopicConfig::default().with_name("retention.ms".into()).with_value(Some("5000".into()));
            let mut asked = request(vec![topic("logs", 2, 3).with_configs(vec![retention])]);
            asked.validate_only = true;
            let asked = broker.ask(&API, version, &asked);
            let (topics, validate_only) = agree(&broker);
            assert!(validate_only);
            assert_eq!(topics[0].configs["retention.ms"], "5000");
            let answer: CreateTopicsResponse = broker.finish(asked);
            let told = &answer.topics[0];
            assert_eq!(told.error_code, 0);
            if version >= 5 {
                assert_eq!((told.num_partitions, told.replication_factor), (2, 1));
                let settings = told.configs.as_ref().expect("not null");
                assert!(settings.iter().all(|setting| (1..=8).contains(&setting.config_source)));
                let retention = settings.iter().find(|setting| setting.name.as_str() == "retention.ms").expect("told");
                assert_eq!((retention.config_source, retention.value.as_deref()), (1, Some("5000")));
            }
            assert_eq!(told.topic_id.is_nil(), version < 7);
        }
    }

    #[test]
    fn foreign_factors_pass_unless_the_check_is_strict() {
        let broker = FakeBroker::with(&[("replication.factor.check", "strict")], 1, &[]);
        let strict: CreateTopicsResponse = broker.finish(broker.ask(&API, 5, &request(vec![topic("a", 1, 3)])));
        assert_eq!(codes(&strict), [38]);
        let broker = FakeBroker::new(1, &[]);
        let asked =
            broker.ask(&API, 5, &request(vec![topic("a", 1, i16::MAX), assigned(topic("b", -1, -1), &[(0, &[1])])]));
        let (topics, _) = agree(&broker);
        assert_eq!(topics[1].partitions, Some(1));
        assert_eq!(codes(&broker.finish(asked)), [0, 0]);
    }
}
