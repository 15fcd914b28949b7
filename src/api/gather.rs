//! Asking the shards that own some partitions, and putting their answers together in the order asked.
//!
//! One message per shard. When a shard says that it does not have a partition (its revision and the asker's snapshot
//! differ for a moment), the asker waits for the newer of both and asks again, a bounded number of times.

use std::{collections::BTreeMap, time::Duration};

use futures_lite::future::or;
use kafka_protocol::ResponseError;
use thalweg_record::{LeaderEpoch, PartitionId, ShardId};
use thalweg_shards::{
    mailbox::{Answer, ReplyTo},
    msg::{Generation, PartitionError, Reply, Request},
};

use super::{Edge, errors::ToKafka};
use crate::{cluster::ClusterSnapshot, net::Permit};

/// How often a moved partition is looked for again.
pub const MOVED_RETRIES: u32 = 5;

/// How long to wait for a snapshot that a shard knows of.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(100);

/// How long to wait until a partition that moves is on its new shard.
const MOVE_WAIT: Duration = Duration::from_secs(2);

/// How long to leave a shard that is behind the snapshot before asking again.
const SHARD_WAIT: Duration = Duration::from_millis(2);

/// Charge of one part of a request against the shard's byte quota.
const PART_BYTES: usize = 64;

/// Permits for one message to each of these shards, in ascending order as everybody acquires them.
pub async fn permits<T>(edge: &Edge, by_shard: &BTreeMap<ShardId, Vec<T>>) -> Vec<Permit> {
    let mut permits = Vec::with_capacity(by_shard.len());
    for (shard, parts) in by_shard {
        permits.push(edge.admission.shard(*shard, parts.len() * PART_BYTES).await);
    }
    permits
}

/// What a snapshot must be as new as, so that its holder may agree with a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Newer {
    /// Its revision.
    pub revision: u64,
    /// Its generation of owners.
    pub generation: Generation,
}

impl Newer {
    /// Whether a snapshot is.
    pub fn is_met_by(self, snapshot: &ClusterSnapshot) -> bool {
        snapshot.revision >= self.revision && snapshot.generation >= self.generation
    }
}

/// The newest state in which a shard did not have a partition, if any says so.
pub fn newest_move<'a>(errors: impl Iterator<Item = &'a PartitionError>) -> Option<Newer> {
    errors.fold(None, |newest: Option<Newer>, error| {
        let newer = newest.unwrap_or_default();
        match error {
            PartitionError::Moved(revision) => Some(Newer { revision: newer.revision.max(*revision), ..newer }),
            PartitionError::Moving(to_come) => Some(Newer { generation: newer.generation.max(*to_come), ..newer }),
            _ => newest,
        }
    })
}

/// Waits, for a bounded time, until this executor's snapshot and a shard that wants it as new as this may agree.
pub async fn catch_up(edge: &Edge, newer: Newer) {
    let (now, snapshot) = (edge.runtime.mono(), edge.snapshot());
    if newer.is_met_by(&snapshot) {
        edge.runtime.sleep_until(now.plus(SHARD_WAIT)).await;
    } else {
        let patience = if snapshot.generation < newer.generation { MOVE_WAIT } else { SNAPSHOT_WAIT };
        let published = async { drop(edge.snapshot_at(newer).await) };
        or(published, edge.runtime.sleep_until(now.plus(patience))).await;
    }
}

/// Kafka's code for what a shard said of a partition: one that is gone from the snapshot is unknown, not moved.
pub fn code(snapshot: &ClusterSnapshot, partition: PartitionId, error: &PartitionError) -> i16 {
    match error {
        error if error.is_elsewhere() && !snapshot.topics_by_id.contains_key(&partition.topic) => {
            ResponseError::UnknownTopicOrPartition.code()
        }
        error => error.code(),
    }
}

/// The partition that a request names, if it exists.
///
/// # Errors
/// 3 when the topic or the index is unknown.
pub fn locate(snapshot: &ClusterSnapshot, topic: &str, index: i32) -> Result<PartitionId, ResponseError> {
    let view = snapshot.topics.get(topic).filter(|view| (0..view.partitions).contains(&index));
    view.map(|view| PartitionId { topic: view.id, index }).ok_or(ResponseError::UnknownTopicOrPartition)
}

/// A leader epoch of a request; -1 (and anything below 0) is none.
pub fn leader_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

/// What shards answer for one partition each.
pub type Results<R> = Vec<Result<R, PartitionError>>;

/// Asks the owners of `parts` and gives their answers in the order of `parts`.
///
/// `request` makes the message for one shard; `open` takes the answers out of its reply. A shard that is gone answers
/// [`PartitionError::Unavailable`] for each of its parts.
pub async fn ask<P: Copy, R>(
    edge: &Edge,
    parts: &[(PartitionId, P)],
    request: impl Fn(Vec<(PartitionId, P)>, ReplyTo) -> Request,
    open: impl Fn(Reply) -> Option<Results<R>>,
) -> Results<R> {
    let mut results: Vec<Option<Result<R, PartitionError>>> = parts.iter().map(|_| None).collect();
    let mut places: Vec<usize> = (0..parts.len()).collect();
    for attempt in 0.. {
        for (place, result) in ask_once(edge, parts, places, &request, &open).await {
            results[place] = Some(result);
        }
        let moved = |result: &Option<Result<R, PartitionError>>| {
            result.as_ref().is_some_and(|result| result.as_ref().is_err_and(PartitionError::is_elsewhere))
        };
        let errors = results.iter().flatten().filter_map(|result| result.as_ref().err());
        let Some(newer) = newest_move(errors).filter(|_| attempt < MOVED_RETRIES) else { break };
        catch_up(edge, newer).await;
        let snapshot = edge.snapshot();
        let exists = |place: &usize| snapshot.topics_by_id.contains_key(&parts[*place].0.topic);
        places = (0..parts.len()).filter(|place| moved(&results[*place])).filter(exists).collect();
        if places.is_empty() {
            break;
        }
    }
    results.into_iter().map(|result| result.expect("every part was asked at least once")).collect()
}

async fn ask_once<P: Copy, R>(
    edge: &Edge,
    parts: &[(PartitionId, P)],
    places: Vec<usize>,
    request: &impl Fn(Vec<(PartitionId, P)>, ReplyTo) -> Request,
    open: &impl Fn(Reply) -> Option<Results<R>>,
) -> Vec<(usize, Result<R, PartitionError>)> {
    let snapshot = edge.snapshot();
    let mut by_shard: BTreeMap<ShardId, Vec<usize>> = BTreeMap::new();
    for place in places {
        by_shard.entry(snapshot.owner(parts[place].0)).or_default().push(place);
    }
    let _permits = permits(edge, &by_shard).await;
    let (lane, answers) = flume::unbounded();
    for (shard, places) in &by_shard {
        let parts = places.iter().map(|place| parts[*place]).collect();
        let reply = ReplyTo::new(lane.clone(), u64::from(shard.0));
        edge.shard(*shard).send(request(parts, reply));
    }
    let mut results = Vec::new();
    while !by_shard.is_empty() {
        let Answer { slot, reply } = answers.recv_async().await.expect("this end holds a sender too");
        let shard = ShardId(u16::try_from(slot).expect("slots are shard ids here"));
        let Some(places) = by_shard.remove(&shard) else { continue };
        match open(reply) {
            Some(answered) => {
                assert_eq!(answered.len(), places.len(), "a shard answers for each part");
                results.extend(places.into_iter().zip(answered));
            }
            None => results.extend(places.into_iter().map(|place| (place, Err(PartitionError::Unavailable)))),
        }
    }
    results
}
