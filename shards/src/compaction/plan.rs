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

    fn objects(&self) -> impl Iterator<Item = ObjectId> {
        self.parts.iter().map(|part| part.object)
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
    /// Uploads' parts: of each partition all that is no older than what was compacted of it, in any order of partitions.
    pub fresh: Vec<Stretch>,
    /// Parts that lie in objects of which less than half is live, each alone.
    pub dying: Vec<Stretch>,
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

/// The next thing to do; `None` when there is nothing.
pub(super) fn plan(config: &CompactionConfig, mut field: Field) -> Option<Plan> {
    field.fresh.sort_by_key(|stretch| (stretch.partition, stretch.base()));
    field.dying.sort_by_key(|stretch| (stretch.parts[0].object, stretch.partition));
    split(config, &field.dying).or_else(|| {
        let fresh: Vec<Stretch> = field.fresh.iter().filter_map(|stretch| worth_moving(config, stretch)).collect();
        major(config, &fresh).or_else(|| minor(config, &fresh))
    })
}

/// The first run of a stretch's parts that are not as large alone already as compaction would make them.
fn worth_moving(config: &CompactionConfig, stretch: &Stretch) -> Option<Stretch> {
    let large =
        |part: &CommittedObject| part.size_bytes >= config.output_bytes && part.size_bytes >= part.object_bytes / 2;
    let run = stretch.parts.split(|part| large(part)).find(|run| !run.is_empty())?;
    Some(Stretch { partition: stretch.partition, parts: run.to_vec() })
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

/// What lies in the oldest uploads, when there are enough of them.
fn minor(config: &CompactionConfig, fresh: &[Stretch]) -> Option<Plan> {
    let mut waiting: BTreeSet<ObjectId> = fresh.iter().flat_map(Stretch::objects).collect();
    let window = config.objects.clamp(2, CompactionConfig::MAX_INPUTS);
    if waiting.len() < window {
        return None;
    }
    if let Some(first_beyond) = waiting.iter().nth(window).copied() {
        waiting.split_off(&first_beyond);
    }
    let mut found: Vec<Stretch> = Vec::new();
    for stretch in fresh {
        // Two uploads may have taken their ids the other way round: what lies between goes along.
        let last = stretch.objects().rposition(&waiting);
        found.extend(last.and_then(|last| stretch.cut(last + 1)));
    }
    let (own, shared): (Vec<Stretch>, Vec<Stretch>) =
        found.into_iter().partition(|stretch| stretch.bytes() >= config.split_bytes.min(config.output_bytes));
    if let Some(stretch) = own.into_iter().next() {
        return Some(Plan { kind: Kind::Minor, stretches: vec![stretch] });
    }
    let (mut bytes, mut inputs) = (0, BTreeSet::new());
    let mut stretches: Vec<Stretch> = Vec::new();
    for stretch in shared {
        let more: BTreeSet<ObjectId> = stretch.objects().filter(|object| !inputs.contains(object)).collect();
        let full = bytes >= config.output_bytes || inputs.len() + more.len() > CompactionConfig::MAX_INPUTS;
        if full && !stretches.is_empty() {
            break;
        }
        inputs.extend(more);
        bytes += stretch.bytes();
        stretches.push(stretch);
    }
    (!stretches.is_empty()).then_some(Plan { kind: Kind::Minor, stretches })
}

trait LastAmong: Iterator<Item = ObjectId> + Sized {
    /// Place of the last one that is in `set`.
    fn rposition(self, set: &BTreeSet<ObjectId>) -> Option<usize> {
        self.enumerate().filter(|(_, object)| set.contains(object)).last().map(|(place, _)| place)
    }
}

impl<I: Iterator<Item = ObjectId>> LastAmong for I {}

#[cfg(test)]
mod tests;
