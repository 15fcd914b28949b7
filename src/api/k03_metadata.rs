//! Metadata (k3, KIP-4, KIP-430, KIP-516): brokers and topics, and the topics that a client's question creates.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, BrokerId, MetadataRequest, MetadataResponse, TopicName,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
    protocol::StrBytes,
};
use thalweg_record::TopicId;
use uuid::Uuid;

use super::{
    Api, Call, Handled, Stopping,
    access::{self, Access},
    control, errors,
    errors::ToKafka,
};
use crate::cluster::{ClusterSnapshot, ControlError, ControlRequest, CreateTopic, TopicView};

/// How k3 is served.
pub const API: Api = Api::asking(ApiKey::Metadata, 0, 13, handle);

/// What is asked about one topic.
enum Wanted {
    Name(String),
    Id(TopicId),
    /// Neither, or in a version that does not know ids.
    Malformed(Option<TopicName>),
}

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: MetadataRequest = call.decode(body)?;
        let wanted = wanted(call.version, &request);
        let access = call.access();
        let failed = match &wanted {
            Some(wanted) if request.allow_auto_topic_creation => create_missing(&call, &access, wanted).await?,
            _ => BTreeMap::new(),
        };
        call.respond(&answer(&call, &access, &request, wanted, &failed))
    })
}

/// The topics asked for, without repetitions; `None` is all of them.
fn wanted(version: i16, request: &MetadataRequest) -> Option<Vec<Wanted>> {
    let topics = request.topics.as_ref().filter(|topics| version > 0 || !topics.is_empty())?;
    let mut seen = BTreeSet::new();
    let distinct = topics.iter().filter(|topic| seen.insert((topic.name.as_deref(), topic.topic_id)));
    let wanted = distinct.map(|topic| match &topic.name {
        _ if version >= 12 && !topic.topic_id.is_nil() => Wanted::Id(TopicId(topic.topic_id.into_bytes())),
        Some(name) if topic.topic_id.is_nil() => Wanted::Name(name.to_string()),
        name => Wanted::Malformed(name.clone()),
    });
    Some(wanted.collect())
}

/// Creates the topics that do not exist, where that is enabled; why it failed, by name.
async fn create_missing(
    call: &Call,
    access: &Access,
    wanted: &[Wanted],
) -> Result<BTreeMap<String, ResponseError>, Stopping> {
    let snapshot = call.edge.snapshot();
    let missing = wanted.iter().filter_map(|topic| match topic {
        Wanted::Name(name) if !snapshot.topics.contains_key(name.as_str()) => Some(name.clone()),
        _ => None,
    });
    let missing: Vec<String> = missing.filter(|name| access.allows(access::SEE_TOPIC, name)).collect();
    if missing.is_empty() || !call.edge.config.auto_create_topics_enable {
        return Ok(BTreeMap::new());
    }
    let any = access.allows_cluster(access::CREATE_ANY_TOPIC);
    let (missing, denied): (Vec<String>, Vec<String>) =
        missing.into_iter().partition(|name| any || access.allows(access::CREATE_TOPIC, name));
    let mut failed: BTreeMap<String, ResponseError> =
        denied.into_iter().map(|name| (name, access::CREATE_TOPIC.refusal())).collect();
    let missing: Vec<String> = missing.into_iter().filter(|name| is_name(name) && !is_internal(name)).collect();
    if missing.is_empty() {
        return Ok(failed);
    }
    let create =
        |name: &String| CreateTopic { name: name.clone(), partitions: None, configs: BTreeMap::new(), internal: false };
    let topics = missing.iter().map(create).collect();
    let results =
        control::ask(&call.edge, |reply| ControlRequest::CreateTopics { topics, validate_only: false, reply }).await?;
    // Another client may have been first: that is as good.
    let refused = missing.into_iter().zip(results).filter_map(|(name, result)| Some((name, result.err()?)));
    let refused = refused.filter(|(_, error)| !matches!(error, ControlError::TopicExists(_)));
    failed.extend(refused.map(|(name, error)| (name, error.to_kafka())));
    Ok(failed)
}

fn answer(
    call: &Call,
    access: &Access,
    request: &MetadataRequest,
    wanted: Option<Vec<Wanted>>,
    failed: &BTreeMap<String, ResponseError>,
) -> MetadataResponse {
    let snapshot = call.edge.snapshot();
    let mut topics: Vec<MetadataResponseTopic> = match wanted {
        // What one may not see is left out.
        None => {
            let seen = snapshot.topics.values().filter(|view| access.allows(access::SEE_TOPIC, &view.name));
            seen.map(|view| known(&snapshot, view)).collect()
        }
        Some(wanted) => wanted.iter().map(|topic| one(&snapshot, access, topic, failed)).collect(),
    };
    if call.version >= 8 && request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == errors::NONE) {
            topic.topic_authorized_operations =
                access.topic_operations(topic.name.as_ref().map_or("", |name| name.as_str()));
        }
    }
    let asked_cluster = (8..=10).contains(&call.version) && request.include_cluster_authorized_operations;
    let node = BrokerId(snapshot.broker.node.0);
    let broker = MetadataResponseBroker::default()
        .with_node_id(node)
        .with_host(StrBytes::from_string(call.caller.advertised_host.to_string()))
        .with_port(i32::from(call.caller.advertised_port))
        .with_rack(snapshot.broker.rack.as_ref().map(|rack| StrBytes::from_string(rack.to_string())));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(StrBytes::from_string(snapshot.cluster_id.to_string())))
        .with_controller_id(node)
        .with_topics(topics)
        .with_cluster_authorized_operations(if asked_cluster { access.cluster_operations() } else { i32::MIN })
}

fn one(
    snapshot: &ClusterSnapshot,
    access: &Access,
    wanted: &Wanted,
    failed: &BTreeMap<String, ResponseError>,
) -> MetadataResponseTopic {
    let error = |error: ResponseError| MetadataResponseTopic::default().with_error_code(error.code());
    match wanted {
        Wanted::Id(id) => match snapshot.topics_by_id.get(id) {
            // Ids are no secret, names are.
            Some(view) => match access.check(access::SEE_TOPIC, &view.name) {
                Ok(()) => known(snapshot, view),
                Err(refused) => error(refused).with_name(None).with_topic_id(Uuid::from_bytes(id.0)),
            },
            None => error(ResponseError::UnknownTopicId).with_name(None).with_topic_id(Uuid::from_bytes(id.0)),
        },
        // Nothing is said of whether it exists.
        Wanted::Name(name) if !access.allows(access::SEE_TOPIC, name) => {
            let name = TopicName(StrBytes::from_string(name.clone()));
            error(access::SEE_TOPIC.refusal()).with_name(Some(name))
        }
        Wanted::Name(name) => match snapshot.topics.get(name.as_str()) {
            Some(view) => known(snapshot, view),
            None => {
                let why = failed.get(name).copied().unwrap_or(unknown(name));
                let name = TopicName(StrBytes::from_string(name.clone()));
                error(why).with_is_internal(is_internal(&name)).with_name(Some(name))
            }
        },
        Wanted::Malformed(name) => {
            error(ResponseError::InvalidRequest).with_name(Some(name.clone().unwrap_or_default()))
        }
    }
}

/// The error of a topic that does not exist: it could never, or it does not yet.
pub(super) fn unknown(name: &str) -> ResponseError {
    if is_name(name) { ResponseError::UnknownTopicOrPartition } else { ResponseError::InvalidTopicException }
}

/// Whether a topic may have this name: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// Kafka's internal topics. Only their coordinators create them.
pub(super) fn is_internal(name: &str) -> bool {
    ["__consumer_offsets", "__transaction_state"].contains(&name)
}

fn known(snapshot: &ClusterSnapshot, view: &Arc<TopicView>) -> MetadataResponseTopic {
    let node = BrokerId(snapshot.broker.node.0);
    let partition = |index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(node)
            .with_leader_epoch(view.leader_epoch.0)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    };
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(view.name.to_string()))))
        .with_topic_id(Uuid::from_bytes(view.id.0))
        .with_is_internal(view.internal)
        .with_partitions((0..view.partitions).map(partition).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    use thalweg_record::TopicId;

    use super::*;
    use crate::{
        api::fake::{FakeBroker, snapshot, topic_id, topic_name},
        cluster::CreatedTopic,
    };

    fn named(names: &[&str]) -> MetadataRequest {
        let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
        MetadataRequest::default()
            .with_topics(Some(names.iter().map(topic).collect()))
            .with_allow_auto_topic_creation(false)
    }

    fn ask(broker: &FakeBroker, version: i16, request: &MetadataRequest) -> MetadataResponse {
        broker.finish(broker.ask(&API, version, request))
    }

    fn names(answer: &MetadataResponse) -> Vec<(i16, Option<String>)> {
        answer.topics.iter().map(|topic| (topic.error_code, topic.name.as_ref().map(|n| n.to_string()))).collect()
    }

    fn ok(name: &str) -> (i16, Option<String>) {
        (0, Some(name.to_owned()))
    }

    #[test]
    fn null_is_all_and_empty_is_none_but_in_version_0() {
        let broker = FakeBroker::new(1, &[("b", 1), ("a", 2)]);
        assert_eq!(names(&ask(&broker, 0, &named(&[]).with_allow_auto_topic_creation(true))), [ok("a"), ok("b")]);
        for version in 4..=13 {
            assert_eq!(names(&ask(&broker, version, &named(&[]))), []);
            assert_eq!(names(&ask(&broker, version, &named(&[]).with_topics(None))), [ok("a"), ok("b")]);
        }
    }

    #[test]
    fn a_topic_is_described_whole() {
        let broker = FakeBroker::new(1, &[("logs", 2)]);
        let answer = ask(&broker, 12, &named(&["logs", "logs"]).with_include_topic_authorized_operations(true));
        let (host, port) = (answer.brokers[0].host.as_str(), answer.brokers[0].port);
        assert_eq!((host, port), ("this.example", 9099), "as this listener advertises");
        assert_eq!((answer.controller_id.0, answer.cluster_id.map(|id| id.len())), (1, Some(22)));
        assert_eq!(answer.topics.len(), 1, "asked twice, answered once");
        let topic = &answer.topics[0];
        assert_eq!(topic.topic_id.into_bytes(), topic_id("logs").0);
        assert_eq!(topic.topic_authorized_operations, 0b1101_1111_1000);
        let partition = &topic.partitions[1];
        assert_eq!((partition.partition_index, partition.leader_id.0, partition.leader_epoch), (1, 1, 2));
        assert_eq!((partition.isr_nodes.len(), partition.replica_nodes.len()), (1, 1));
    }

    #[test]
    fn operations_are_only_told_when_asked() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let answer = ask(&broker, 10, &named(&["logs"]));
        assert_eq!(answer.cluster_authorized_operations, i32::MIN);
        assert_eq!(answer.topics[0].topic_authorized_operations, i32::MIN);
        let answer = ask(&broker, 10, &named(&["logs"]).with_include_cluster_authorized_operations(true));
        assert_eq!(answer.cluster_authorized_operations, 0b1_1111_1010_0000);
    }

    #[test]
    fn unknown_names_and_ids_have_their_codes() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let answer = ask(&broker, 9, &named(&["nope", "a b", "..", "logs"]));
        assert_eq!(names(&answer).iter().map(|topic| topic.0).collect::<Vec<_>>(), [3, 17, 17, 0]);
        let by_id = |id: TopicId| {
            let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(Uuid::from_bytes(id.0));
            named(&[]).with_topics(Some(vec![topic]))
        };
        assert_eq!(names(&ask(&broker, 12, &by_id(TopicId([9; 16])))), [(100, None)]);
        assert_eq!(names(&ask(&broker, 12, &by_id(topic_id("logs")))), [ok("logs")]);
        assert_eq!(names(&ask(&broker, 10, &by_id(topic_id("logs"))))[0].0, 42, "ids came with 12");
    }

    #[test]
    fn a_missing_topic_is_created_and_then_answered() {
        let broker = FakeBroker::new(1, &[("logs", 1)]);
        let request = named(&["new", "logs", "taken", "bad name", "__consumer_offsets"]);
        let asked = broker.ask(&API, 4, &request.with_allow_auto_topic_creation(true));
        let ControlRequest::CreateTopics { topics, validate_only, reply } = broker.control_request() else {
            panic!("not a creation")
        };
        assert_eq!(topics.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["new", "taken"]);
        assert!(!validate_only && topics.iter().all(|topic| topic.partitions.is_none() && !topic.internal));
        broker.edge.publish(snapshot(2, 1, &[("logs", 1), ("new", 3)]));
        let created = CreatedTopic { id: topic_id("new"), partitions: 3 };
        let refused = ControlError::InvalidTopicName("collides".into());
        reply.try_send(vec![Ok(created), Err(refused)]).expect("awaited");
        let answer: MetadataResponse = broker.finish(asked);
        assert_eq!(names(&answer).iter().map(|topic| topic.0).collect::<Vec<_>>(), [0, 0, 17, 17, 3]);
        assert_eq!(answer.topics[0].partitions.len(), 3);
    }

    #[test]
    fn nothing_is_created_unless_flag_and_setting_say_so() {
        let broker = FakeBroker::with(&[("auto.create.topics.enable", "false")], 1, &[]);
        let flagged = named(&["new"]).with_allow_auto_topic_creation(true);
        assert_eq!(names(&ask(&broker, 4, &flagged))[0].0, 3);
        assert_eq!(names(&ask(&FakeBroker::new(1, &[]), 4, &named(&["new"])))[0].0, 3);
    }
}
