//! One read: which blocks it needs, and the answer it makes of them. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex};
use thalweg_record::{Batch, BatchError, Offset, PartitionId};

use super::{
    ColdError,
    ahead::Trail,
    cache::{Cache, Content, Unit},
    rounds::Want,
};
use crate::meta::{CommittedObject, ObjectId};

/// What a read asks for; see `ColdRead`.
#[derive(Clone, Debug)]
pub(super) struct ReadAsk {
    pub(super) partition: PartitionId,
    pub(super) objects: Rc<[Rc<CommittedObject>]>,
    pub(super) offset: Offset,
    pub(super) up_to: Offset,
    pub(super) max_bytes: u32,
    pub(super) at_least_one: bool,
}

impl ReadAsk {
    /// What its reader reads along, from `from` on, behind `more_bytes` that are asked for.
    pub(super) fn trail(&self, from: Offset, more_bytes: u64) -> Trail {
        let (partition, objects, up_to) = (self.partition, self.objects.clone(), self.up_to);
        Trail { partition, objects, up_to, from, more_bytes }
    }
}

/// Where a job stands.
#[derive(Debug)]
pub(super) enum Step {
    /// It waits for these units too (besides those it named earlier).
    Waits(Vec<Want>),
    /// All that will come is here: its answer can be made.
    Ready,
}

/// What a read came to.
#[derive(Debug)]
pub(super) struct Batches {
    /// The batches, in order.
    pub(super) pieces: Vec<Bytes>,
    /// The offset after the last of them.
    pub(super) next: Offset,
}

#[derive(Debug)]
struct Slot {
    unit: Unit,
    block: BlockEntry,
    bytes: Option<Bytes>,
}

/// A read in progress. It holds on to the blocks it was given, so that a small cache cannot take them away again.
#[derive(Debug)]
pub(super) struct ReadJob {
    pub(super) ask: ReadAsk,
    next_object: usize,
    /// Those it asked for that are here.
    indexes: BTreeMap<ObjectId, Rc<BlockIndex>>,
    /// Those it asked for that are not.
    indexes_due: BTreeSet<ObjectId>,
    /// The first object whose index will not come.
    ends_at: Option<(usize, ColdError)>,
    planned: bool,
    planned_bytes: u64,
    slots: VecDeque<Slot>,
    ready: bool,
    answer: Batches,
    answer_bytes: usize,
    failed: Option<ColdError>,
}

impl ReadJob {
    pub(super) fn new(ask: ReadAsk) -> ReadJob {
        // Nothing may be handed out: nothing is planned.
        let planned = ask.max_bytes == 0 && !ask.at_least_one;
        let answer = Batches { pieces: Vec::new(), next: ask.offset };
        ReadJob {
            ask,
            next_object: 0,
            indexes: BTreeMap::new(),
            indexes_due: BTreeSet::new(),
            ends_at: None,
            planned,
            planned_bytes: 0,
            slots: VecDeque::new(),
            ready: false,
            answer,
            answer_bytes: 0,
            failed: None,
        }
    }

    /// Goes as far as the cache and what was delivered allow.
    pub(super) fn advance(&mut self, cache: &mut Cache) -> Step {
        let mut wants = Vec::new();
        while !self.planned {
            let Some(object) = self.ask.objects.get(self.next_object).cloned() else {
                self.planned = true;
                break;
            };
            if object.base >= self.ask.up_to {
                self.planned = true;
                break;
            }
            if let Some((_, error)) = self.ends_at.take_if(|(at, _)| *at == self.next_object) {
                self.fail(error);
                break;
            }
            let Some(index) = self.indexes.remove(&object.object).or_else(|| cache.index(object.object)) else {
                self.ask_indexes(cache, &mut wants);
                break;
            };
            self.plan_object(&object, &index, cache, &mut wants);
        }
        // Once: an index that it did not need after all may still come.
        if self.ready || !self.planned || self.slots.iter().any(|slot| slot.bytes.is_none()) {
            return Step::Waits(wants);
        }
        self.ready = true;
        Step::Ready
    }

    /// Asks for the next object's index, and for those that the answer takes as well for sure: one by one they would cost a
    /// round trip each.
    fn ask_indexes(&mut self, cache: &Cache, wants: &mut Vec<Want>) {
        let mut bytes = self.planned_bytes;
        for at in self.next_object..self.ask.objects.len() {
            let object = &self.ask.objects[at];
            let wanted = at == self.next_object || bytes < u64::from(self.ask.max_bytes);
            if !wanted || object.base >= self.ask.up_to {
                return;
            }
            bytes += object.size_bytes;
            let here = self.indexes.contains_key(&object.object) || cache.contains(Unit::Index(object.object));
            if !here && self.indexes_due.insert(object.object) {
                wants.push(Want { partition: self.ask.partition, object: object.clone(), block: None });
            }
        }
    }

    /// Plans the object's blocks until the answer is full.
    fn plan_object(
        &mut self,
        object: &Rc<CommittedObject>,
        index: &BlockIndex,
        cache: &mut Cache,
        wants: &mut Vec<Want>,
    ) {
        self.next_object += 1;
        let from = self.ask.offset.max(object.base);
        let blocks = index.from_offset(self.ask.partition, from);
        if blocks.is_empty() && object.last >= from {
            self.fail(ColdError::Storage(format!("{} does not hold what was committed with it", object.key)));
            return;
        }
        for block in blocks {
            let full = !self.slots.is_empty() && self.planned_bytes >= u64::from(self.ask.max_bytes);
            if full || block.base >= self.ask.up_to {
                self.planned = true;
                return;
            }
            self.planned_bytes += bytes_from(block, self.ask.offset);
            let unit = Unit::Block(object.object, block.position);
            let bytes = cache.block(object.object, block.position);
            if bytes.is_none() {
                let object = object.clone();
                wants.push(Want { partition: self.ask.partition, object, block: Some(*block) });
            }
            self.slots.push_back(Slot { unit, block: *block, bytes });
        }
    }

    /// A unit it waits for is here.
    pub(super) fn deliver(&mut self, unit: Unit, content: &Content) {
        match content {
            Content::Index(index) => {
                if let Unit::Index(object) = unit {
                    self.indexes_due.remove(&object);
                    self.indexes.insert(object, index.clone());
                }
            }
            Content::Block(bytes) => {
                self.slots
                    .iter_mut()
                    .filter(|slot| slot.unit == unit)
                    .for_each(|slot| slot.bytes = Some(bytes.clone()));
            }
        }
    }

    /// A unit it waits for will not come: what lies before it can still be handed out.
    pub(super) fn unit_failed(&mut self, unit: Unit, error: ColdError) {
        if let Unit::Index(object) = unit {
            let at = self.ask.objects.iter().position(|o| o.object == object).unwrap_or(self.next_object);
            if self.ends_at.as_ref().is_none_or(|(end, _)| at < *end) {
                self.ends_at = Some((at, error));
            }
            return;
        }
        if let Some(at) = self.slots.iter().position(|slot| slot.unit == unit) {
            self.slots.truncate(at);
        }
        self.fail(error);
    }

    fn fail(&mut self, error: ColdError) {
        self.planned = true;
        self.failed.get_or_insert(error);
    }

    /// Makes the answer, one block at a time: to find where batches end takes a look at each, and small ones are many.
    /// `None` as long as there are more.
    pub(super) fn cut_next(&mut self) -> Option<Result<Batches, ColdError>> {
        if let Some(slot) = self.slots.pop_front() {
            let block = slot.bytes.expect("a job that is ready waits for nothing");
            match self.cut(&slot.block, &block) {
                Ok(true) => self.slots.clear(),
                Ok(false) => {}
                Err(_) => return Some(Err(ColdError::Storage("a block that is not batches".to_owned()))),
            }
            if !self.slots.is_empty() {
                return None;
            }
        }
        let nothing = Batches { pieces: Vec::new(), next: self.ask.offset };
        let answer = std::mem::replace(&mut self.answer, nothing);
        Some(match self.failed.take() {
            Some(error) if answer.pieces.is_empty() => Err(error),
            _ => Ok(answer),
        })
    }

    /// Adds what fits of one block, as one slice of it; true when nothing more fits.
    fn cut(&mut self, entry: &BlockEntry, block: &Bytes) -> Result<bool, BatchError> {
        let wanted = entry.from_offset(block, self.ask.offset).map_err(|_| BatchError::Truncated)?;
        let (mut rest, mut taken, mut full) = (wanted.clone(), 0, false);
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest)?;
            let first = self.answer_bytes == 0 && self.ask.at_least_one;
            let fits = first || self.answer_bytes + batch.size_bytes() <= self.ask.max_bytes as usize;
            if !fits || batch.head.base_offset() >= self.ask.up_to {
                full = true;
                break;
            }
            self.answer_bytes += batch.size_bytes();
            taken += batch.size_bytes();
            self.answer.next = batch.head.last_offset().next();
        }
        if taken > 0 {
            self.answer.pieces.push(wanted.slice(..taken));
        }
        Ok(full)
    }
}

/// About how many of the block's bytes lie at or after `offset`, by its share of the offsets; at least 1.
fn bytes_from(block: &BlockEntry, offset: Offset) -> u64 {
    let all = (block.last.0 - block.base.0).unsigned_abs() + 1;
    let wanted = (block.last.0 - offset.max(block.base).0).unsigned_abs() + 1;
    (u128::from(block.size_bytes) * u128::from(wanted) / u128::from(all)).max(1) as u64
}
