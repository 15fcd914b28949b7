//! The partitions of one shard: found by identity through a hash, walked in a fixed order.

use ahash::AHashMap;
use thalweg_record::PartitionId;

use crate::partition::Partition;

/// Open partitions. The hash map is only looked up; walks follow the slots, so no hash reaches an action.
#[derive(Debug, Default)]
pub struct Partitions {
    slots: Vec<Option<Partition>>,
    free: Vec<usize>,
    by_id: AHashMap<PartitionId, usize>,
}

impl Partitions {
    /// Adds a partition; an open one of the same identity is replaced.
    pub fn insert(&mut self, partition: Partition) {
        let id = partition.id;
        let slot = self.by_id.get(&id).copied().or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(partition);
        self.by_id.insert(id, slot);
    }

    /// Takes a partition out.
    pub fn remove(&mut self, id: &PartitionId) -> Option<Partition> {
        let slot = self.by_id.remove(id)?;
        self.free.push(slot);
        self.slots[slot].take()
    }

    /// Looks a partition up.
    pub fn get(&self, id: &PartitionId) -> Option<&Partition> {
        self.slots[*self.by_id.get(id)?].as_ref()
    }

    /// Looks a partition up, to change it.
    pub fn get_mut(&mut self, id: &PartitionId) -> Option<&mut Partition> {
        self.slots[*self.by_id.get(id)?].as_mut()
    }

    /// All of them, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.slots.iter().flatten()
    }

    /// Shows those in `count` slots from `from` on; answers where to go on, until the last slot was seen.
    pub fn page(&self, from: usize, count: usize, show: impl FnMut(&Partition)) -> Option<usize> {
        let until = from.saturating_add(count).min(self.slots.len());
        self.slots.get(from..until).into_iter().flatten().flatten().for_each(show);
        (until < self.slots.len()).then_some(until)
    }

    /// All of them, to change, in slot order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.slots.iter_mut().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}
