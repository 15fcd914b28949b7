//! How handlers reach the group coordinators: by the group's partition of `__consumer_offsets`, on whichever core it lies.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use thalweg_record::PartitionId;

use super::{Call, access};
use crate::{
    cluster::{ControlError, ControlRequest, CreateTopic, TopicView},
    coordinator::group::{
        GroupCall, GroupError, GroupEvent, GroupRequest, GroupResult, ListedGroup, OFFSETS_TOPIC,
        offsets_topic_configs, partition_for,
    },
};

/// Asks a group's coordinator. It may answer as late as a rebalance ends.
///
/// # Errors
/// The group's own; [`GroupError::CoordinatorNotAvailable`] also while the internal topic cannot be created, or the
/// process stops.
pub async fn ask(call: &Call, group: &str, event: GroupEvent) -> GroupResult {
    authorize(call, group, &event)?;
    // Records hold group ids with 15 bits of length.
    if group.len() > i16::MAX as usize {
        return Err(GroupError::InvalidGroupId);
    }
    let topic = offsets_topic(call).await?;
    let partition = PartitionId { topic: topic.id, index: partition_for(group, topic.partitions) };
    let owner = call.edge.snapshot().owner(partition);
    let (reply, answer) = flume::bounded(1);
    let request = GroupCall { partition, group: group.into(), event, reply };
    let lane = &call.edge.groups[usize::from(owner.0)];
    lane.try_send(GroupRequest::Group(Box::new(request))).map_err(|_| GroupError::CoordinatorNotAvailable)?;
    answer.recv_async().await.map_err(|_| GroupError::CoordinatorNotAvailable)?
}

/// As [`ask`], for requests that need a member: an empty group id has none.
pub async fn ask_named(call: &Call, group: &str, event: GroupEvent) -> GroupResult {
    if group.is_empty() {
        authorize(call, group, &event)?;
        return Err(GroupError::InvalidGroupId);
    }
    ask(call, group, event).await
}

/// Whether the caller may do this to the group.
fn authorize(call: &Call, group: &str, event: &GroupEvent) -> Result<(), GroupError> {
    let demand = match event {
        GroupEvent::Join(_)
        | GroupEvent::Sync(_)
        | GroupEvent::Heartbeat(_)
        | GroupEvent::Leave(_)
        | GroupEvent::Commit(_) => access::JOIN_GROUP,
        GroupEvent::Fetch(_) | GroupEvent::Describe => access::SEE_GROUP,
        GroupEvent::Delete | GroupEvent::DeleteOffsets(_) => access::DELETE_GROUP,
    };
    if call.access().allows(demand, group) { Ok(()) } else { Err(GroupError::Unauthorized) }
}

/// All groups of this broker, by id.
pub async fn list(call: &Call) -> Result<BTreeMap<Arc<str>, ListedGroup>, GroupError> {
    let mut answers = Vec::new();
    for lane in &call.edge.groups {
        let (reply, answer) = flume::bounded(1);
        lane.try_send(GroupRequest::List(reply)).map_err(|_| GroupError::CoordinatorNotAvailable)?;
        answers.push(answer);
    }
    let mut groups = BTreeMap::new();
    for answer in answers {
        let listed = answer.recv_async().await.map_err(|_| GroupError::CoordinatorNotAvailable)??;
        groups.extend(listed.into_iter().map(|group| (group.group.clone(), group)));
    }
    Ok(groups)
}

/// The internal topic, created when the first group needs it.
pub async fn offsets_topic(call: &Call) -> Result<Arc<TopicView>, GroupError> {
    if let Some(topic) = call.edge.snapshot().topics.get(OFFSETS_TOPIC) {
        return Ok(Arc::clone(topic));
    }
    let topic = CreateTopic {
        name: OFFSETS_TOPIC.to_owned(),
        partitions: Some(call.edge.config.offsets_topic_num_partitions),
        configs: offsets_topic_configs(),
        internal: true,
    };
    let (reply, answer) = flume::bounded(1);
    let request = ControlRequest::CreateTopics { topics: vec![topic], validate_only: false, reply };
    call.edge.control.try_send(request).map_err(|_| GroupError::CoordinatorNotAvailable)?;
    let created = answer.recv_async().await.map_err(|_| GroupError::CoordinatorNotAvailable)?;
    match created.into_iter().next() {
        // Another connection may have been faster.
        Some(Ok(_) | Err(ControlError::TopicExists(_))) => {}
        other => tracing::warn!(?other, "{OFFSETS_TOPIC} could not be created"),
    }
    let snapshot = call.edge.snapshot();
    snapshot.topics.get(OFFSETS_TOPIC).cloned().ok_or(GroupError::CoordinatorNotAvailable)
}

/// A text of a request as the coordinator keeps it: a copy, so that no receive buffer stays alive.
pub fn text(wire: &StrBytes) -> Arc<str> {
    Arc::from(wire.as_str())
}

/// As [`text`], for a text that may be null.
pub fn text_or_none(wire: Option<&StrBytes>) -> Option<Arc<str>> {
    wire.map(text)
}

/// A blob of a request as the coordinator keeps it.
pub fn blob(wire: &Bytes) -> Bytes {
    Bytes::copy_from_slice(wire)
}

/// A text of the coordinator as it is sent.
pub fn wire(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// As [`wire`], for a text that may be null.
pub fn wire_or_none(text: Option<&Arc<str>>) -> Option<StrBytes> {
    text.map(|t| wire(t))
}

/// Zero, or the error's code.
pub fn code<T>(result: &Result<T, GroupError>) -> i16 {
    use super::errors::{NONE, ToKafka};
    result.as_ref().map_or_else(ToKafka::code, |_| NONE)
}
