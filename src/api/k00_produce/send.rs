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
    msg::{Acks, AppendRequest, Origin, Request},
};

use super::{
    super::Call,
    check::{Refused, one_batch, transactional},
    open::open_if_due,
};
use crate::cluster::{ClusterSnapshot, TopicView};

/// Produce names topics by id from this version on (KIP-516).
const IDS_SINCE: i16 = 13;
/// Shortest deadline: with one replica, what `timeout_ms` waits for is one device write.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

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
    /// Dropped when the answers are in.
    pub permits: Vec<crate::net::Permit>,
}

/// A batch that may go to its shard.
pub(super) struct Placed {
    pub id: PartitionId,
    pub view: Arc<TopicView>,
    pub batch: Batch,
}

/// What each shard gets, and the partitions named so far.
#[derive(Default)]
struct Shares {
    of: BTreeMap<ShardId, Vec<(PartitionId, Batch)>>,
    seen: AHashSet<PartitionId>,
}

/// Checks each partition, and sends the batches of each shard as one message, in ascending order of shards.
pub(super) async fn send(call: &Call, request: ProduceRequest) -> Sent {
    let snapshot = call.edge.snapshot();
    let refused = whole_request(&request);
    let silent = request.acks == 0;
    let (acks, deadline) = (if silent { Acks::None } else { Acks::Durable }, deadline(call, request.timeout_ms));
    let mut shares = Shares::default();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        topics.push(sort_out(call, topic, &snapshot, refused.as_ref(), &mut shares).await);
    }
    let (lane, answers) = flume::unbounded();
    let asked = shares.of.len();
    let mut permits = Vec::with_capacity(asked);
    for (shard, batches) in &shares.of {
        let bytes = batches.iter().map(|(_, batch)| batch.size_bytes()).sum();
        permits.push(call.edge.admission.shard(*shard, bytes).await);
    }
    for (shard, batches) in shares.of {
        let reply = ReplyTo::new(lane.clone(), u64::from(shard.0));
        let append = AppendRequest { origin: Origin::Client, acks, deadline, batches, reply };
        call.edge.shard(shard).send(Request::Append(Box::new(append)));
    }
    Sent { topics, answers, asked, silent, permits }
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

async fn sort_out(
    call: &Call,
    topic: TopicProduceData,
    snapshot: &ClusterSnapshot,
    refused: Option<&Refused>,
    shares: &mut Shares,
) -> SentTopic {
    let by_id = call.version >= IDS_SINCE;
    let view = if by_id {
        snapshot.topics_by_id.get(&TopicId(*topic.topic_id.as_bytes()))
    } else {
        snapshot.topics.get(topic.name.as_str())
    };
    let of_topic = match (refused, view) {
        (Some(refused), _) => Err(refused.clone()),
        (None, None) if by_id => Err(ResponseError::UnknownTopicId.into()),
        (None, None) => Err(ResponseError::UnknownTopicOrPartition.into()),
        (None, Some(view)) if view.internal => Err(ResponseError::InvalidTopicException.into()),
        (None, Some(view)) => Ok(view),
    };
    let mut partitions = Vec::with_capacity(topic.partition_data.len());
    for partition in topic.partition_data {
        let index = partition.index;
        let placed = of_topic.clone().and_then(|view| shares.place(partition, view, call.version));
        let opened = match placed {
            Ok(placed) => open_if_due(call, placed).await,
            Err(refused) => Err(refused),
        };
        let fate = match opened {
            Ok(placed) => shares.add(snapshot.owner(placed.id), placed),
            Err(refused) => Fate::Refused(refused),
        };
        partitions.push(SentPartition { index, fate });
    }
    SentTopic { name: topic.name, id: topic.topic_id, view: view.cloned(), partitions }
}

impl Shares {
    fn place(
        &mut self,
        partition: PartitionProduceData,
        view: &Arc<TopicView>,
        version: i16,
    ) -> Result<Placed, Refused> {
        if !(0..view.partitions).contains(&partition.index) {
            return Err(ResponseError::UnknownTopicOrPartition.into());
        }
        let batch = one_batch(partition.records, version)?;
        let id = PartitionId { topic: view.id, index: partition.index };
        if !self.seen.insert(id) {
            let why = Some("a partition appears once in a request");
            return Err(Refused { error: ResponseError::InvalidRecord, why });
        }
        Ok(Placed { id, view: Arc::clone(view), batch })
    }

    fn add(&mut self, shard: ShardId, placed: Placed) -> Fate {
        let batches = self.of.entry(shard).or_default();
        batches.push((placed.id, placed.batch));
        Fate::Asked(shard, batches.len() - 1)
    }
}
