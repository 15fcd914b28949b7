//! Where logs were cut because loss was accepted (`--accept-loss`).
//!
//! What came after a gap stays in its slice until that is trimmed, which may be long after the start that left it out. The next start
//! must know that it counts no more, though nothing was appended in its place.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_record::{LeaderEpoch, Offset, PartitionId};

use super::{
    error::ClusterError,
    ledger::{Fault, Ledger},
    open::Cluster,
};

/// By partition, where it was cut, and the epoch that it goes on with: what earlier ones have from there on counts no more.
pub type Cuts = BTreeMap<PartitionId, (LeaderEpoch, Offset)>;

impl Ledger {
    /// Records where partitions are cut; durable after the next sync.
    fn cut(&mut self, cuts: &[(PartitionId, Offset)]) -> Result<(), Fault> {
        let epoch = LeaderEpoch(self.epoch());
        let mut cut = BTreeSet::new();
        for (id, at) in cuts {
            if let Some(partition) = self.catalog.partition_mut(*id) {
                partition.cut = Some((epoch, *at));
                cut.insert(*id);
            }
        }
        self.write_heads(vec![], vec![], &cut)
    }
}

impl Cluster {
    /// Records where logs are cut, from this run's epoch on; durable when this returns. Blocks.
    ///
    /// # Errors
    /// The store fails, or this broker's epoch is fenced.
    pub fn record_cuts(&mut self, cuts: &[(PartitionId, Offset)]) -> Result<(), ClusterError> {
        if cuts.is_empty() {
            return Ok(());
        }
        self.ledger.cut(cuts)?;
        Ok(self.ledger.store().sync()?)
    }

    /// Where logs were cut, by this run and by earlier ones.
    pub fn cuts(&self) -> Cuts {
        let mut cuts = Cuts::new();
        for (id, topic) in &self.ledger.catalog.topics {
            for (index, partition) in (0..).zip(&topic.partitions) {
                cuts.extend(partition.cut.map(|cut| (PartitionId { topic: *id, index }, cut)));
            }
        }
        cuts
    }
}

#[cfg(test)]
mod tests {
    use thalweg_shards::meta::CommitOutcome;

    use super::*;
    use crate::cluster::tests::{World, commit, run};

    #[test]
    fn every_later_run_knows_a_cut_as_long_as_there_is_the_topic() {
        let mut world = World::new();
        let running = run(world.open());
        let topic = running.create_one("t", 2);
        let partition = PartitionId { topic, index: 1 };
        let mut cluster = running.stop();
        cluster.record_cuts(&[(partition, Offset(7))]).expect("recorded");
        let known = Cuts::from([(partition, (cluster.node_epoch(), Offset(7)))]);
        assert_eq!(cluster.cuts(), known);
        world.store.crash();
        let cluster = world.open();
        assert_eq!(cluster.cuts(), known);
        let running = run(cluster);
        let committed = running.commit(commit(running.reserve(1), &[(partition, 0, 9)]));
        assert_eq!(committed, CommitOutcome::Committed);
        running.raise(partition, 8);
        drop(running.stop());
        let cluster = world.open();
        assert_eq!(cluster.cuts(), known);
        let running = run(cluster);
        assert_eq!(running.delete(topic), Ok(()));
        drop(running.stop());
        assert_eq!(world.open().cuts(), Cuts::new());
    }
}
