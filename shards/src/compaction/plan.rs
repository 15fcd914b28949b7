//! What to compact, decided without doing it. Pure.
//!
//! Uploads (level 0) wait until there is enough of them, then each of their bytes is copied once:
//!
//! - **Major**: a partition that has `output_bytes` in uploads gets an object of its own.
//! - **Minor**: when `objects` uploads wait, everything in them is merged: a partition with `split_bytes` there into an object
//!   of its own, the others, by partition, into shared objects of `output_bytes`. So a partition's part of *all* these uploads lies
//!   in one object.
//! - **Split**: an object that compaction made, and of which less than half is live, is left by what is live in it. That copies
//!   bytes again, but never more than died before.
//!
//! What compaction made (level 1 and more) is no input of the first two. Each plan makes one object from at most
//! [`CompactionConfig::MAX_INPUTS`] others, and takes a partition's oldest uploads first, so that what is left is a suffix.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use thalweg_record::{Offset, PartitionId, Wall};

use super::CompactionConfig;
use crate::meta::{CommittedObject, ObjectId};

/// Why something is compacted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Minor,
    Major,
    Split,
}

/// Contiguous parts of one partition, by offset; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub partition: PartitionId,
    pub parts: Vec<Rc<CommittedObject>>,
}

impl Stretch {
    pub(super) fn base(&self) -> Offset {
        self.parts[0].base
    }

    pub(super) fn last(&self) -> Offset {
        self.parts[self.parts.len() - 1].last
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.size_bytes).sum()
    }

    pub(super) fn max_timestamp(&self) -> Wall {
        self.parts.iter().map(|part| part.max_timestamp).max().unwrap_or(Wall(-1))
    }

    /// The first of its parts, as many as `keep` says, and no more than a plan may read.
    fn cut(&self, keep: usize) -> Option<Stretch> {
        let parts = self.parts[..keep.min(CompactionConfig::MAX_INPUTS)].to_vec();
        (!parts.is_empty()).then_some(Stretch { partition: self.partition, parts })
    }
}

/// What a shard's partitions have in objects that matter.
#[derive(Clone, Default, Debug)]
pub(super) struct Field {
    /// Uploads' parts: of each partition the oldest of what is no older than what was compacted of it, in any order of partitions.
    pub fresh: Vec<Stretch>,
    /// Parts that lie in objects of which less than half is live, each alone.
    pub dying: Vec<Stretch>,
    /// Objects that did not read right not long ago: they are left alone.
    pub avoid: Rc<BTreeSet<ObjectId>>,
    /// Bytes of all uploads' parts that wait, shown here or not: what decides how fast they are copied.
    pub waiting_bytes: u64,
}

/// Parts of a partition that are looked at, the oldest that may move: some plans' worth, so that a store which grew for months before
/// costs no more.
const PARTS_SHOWN: usize = 4 * CompactionConfig::MAX_INPUTS;

impl Field {
    /// Adds a partition's uploads, all that is no older than what was compacted of it, of `bytes` altogether.
    pub(super) fn add_uploads<'a>(
        &mut self,
        config: &CompactionConfig,
        partition: PartitionId,
        bytes: u64,
        uploads: impl Iterator<Item = &'a Rc<CommittedObject>>,
    ) {
        let mut uploads = uploads.peekable();
        // As large as compaction would make it, it stays.
        let mut stay = 0;
        while let Some(part) = uploads.next_if(|part| config.is_large(part)) {
            stay += part.size_bytes;
        }
        let parts: Vec<Rc<CommittedObject>> = uploads.take(PARTS_SHOWN).cloned().collect();
        stay += parts.iter().filter(|part| config.is_large(part)).map(|part| part.size_bytes).sum::<u64>();
        self.waiting_bytes += bytes.saturating_sub(stay);
        if !parts.is_empty() {
            self.fresh.push(Stretch { partition, parts });
        }
    }
}

/// One object to make: of each partition one stretch, by partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    pub kind: Kind,
    pub stretches: Vec<Stretch>,
}

impl Plan {
    pub(super) fn bytes(&self) -> u64 {
        self.stretches.iter().map(Stretch::bytes).sum()
    }

    pub(super) fn inputs(&self) -> BTreeMap<ObjectId, Rc<CommittedObject>> {
        let parts = self.stretches.iter().flat_map(|stretch| &stretch.parts);
        parts.map(|part| (part.object, part.clone())).collect()
    }
}

/// The next thing to do; `None` when there is nothing. It looks at each part a few times and copies none that it does not take, for
/// nothing else runs on the core meanwhile.
pub(super) fn plan(config: &CompactionConfig, field: Field) -> Option<Plan> {
    let Field { fresh, mut dying, avoid, waiting_bytes: _ } = field;
    dying.retain(|stretch| !avoid.contains(&stretch.parts[0].object));
    dying.sort_by_key(|stretch| (stretch.parts[0].object, stretch.partition));
    split(config, &dying).or_else(|| {
        let enough = config.objects.clamp(2, CompactionConfig::MAX_INPUTS);
        // What an object cuts off that cannot be read is not to wait for more: before that object nothing more will come.
        let cut_short = !avoid.is_empty() && oldest(config, &fresh, enough).len() == enough;
        let worth_moving = |stretch| worth_moving(config, &avoid, stretch);
        let mut fresh: Vec<Stretch> = fresh.into_iter().filter_map(worth_moving).collect();
        fresh.sort_by_key(|stretch| (stretch.partition, stretch.base()));
        major(config, &fresh).or_else(|| {
            let mut oldest = oldest(config, &fresh, enough);
            let is_enough = oldest.len() >= if cut_short { 2 } else { enough };
            minor(config, &fresh, oldest.pop_last().filter(|_| is_enough)?)
        })
    })
}

/// The first run of a stretch's parts that can be read, and are not as large alone already as compaction would make them; of more than one
/// part, if there is such a run, for what stands alone between two others has nothing to wait for.
fn worth_moving(config: &CompactionConfig, avoid: &BTreeSet<ObjectId>, mut stretch: Stretch) -> Option<Stretch> {
    let stays = |part: &Rc<CommittedObject>| config.is_large(part) || avoid.contains(&part.object);
    let (mut found, mut from) = (None, 0);
    while from < stretch.parts.len() {
        let len = stretch.parts[from..].iter().take_while(|part| !stays(part)).count();
        if len > 1 || (len == 1 && found.is_none()) {
            found = Some(from..from + len);
        }
        if len > 1 {
            break;
        }
        from += len + 1;
    }
    let run = found?;
    stretch.parts.truncate(run.end);
    stretch.parts.drain(..run.start);
    Some(stretch)
}

/// What is live of the first object that is mostly dead, as far as one object holds it.
fn split(config: &CompactionConfig, dying: &[Stretch]) -> Option<Plan> {
    let object = dying.first()?.parts[0].object;
    let mut bytes = 0;
    let mut stretches: Vec<Stretch> = Vec::new();
    for stretch in dying.iter().take_while(|stretch| stretch.parts[0].object == object) {
        // A partition has one range in an object of ours; more of them would not be one stretch.
        if bytes >= config.output_bytes || stretches.last().is_some_and(|last| last.partition == stretch.partition) {
            break;
        }
        bytes += stretch.bytes();
        stretches.push(stretch.clone());
    }
    Some(Plan { kind: Kind::Split, stretches })
}

/// The first partition that fills an object.
fn major(config: &CompactionConfig, fresh: &[Stretch]) -> Option<Plan> {
    fresh.iter().find_map(|stretch| {
        let mut bytes = 0;
        let enough = stretch.parts.iter().take(CompactionConfig::MAX_INPUTS).position(|part| {
            bytes += part.size_bytes;
            bytes >= config.output_bytes
        })?;
        Some(Plan { kind: Kind::Major, stretches: vec![stretch.cut(enough + 1)?] })
    })
}

/// What lies in uploads up to the `newest`, and in what lies between.
fn minor(config: &CompactionConfig, fresh: &[Stretch], newest: ObjectId) -> Option<Plan> {
    // Each with how many of its parts go.
    let mut shared: Vec<(&Stretch, usize)> = Vec::new();
    for stretch in fresh {
        // Two uploads may have taken their ids the other way round: what lies between goes along.
        let Some(last) = stretch.parts.iter().rposition(|part| part.object <= newest) else { continue };
        let keep = (last + 1).min(CompactionConfig::MAX_INPUTS);
        let bytes: u64 = stretch.parts[..keep].iter().map(|part| part.size_bytes).sum();
        if bytes >= config.split_bytes.min(config.output_bytes) {
            return Some(Plan { kind: Kind::Minor, stretches: vec![stretch.cut(keep)?] });
        }
        shared.push((stretch, keep));
    }
    let (mut bytes, mut inputs) = (0, BTreeSet::new());
    let mut stretches: Vec<Stretch> = Vec::new();
    for (stretch, keep) in shared {
        let parts = &stretch.parts[..keep];
        let more: BTreeSet<ObjectId> =
            parts.iter().map(|part| part.object).filter(|object| !inputs.contains(object)).collect();
        let full = bytes >= config.output_bytes || inputs.len() + more.len() > CompactionConfig::MAX_INPUTS;
        if full && !stretches.is_empty() {
            break;
        }
        inputs.extend(more);
        bytes += parts.iter().map(|part| part.size_bytes).sum::<u64>();
        stretches.extend(stretch.cut(keep));
    }
    (!stretches.is_empty()).then_some(Plan { kind: Kind::Minor, stretches })
}

/// The oldest uploads that may move, at most `count`.
fn oldest(config: &CompactionConfig, fresh: &[Stretch], count: usize) -> BTreeSet<ObjectId> {
    let mut oldest: BTreeSet<ObjectId> = BTreeSet::new();
    for part in fresh.iter().flat_map(|stretch| &stretch.parts).filter(|part| !config.is_large(part)) {
        if oldest.len() < count || oldest.last().is_some_and(|newest| part.object < *newest) {
            oldest.insert(part.object);
            if oldest.len() > count {
                oldest.pop_last();
            }
        }
    }
    oldest
}

#[cfg(test)]
mod tests;
