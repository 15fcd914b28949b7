//! From the catalog to what others see: snapshots for the edges, specs for the shards.

use std::{collections::BTreeMap, sync::Arc};

use thalweg_record::{LeaderEpoch, PartitionId, ShardId, TopicId};
use thalweg_shards::msg::{CleanerTuning, Generation, PartitionSpec};

use super::{
    access::ScramCredentials,
    altered::Altered,
    broker_config,
    catalog::Topic,
    ledger::Ledger,
    open::{Cluster, ClusterSettings},
    snapshot::{BrokerView, ClusterSnapshot, MovedPartitions, TopicSettings, TopicView, owner_shard},
    topic_config::BrokerDefaults,
};
use crate::auth::AclRules;

/// The newest snapshot, to be changed topic by topic; unchanged topics are shared between snapshots.
pub(super) struct Views {
    cluster_id: Arc<str>,
    broker: BrokerView,
    shards: u16,
    pub(super) leader_epoch: LeaderEpoch,
    /// As the settings say that were read at the start.
    pub(super) producer_expiration_ms: u64,
    /// The same.
    pub(super) cleaner: CleanerTuning,
    /// With what was altered of them.
    pub(super) defaults: BrokerDefaults,
    altered: Arc<Altered>,
    topics: BTreeMap<Arc<str>, Arc<TopicView>>,
    topics_by_id: BTreeMap<TopicId, Arc<TopicView>>,
    acls: Arc<AclRules>,
    scram: Arc<ScramCredentials>,
    /// How often owners have changed.
    pub(super) generation: Generation,
    moved: Arc<MovedPartitions>,
    /// Whether a partition may have something in the log of a shard that does not own it.
    pub(super) some_moved: bool,
}

impl Views {
    /// Views of all topics of `ledger`.
    pub(super) fn new(ledger: &Ledger, cluster_id: &Arc<str>, settings: &ClusterSettings) -> Views {
        let mut views = Views {
            cluster_id: cluster_id.clone(),
            broker: settings.broker.clone(),
            shards: settings.shards,
            leader_epoch: LeaderEpoch(ledger.epoch()),
            producer_expiration_ms: settings.producer_expiration_ms,
            cleaner: settings.cleaner,
            defaults: altered_defaults(&settings.defaults, &ledger.catalog.altered),
            altered: ledger.catalog.altered.clone(),
            topics: BTreeMap::new(),
            topics_by_id: BTreeMap::new(),
            acls: Arc::default(),
            scram: Arc::default(),
            generation: Generation(0),
            moved: Arc::new(ledger.moved()),
            some_moved: ledger.catalog.loans || !ledger.catalog.owners.is_empty(),
        };
        views.set_acls(ledger);
        views.set_scram(ledger);
        ledger.catalog.topics.iter().for_each(|(id, topic)| views.set(*id, topic));
        views
    }

    /// A topic is new or changed.
    pub(super) fn set(&mut self, id: TopicId, topic: &Topic) {
        let effective = self.defaults.effective(&topic.overrides);
        let view = Arc::new(TopicView {
            name: topic.name.clone(),
            id,
            partitions: topic.partitions.len() as i32,
            leader_epoch: self.leader_epoch,
            internal: topic.internal,
            settings: TopicSettings { overrides: topic.overrides.clone(), effective },
        });
        self.topics.insert(topic.name.clone(), view.clone());
        self.topics_by_id.insert(id, view);
    }

    /// Settings of something else than a topic were altered. Answers the topics for which other values are in force now.
    pub(super) fn alter(&mut self, ledger: &Ledger) -> Vec<TopicId> {
        self.altered = ledger.catalog.altered.clone();
        self.defaults = altered_defaults(&self.defaults, &self.altered);
        let other = |(id, topic): (&TopicId, &Topic)| {
            let before = &self.topics_by_id[id].settings.effective;
            (self.defaults.effective(&topic.overrides) != *before).then_some(*id)
        };
        let changed: Vec<TopicId> = ledger.catalog.topics.iter().filter_map(other).collect();
        changed.iter().for_each(|id| self.set(*id, &ledger.catalog.topics[id]));
        changed
    }

    /// Owners have changed.
    pub(super) fn set_owners(&mut self, ledger: &Ledger, generation: Generation) {
        (self.generation, self.moved, self.some_moved) = (generation, Arc::new(ledger.moved()), true);
    }

    /// The shard that owns a partition.
    pub(super) fn owner(&self, partition: PartitionId) -> ShardId {
        self.moved.get(&partition).copied().unwrap_or_else(|| owner_shard(partition, self.shards))
    }

    /// A topic is deleted.
    pub(super) fn remove(&mut self, id: TopicId) {
        if let Some(view) = self.topics_by_id.remove(&id) {
            self.topics.remove(&view.name);
        }
    }

    /// Rules have changed.
    pub(super) fn set_acls(&mut self, ledger: &Ledger) {
        self.acls = Arc::new(AclRules::new(ledger.catalog.acls.keys().cloned().collect()));
    }

    /// Credentials have changed.
    pub(super) fn set_scram(&mut self, ledger: &Ledger) {
        self.scram = Arc::new(ledger.catalog.scram.clone());
    }

    /// The snapshot as of `revision`.
    pub(super) fn snapshot(&self, revision: u64) -> Arc<ClusterSnapshot> {
        Arc::new(ClusterSnapshot {
            revision,
            cluster_id: self.cluster_id.clone(),
            broker: self.broker.clone(),
            leader_epoch: self.leader_epoch,
            shards: self.shards,
            generation: self.generation,
            moved: self.moved.clone(),
            topics: self.topics.clone(),
            topics_by_id: self.topics_by_id.clone(),
            altered: self.altered.clone(),
            acls: self.acls.clone(),
            scram: self.scram.clone(),
        })
    }
}

fn altered_defaults(defaults: &BrokerDefaults, altered: &Altered) -> BrokerDefaults {
    BrokerDefaults { altered: broker_config::of_topics(altered), ..defaults.clone() }
}

impl Cluster {
    pub(super) fn views(&self) -> Views {
        Views::new(&self.ledger, &self.cluster_id, &self.settings)
    }

    /// The snapshot to start with.
    pub fn snapshot(&self) -> Arc<ClusterSnapshot> {
        self.views().snapshot(self.ledger.store().revision().0)
    }

    /// The partitions that each shard has to open, by shard id; in force at the revision of [`Cluster::snapshot`].
    pub fn partitions(&self) -> Vec<Vec<PartitionSpec>> {
        let mut shards = vec![Vec::new(); usize::from(self.settings.shards)];
        let defaults = altered_defaults(&self.settings.defaults, &self.ledger.catalog.altered);
        for (id, topic) in &self.ledger.catalog.topics {
            let settings = defaults.effective(&topic.overrides);
            for index in 0..topic.partitions.len() as i32 {
                let partition = PartitionId { topic: *id, index };
                let spec = self.ledger.catalog.spec(partition, self.node_epoch(), settings.clone());
                let owner = self.ledger.catalog.owner(partition, self.settings.shards);
                shards[usize::from(owner.0)].extend(spec);
            }
        }
        shards
    }
}
