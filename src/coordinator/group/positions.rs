//! Where the groups that are in use stand, for consumer lag.

use std::{sync::Arc, time::Duration};

use thalweg_record::{PartitionId, ShardId, Wall};

use super::{partition::GroupPartition, state::Group};
use crate::cluster::ClusterSnapshot;

/// A group without members is in use for this long after its last commit.
pub const IN_USE: Duration = Duration::from_secs(3600);

/// A committed offset of a group that is in use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The group.
    pub group: Arc<str>,
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: PartitionId,
    /// The shard that owns it.
    pub owner: ShardId,
    /// What is committed.
    pub offset: i64,
}

/// Positions, as many as were asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Positions {
    /// By partition of `__consumer_offsets`, group, topic and partition.
    pub list: Vec<Position>,
    /// How many there are beyond.
    pub left_out: u64,
}

impl Positions {
    /// Adds those of `groups`, as long as the list has fewer than `limit`. Topics that `snapshot` lacks are gone.
    pub(super) fn collect(&mut self, groups: &GroupPartition, snapshot: &ClusterSnapshot, wall: Wall, limit: usize) {
        for group in groups.iter().filter(|group| group.is_in_use(wall)) {
            for (topic, offsets) in group.offsets.by_topic() {
                let Some(view) = snapshot.topics.get(topic) else { continue };
                for (index, committed) in offsets.range(..view.partitions) {
                    if self.list.len() >= limit {
                        self.left_out += 1;
                        continue;
                    }
                    let partition = PartitionId { topic: view.id, index: *index };
                    self.list.push(Position {
                        group: group.id.clone(),
                        topic: topic.clone(),
                        partition,
                        owner: snapshot.owner(partition),
                        offset: committed.offset,
                    });
                }
            }
        }
    }
}

impl Group {
    /// Whether somebody consumes with it: it has members, or committed not long ago.
    fn is_in_use(&self, wall: Wall) -> bool {
        let recent = |at: Wall| wall.0.saturating_sub(at.0) < IN_USE.as_millis() as i64;
        !self.members.is_empty() || self.last_commit.is_some_and(recent)
    }
}
