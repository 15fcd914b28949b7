//! What to read ahead of a reader in sequence: the blocks within its window, and the indexes without which those behind them
//! are not known. Pure.
//!
//! Blocks are asked for in order, so they end where the first index is missing; the indexes of all objects that begin within
//! the window are asked for at once, or a reader over many small objects would wait for each in turn.

use std::rc::Rc;

use thalweg_record::{Offset, PartitionId};

use super::{
    cache::Cache,
    readers::WantedTo,
    rounds::{INDEX_COST_BYTES, Want},
};
use crate::meta::{CommittedObject, ObjectId};

/// What a reader reads along.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) partition: PartitionId,
    /// The committed objects that its last read was shown.
    pub(super) objects: Rc<[Rc<CommittedObject>]>,
    /// Nothing behind this offset is read.
    pub(super) up_to: Offset,
    /// Where the window begins.
    pub(super) from: Offset,
    /// Bytes from there that somebody waits for anyway; the window begins behind them.
    pub(super) more_bytes: u64,
}

/// What to fetch ahead.
#[derive(Debug)]
pub(super) struct Ahead {
    /// In order.
    pub(super) wants: Vec<Want>,
    /// Up to where all is asked for now.
    pub(super) wanted_to: WantedTo,
    /// The object whose index is missing; with it there is more to ask for.
    pub(super) awaits: Option<ObjectId>,
}

impl Trail {
    /// What lies within `window_bytes` and was not `wanted` before.
    pub(super) fn ahead(&self, window_bytes: u64, wanted: WantedTo, cache: &mut Cache) -> Ahead {
        let mut ahead = Ahead { wants: Vec::new(), wanted_to: wanted, awaits: None };
        let mut left = window_bytes + self.more_bytes;
        let reached = self.objects.iter().filter(|o| o.last >= self.from && o.base < self.up_to);
        for (n, object) in reached.enumerate() {
            let index = cache.index(object.object);
            if let (Some(index), None) = (&index, ahead.awaits) {
                // That of the first is there for the read itself.
                left = left.saturating_sub(if n == 0 { 0 } else { index.size_bytes() as u64 });
                for block in index.from_offset(self.partition, self.from) {
                    let size = u64::from(block.size_bytes);
                    if size > left || block.base >= self.up_to {
                        return ahead;
                    }
                    left -= size;
                    if block.last >= ahead.wanted_to.blocks {
                        ahead.wants.push(self.want(object, Some(*block)));
                        ahead.wanted_to.blocks = block.last.next();
                    }
                }
                continue;
            }
            if left == 0 {
                return ahead;
            }
            if index.is_none() {
                ahead.awaits.get_or_insert(object.object);
                if object.last >= ahead.wanted_to.indexes {
                    ahead.wants.push(self.want(object, None));
                    ahead.wanted_to.indexes = object.last.next();
                }
            }
            left = left.saturating_sub(object.size_bytes + INDEX_COST_BYTES.min(object.object_bytes));
        }
        ahead
    }

    fn want(&self, object: &Rc<CommittedObject>, block: Option<thalweg_objectstore::format::BlockEntry>) -> Want {
        Want { partition: self.partition, object: object.clone(), block }
    }
}
