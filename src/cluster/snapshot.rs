//! Immutable views of the cluster, published by the control actor to every shard's edge.
//!
//! A snapshot is never changed after it is published; holders compare `revision` and ignore older ones.

use std::{collections::BTreeMap, sync::Arc};

use ahash::AHashMap;
use thalweg_record::{LeaderEpoch, NodeId, PartitionId, ShardId, TopicId};
use thalweg_shards::msg::{Generation, PartitionSettings};

use super::{access::ScramCredentials, altered::Altered};
use crate::auth::AclRules;

/// Partitions that are on another shard than their identity says, and which. Only looked up.
pub type MovedPartitions = AHashMap<PartitionId, ShardId>;

/// Everything a connection needs to know of the cluster.
#[derive(Debug)]
pub struct ClusterSnapshot {
    /// Metadata revision; only grows.
    pub revision: u64,
    /// Kafka's cluster id: a UUID in 22 characters of URL-safe base64.
    pub cluster_id: Arc<str>,
    /// This broker.
    pub broker: BrokerView,
    /// Leader epoch of all that it serves.
    pub leader_epoch: LeaderEpoch,
    /// Number of shards of this broker.
    pub shards: u16,
    /// How often owners have changed since the start.
    pub generation: Generation,
    /// Partitions that are not where their identity puts them.
    pub moved: Arc<MovedPartitions>,
    /// Topics by name, ordered.
    pub topics: BTreeMap<Arc<str>, Arc<TopicView>>,
    /// The same topics by id.
    pub topics_by_id: BTreeMap<TopicId, Arc<TopicView>>,
    /// Settings that were altered while the broker ran, but those of topics.
    pub altered: Arc<Altered>,
    /// Access rules.
    pub acls: Arc<AclRules>,
    /// SCRAM credentials.
    pub scram: Arc<ScramCredentials>,
}

/// A newer snapshot on its way to one shard's edge.
#[derive(Debug)]
pub struct SnapshotUpdate {
    /// The snapshot.
    pub snapshot: Arc<ClusterSnapshot>,
    /// To be signalled when the edge uses it from now on: control answers a change only after every edge did.
    pub taken: flume::Sender<()>,
}

/// A broker as clients see it.
#[derive(Clone, Debug)]
pub struct BrokerView {
    /// `node.id`.
    pub node: NodeId,
    /// Advertised host.
    pub host: Arc<str>,
    /// Advertised port.
    pub port: u16,
    /// `broker.rack`.
    pub rack: Option<Arc<str>>,
}

/// A topic as clients see it.
#[derive(Debug)]
pub struct TopicView {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: TopicId,
    /// Number of partitions, >= 1.
    pub partitions: i32,
    /// Leader epoch of all its partitions.
    pub leader_epoch: LeaderEpoch,
    /// Kafka's internal flag.
    pub internal: bool,
    /// Its settings.
    pub settings: TopicSettings,
}

/// A topic's settings: what was set by name, and what is in force.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    /// Settings that the topic overrides, by Kafka's name, as text.
    pub overrides: BTreeMap<String, String>,
    /// The values in force in the shards.
    pub effective: PartitionSettings,
}

impl ClusterSnapshot {
    /// The shard that owns a partition of this broker: where it was moved to, else where its identity puts it. Holders of snapshots of one
    /// generation agree.
    pub fn owner(&self, partition: PartitionId) -> ShardId {
        let moved = if self.moved.is_empty() { None } else { self.moved.get(&partition) };
        moved.copied().unwrap_or_else(|| owner_shard(partition, self.shards))
    }
}

/// Where a partition lies unless it was moved: spread by index within a topic, and by id among topics, so that the partitions of one topic
/// lie on as many shards as there are. A pure function of identity and shard count.
pub fn owner_shard(partition: PartitionId, shards: u16) -> ShardId {
    let start = u64::from_le_bytes(std::array::from_fn(|i| partition.topic.0[i] ^ partition.topic.0[i + 8]));
    let slot = start.wrapping_add(partition.index as u64) % u64::from(shards);
    ShardId(slot as u16)
}
