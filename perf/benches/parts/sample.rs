//! Batches and partitions to work on.

use std::fmt;

use thalweg_perf::client::batch::batch;
use thalweg_record::{Batch, LeaderEpoch, Offset, PartitionId, TopicId};

/// Records of a batch, and bytes of each value.
#[derive(Clone, Copy)]
pub struct Shape(pub u32, pub u32);

/// 64 KiB in three ways, and a lone record.
pub const SHAPES: [Shape; 4] = [Shape(1, 1024), Shape(1, 64 << 10), Shape(64, 1024), Shape(655, 100)];

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {} B", self.0, self.1)
    }
}

impl Shape {
    /// A batch of this shape, as a producer sends it.
    pub fn batch(self) -> Batch {
        let mut encoded = batch(self.0, self.1).expect("encodes");
        Batch::split_from(&mut encoded).expect("one batch")
    }
}

/// A partition of the one topic.
pub fn partition(index: i32) -> PartitionId {
    PartitionId { topic: TopicId([7; 16]), index }
}

/// The batch with offsets from `base` on, as a shard stamps it.
pub fn stamped(batch: &Batch, base: i64) -> Batch {
    let mut batch = batch.clone();
    batch.head.stamp(Offset(base), LeaderEpoch(1));
    batch
}
