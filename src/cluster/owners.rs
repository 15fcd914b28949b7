//! Which shard of this broker owns a partition that was moved.
//!
//! What is recorded here is a hint: at a start the logs decide, for the shard whose log goes on furthest is the owner. The hint keeps
//! those partitions where they were that have nothing in any log. So nobody waits for it to be durable, and a rebuild may lose it.

use thalweg_record::{PartitionId, ShardId};

use super::{
    error::ClusterError,
    keys,
    ledger::{Fault, Ledger},
    open::Cluster,
    schema::{self, OwnerRow},
    snapshot::{MovedPartitions, owner_shard},
    store::Write,
};

impl Ledger {
    /// Records to which shards partitions have moved; durable after the next sync. Answers the revision.
    pub(super) fn set_owners(&mut self, moves: &[(PartitionId, ShardId)]) -> Result<u64, Fault> {
        let shards = self.shards();
        let write = |(id, to): &(PartitionId, ShardId)| match owner_shard(*id, shards) == *to {
            true => Write::Delete(keys::owner(*id)),
            false => Write::Put(keys::owner(*id), schema::encode(&OwnerRow { shard: to.0, shards })),
        };
        let writes: Vec<Write> = moves.iter().map(write).collect();
        let revision = self.write(vec![], &writes)?;
        for (id, to) in moves {
            match owner_shard(*id, shards) == *to {
                true => drop(self.catalog.owners.remove(id)),
                false => drop(self.catalog.owners.insert(*id, OwnerRow { shard: to.0, shards })),
            }
        }
        Ok(revision.0)
    }

    /// All partitions that are not where their identity puts them.
    pub(super) fn moved(&self) -> MovedPartitions {
        let shards = self.shards();
        let moved = |id: &PartitionId| Some((*id, self.catalog.moved_to(*id, shards)?));
        self.catalog.owners.keys().filter_map(moved).collect()
    }
}

impl Cluster {
    /// Records who owns partitions, as the logs tell; durable after the next sync.
    ///
    /// # Errors
    /// The store fails, or this broker's epoch is fenced.
    pub fn record_owners(&mut self, owners: &[(PartitionId, ShardId)]) -> Result<(), ClusterError> {
        self.ledger.set_owners(owners)?;
        self.ledger.catalog.loans = true;
        Ok(())
    }

    /// The writes that forget who owned what under another shard count.
    pub(super) fn outdated_owners(&self) -> Vec<Write> {
        let outdated = self.ledger.catalog.owners.iter().filter(|(_, row)| row.shards != self.settings.shards);
        outdated.map(|(id, _)| Write::Delete(keys::owner(*id))).collect()
    }
}
