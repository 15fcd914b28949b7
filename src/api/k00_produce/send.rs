//! The first half of a produce: to the shards, in order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ahash::AHashSet;
use flume::Receiver;
use kafka_protocol::{
    ResponseError,
    messages::{
        ProduceRequest, TopicName,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};
use thalweg_record::{Batch, Mono, PartitionId, ShardId, TopicId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo},
    msg::{AppendRequest, Origin, Request},
};

use super::{
    super::{
        Call,
        access::{self, Access},
    },
    check::{one_batch, transactional},
    open::open_due,
    refused::Refused,
    resend::Place,
};
use crate::cluster::{ClusterSnapshot, TopicView};

/// Produce names topics by id from this version on (KIP-516).
const IDS_SINCE: i16 = 13;
/// Shortest deadline: with one replica, what `timeout_ms` waits for is one device write.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
/// How long a device may take over records that nobody waits for (acks=0) before their connection is closed.
const SILENT_TIMEOUT_MS: i32 = 30_000;

/// A topic of the request, with the fate of each of its partitions.
pub(super) struct SentTopic {
    pub name: TopicName,
    pub id: uuid::Uuid,
    pub view: Option<Arc<TopicView>>,
    pub partitions: Vec<SentPartition>,
}

/// A partition of the request.
pub(super) struct SentPartition {
    pub index: i32,
    pub fate: Fate,
}

/// Where a partition's answer comes from.
pub(super) enum Fate {
    /// It is here.
    Refused(Refused),
    /// From that shard, at that place of its answer.
    Asked(ShardId, usize),
}

/// What is under way.
pub(super) struct Sent {
    pub topics: Vec<SentTopic>,
    pub answers: Receiver<Answer>,
    pub asked: usize,
    /// acks=0.
    pub silent: bool,
    /// When to give up.
    pub deadline: Mono,
    /// Dropped when the answers are in.
    pub permits: Vec<crate::net::Permit>,
    /// Likewise.
    pub place: Place,
    /// What opened batches grew to.
    _opened: Option<Arc<crate::net::Permit>>,
}

/// A batch that may go to its shard.
pub(super) struct Placed<'a> {
    pub id: PartitionId,
    pub view: &'a TopicView,
    pub batch: Batch,
}

/// A partition of the request before its batch is sent.
pub(super) type Placement<'a> = Result<Placed<'a>, Refused>;

/// A topic of the request before its batches are sent.
struct PlacedTopic<'a> {
    name: TopicName,
    id: uuid::Uuid,
    view: Option<&'a Arc<TopicView>>,
    partitions: Vec<(i32, Placement<'a>)>,
}

/// What each shard gets.
type Shares = BTreeMap<ShardId, Vec<(PartitionId, Batch)>>;

/// Checks each partition, and sends the batches of each shard as one message, in ascending order of shards.
pub(super) async fn send(call: &Call, request: ProduceRequest) -> Sent {
    let snapshot = call.edge.snapshot();
    let refused = whole_request(&request);
    let silent = request.acks == 0;
    // Who waits for no answer has no deadline either; what follows on its connection must see the records, so it ends as all do.
    let deadline = deadline(call, if silent { SILENT_TIMEOUT_MS } else { request.timeout_ms });
    let mut seen = AHashSet::new();
    let access = call.access();
    let sort_out = |topic| sort_out(topic, call.version, (&snapshot, &access), refused.as_ref(), &mut seen);
    let mut placed: Vec<PlacedTopic<'_>> = request.topic_data.into_iter().map(sort_out).collect();
    let placements = placed.iter_mut().flat_map(|topic| &mut topic.partitions).map(|(_, placement)| placement);
    let opened = open_due(call, placements.collect(), deadline).await;
    let (owners, place) = call.caller.unanswered.enter(&call.edge).await;
    let mut shares = Shares::default();
    let topics = placed.into_iter().map(|topic| share(topic, &owners, &mut shares)).collect();
    let (lane, answers) = flume::unbounded();
    let asked = shares.len();
    let mut permits = Vec::with_capacity(asked);
    for (shard, batches) in &shares {
        let bytes = batches.iter().map(|(_, batch)| batch.size_bytes()).sum();
        permits.push(call.edge.admission.shard(*shard, bytes).await);
    }
    for (shard, batches) in shares {
        let reply = ReplyTo::new(lane.clone(), u64::from(shard.0));
        let generation = owners.generation;
        let append = AppendRequest { origin: Origin::Client, deadline, generation, batches, reply };
        call.edge.shard(shard).send(Request::Append(Box::new(append)));
    }
    Sent { topics, answers, asked, silent, deadline, permits, place, _opened: opened }
}

fn deadline(call: &Call, timeout_ms: i32) -> Mono {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    call.received.plus(timeout.max(SHORTEST_TIMEOUT))
}

/// What is wrong with all of it, if anything.
fn whole_request(request: &ProduceRequest) -> Option<Refused> {
    if !(-1..=1).contains(&request.acks) {
        return Some(ResponseError::InvalidRequiredAcks.into());
    }
    request.transactional_id.as_ref().map(|_| transactional())
}

fn sort_out<'a>(
    topic: TopicProduceData,
    version: i16,
    (snapshot, access): (&'a ClusterSnapshot, &Access),
    refused: Option<&Refused>,
    seen: &mut AHashSet<PartitionId>,
) -> PlacedTopic<'a> {
    let by_id = version >= IDS_SINCE;
    let view = if by_id {
        snapshot.topics_by_id.get(&TopicId(*topic.topic_id.as_bytes()))
    } else {
        snapshot.topics.get(topic.name.as_str())
    };
    let of_topic = match (refused, view) {
        (Some(refused), _) => Err(refused.clone()),
        (None, None) if by_id => Err(ResponseError::UnknownTopicId.into()),
        // Before anything else is said of the topic, its existence included.
        (None, _) if !access.allows(access::PRODUCE, view.map_or(topic.name.as_str(), |view| &view.name)) => {
            Err(access::PRODUCE.refusal().into())
        }
        (None, None) => Err(ResponseError::UnknownTopicOrPartition.into()),
        (None, Some(view)) if view.internal => Err(ResponseError::InvalidTopicException.into()),
        (None, Some(view)) => Ok(view),
    };
    let partitions = topic.partition_data.into_iter().map(|partition| {
        let index = partition.index;
        (index, of_topic.clone().and_then(|view| place(partition, view, version, seen)))
    });
    PlacedTopic { name: topic.name, id: topic.topic_id, view, partitions: partitions.collect() }
}

fn place<'a>(
    partition: PartitionProduceData,
    view: &'a TopicView,
    version: i16,
    seen: &mut AHashSet<PartitionId>,
) -> Placement<'a> {
    if !(0..view.partitions).contains(&partition.index) {
        return Err(ResponseError::UnknownTopicOrPartition.into());
    }
    let batch = one_batch(partition.records, version)?;
    let id = PartitionId { topic: view.id, index: partition.index };
    if !seen.insert(id) {
        return Err(Refused::because(ResponseError::InvalidRecord, "a partition appears once in a request"));
    }
    Ok(Placed { id, view, batch })
}

fn share(topic: PlacedTopic<'_>, snapshot: &ClusterSnapshot, shares: &mut Shares) -> SentTopic {
    let partitions = topic.partitions.into_iter().map(|(index, placement)| {
        let fate = match placement {
            Err(refused) => Fate::Refused(refused),
            Ok(placed) => {
                let shard = snapshot.owner(placed.id);
                let batches = shares.entry(shard).or_default();
                batches.push((placed.id, placed.batch));
                Fate::Asked(shard, batches.len() - 1)
            }
        };
        SentPartition { index, fate }
    });
    let partitions = partitions.collect();
    SentTopic { name: topic.name, id: topic.id, view: topic.view.cloned(), partitions }
}
