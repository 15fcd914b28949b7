//! Indexes and runs of blocks in memory, bounded by bytes, the least recently used thrown out first. Pure.
//!
//! A run is what one request fetched: blocks side by side in one buffer. It stays and goes as a whole, because one slice
//! of it would keep all its memory alive.

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex};

use crate::meta::ObjectId;

/// What can be fetched and cached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Unit {
    /// The index of an object.
    Index(ObjectId),
    /// The block at a position of an object.
    Block(ObjectId, u64),
}

/// A unit's content.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// A parsed index.
    Index(Rc<BlockIndex>),
    /// A block whose CRC is right.
    Block(Bytes),
}

#[derive(Debug)]
struct Entry {
    used: u64,
    size_bytes: u64,
    units: Vec<(Unit, Content)>,
}

/// The cache of one core.
#[derive(Debug)]
pub(super) struct Cache {
    limit_bytes: u64,
    size_bytes: u64,
    clock: u64,
    next_entry: u64,
    entries: BTreeMap<u64, Entry>,
    units: BTreeMap<Unit, u64>,
    by_use: BTreeMap<u64, u64>,
    hits: u64,
    misses: u64,
}

impl Cache {
    pub(super) fn new(limit_bytes: u64) -> Cache {
        Cache {
            limit_bytes,
            size_bytes: 0,
            clock: 0,
            next_entry: 0,
            entries: BTreeMap::new(),
            units: BTreeMap::new(),
            by_use: BTreeMap::new(),
            hits: 0,
            misses: 0,
        }
    }

    pub(super) fn contains(&self, unit: Unit) -> bool {
        self.units.contains_key(&unit)
    }

    /// The unit, which counts as used.
    pub(super) fn get(&mut self, unit: Unit) -> Option<Content> {
        let id = *self.units.get(&unit)?;
        self.clock += 1;
        let entry = self.entries.get_mut(&id).expect("a known unit has an entry");
        self.by_use.remove(&entry.used);
        entry.used = self.clock;
        self.by_use.insert(self.clock, id);
        entry.units.iter().find(|(u, _)| *u == unit).map(|(_, content)| content.clone())
    }

    /// The index of an object, which counts as used.
    pub(super) fn index(&mut self, object: ObjectId) -> Option<Rc<BlockIndex>> {
        match self.get(Unit::Index(object))? {
            Content::Index(index) => Some(index),
            Content::Block(_) => None,
        }
    }

    /// The block at `position`, which counts as used.
    pub(super) fn block(&mut self, object: ObjectId, position: u64) -> Option<Bytes> {
        match self.get(Unit::Block(object, position)) {
            Some(Content::Block(block)) => {
                self.hits += 1;
                Some(block)
            }
            _ => {
                self.misses += 1;
                None
            }
        }
    }

    /// Bytes held, and blocks asked for since the last call: found, and not found.
    pub(super) fn take_figures(&mut self) -> (u64, u64, u64) {
        (self.size_bytes, std::mem::take(&mut self.hits), std::mem::take(&mut self.misses))
    }

    pub(super) fn insert_index(&mut self, object: ObjectId, index: &Rc<BlockIndex>) {
        let size_bytes = index.size_bytes() as u64;
        self.insert(size_bytes, vec![(Unit::Index(object), Content::Index(index.clone()))]);
    }

    /// Takes a run: `blocks` side by side in `run`.
    pub(super) fn insert_run(&mut self, object: ObjectId, blocks: &[BlockEntry], run: &Bytes) {
        self.insert(run.len() as u64, split_run(object, blocks, run));
    }

    fn insert(&mut self, size_bytes: u64, units: Vec<(Unit, Content)>) {
        if size_bytes > self.limit_bytes {
            return;
        }
        while self.size_bytes + size_bytes > self.limit_bytes {
            let (_, oldest) = self.by_use.pop_first().expect("what is accounted for is listed");
            self.remove(oldest);
        }
        self.clock += 1;
        self.next_entry += 1;
        let id = self.next_entry;
        // A unit fetched twice is found in the newer entry; the older one goes when its turn comes.
        self.units.extend(units.iter().map(|(unit, _)| (*unit, id)));
        self.by_use.insert(self.clock, id);
        self.size_bytes += size_bytes;
        self.entries.insert(id, Entry { used: self.clock, size_bytes, units });
    }

    fn remove(&mut self, id: u64) {
        let entry = self.entries.remove(&id).expect("a listed entry is there");
        self.size_bytes -= entry.size_bytes;
        for (unit, _) in entry.units {
            if self.units.get(&unit) == Some(&id) {
                self.units.remove(&unit);
            }
        }
    }
}

/// The blocks of a run, each a slice of it.
pub(super) fn split_run(object: ObjectId, blocks: &[BlockEntry], run: &Bytes) -> Vec<(Unit, Content)> {
    let start = blocks.first().map_or(0, |b| b.position);
    let slice = |b: &BlockEntry| {
        let from = (b.position - start) as usize;
        run.slice(from..from + b.size_bytes as usize)
    };
    blocks.iter().map(|b| (Unit::Block(object, b.position), Content::Block(slice(b)))).collect()
}

#[cfg(test)]
mod tests {
    use thalweg_record::{LeaderEpoch, Offset, PartitionId, Wall};

    use super::*;

    fn block(position: u64, size_bytes: u32) -> BlockEntry {
        BlockEntry {
            partition: PartitionId::default(),
            leader_epoch: LeaderEpoch(0),
            base: Offset(0),
            last: Offset(0),
            records: 1,
            max_timestamp: Wall(0),
            max_timestamp_base: Offset(0),
            position,
            size_bytes,
            crc: 0,
        }
    }

    fn run(cache: &mut Cache, object: u64, position: u64, sizes: &[u32]) {
        let mut blocks = Vec::new();
        let mut at = position;
        for size in sizes {
            blocks.push(block(at, *size));
            at += u64::from(*size);
        }
        let bytes: Bytes = (position..at).map(|b| b as u8).collect();
        cache.insert_run(ObjectId(object), &blocks, &bytes);
    }

    #[test]
    fn runs_come_and_go_as_a_whole() {
        let mut cache = Cache::new(100);
        run(&mut cache, 1, 10, &[20, 20]);
        run(&mut cache, 2, 0, &[40]);
        assert_eq!(cache.block(ObjectId(1), 30).as_deref(), Some(&(30..50u8).collect::<Vec<_>>()[..]));
        run(&mut cache, 3, 0, &[40]);
        assert!(!cache.contains(Unit::Block(ObjectId(2), 0)), "the least recently used goes");
        assert!(cache.contains(Unit::Block(ObjectId(1), 10)), "the other block of a used run stays");
        run(&mut cache, 4, 0, &[101]);
        assert!(!cache.contains(Unit::Block(ObjectId(4), 0)), "what exceeds the limit is not kept");
        assert_eq!(cache.size_bytes, 80);
    }

    #[test]
    fn a_unit_fetched_twice_is_accounted_twice_until_the_older_goes() {
        let mut cache = Cache::new(100);
        run(&mut cache, 1, 0, &[40]);
        run(&mut cache, 1, 0, &[40]);
        assert_eq!(cache.size_bytes, 80);
        run(&mut cache, 2, 0, &[60]);
        assert!(cache.contains(Unit::Block(ObjectId(1), 0)), "the newer copy is still known");
        run(&mut cache, 3, 0, &[90]);
        assert!(!cache.contains(Unit::Block(ObjectId(1), 0)));
        assert_eq!((cache.size_bytes, cache.units.len(), cache.by_use.len()), (90, 1, 1));
    }
}
