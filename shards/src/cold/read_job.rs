//! One read: which blocks it needs, and the answer it makes of them. Pure.

use std::rc::Rc;

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex};
use thalweg_record::{Batch, BatchError, Offset, PartitionId};

use super::{
    ColdError,
    cache::{Cache, Content, Unit},
    rounds::Want,
};
use crate::meta::CommittedObject;

/// What a read asks for; see `ColdRead`.
#[derive(Clone, Debug)]
pub(super) struct ReadAsk {
    pub(super) partition: PartitionId,
    pub(super) objects: Vec<Rc<CommittedObject>>,
    pub(super) offset: Offset,
    pub(super) up_to: Offset,
    pub(super) max_bytes: u32,
    pub(super) at_least_one: bool,
}

/// Where a job stands.
#[derive(Debug)]
pub(super) enum Step<T> {
    /// It waits for these units too (besides those it named earlier).
    Waits(Vec<Want>),
    /// It is over.
    Done(Result<T, ColdError>),
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
    index: Option<Rc<BlockIndex>>,
    index_asked: bool,
    planned: bool,
    planned_bytes: u64,
    slots: Vec<Slot>,
    failed: Option<ColdError>,
}

impl ReadJob {
    pub(super) fn new(ask: ReadAsk) -> ReadJob {
        // Nothing may be handed out: nothing is planned.
        let planned = ask.max_bytes == 0 && !ask.at_least_one;
        ReadJob {
            ask,
            next_object: 0,
            index: None,
            index_asked: false,
            planned,
            planned_bytes: 0,
            slots: Vec::new(),
            failed: None,
        }
    }

    /// Goes as far as the cache and what was delivered allow.
    pub(super) fn advance(&mut self, cache: &mut Cache) -> Step<Batches> {
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
            let Some(index) = self.index.take().or_else(|| cache.index(object.object)) else {
                if !self.index_asked {
                    self.index_asked = true;
                    wants.push(Want { partition: self.ask.partition, object, block: None });
                }
                break;
            };
            self.index_asked = false;
            self.plan_object(&object, &index, cache, &mut wants);
        }
        if !self.planned || self.slots.iter().any(|slot| slot.bytes.is_none()) {
            return Step::Waits(wants);
        }
        Step::Done(self.finish())
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
            self.slots.push(Slot { unit, block: *block, bytes });
        }
    }

    /// A unit it waits for is here.
    pub(super) fn deliver(&mut self, unit: Unit, content: &Content) {
        match content {
            Content::Index(index) => self.index = Some(index.clone()),
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
        if let Some(at) = self.slots.iter().position(|slot| slot.unit == unit) {
            self.slots.truncate(at);
        }
        self.fail(error);
    }

    fn fail(&mut self, error: ColdError) {
        self.planned = true;
        self.failed.get_or_insert(error);
    }

    fn finish(&mut self) -> Result<Batches, ColdError> {
        let mut answer = Batches { pieces: Vec::new(), next: self.ask.offset };
        let mut total = 0;
        for slot in std::mem::take(&mut self.slots) {
            let block = slot.bytes.expect("a finished job waits for nothing");
            let full = self
                .cut(&slot.block, &block, &mut total, &mut answer)
                .map_err(|_| ColdError::Storage("a block that is not batches".to_owned()))?;
            if full {
                break;
            }
        }
        match self.failed.take() {
            Some(error) if answer.pieces.is_empty() => Err(error),
            _ => Ok(answer),
        }
    }

    /// Adds what fits of one block, as one slice of it; true when nothing more fits.
    fn cut(
        &self,
        entry: &BlockEntry,
        block: &Bytes,
        total: &mut usize,
        answer: &mut Batches,
    ) -> Result<bool, BatchError> {
        let wanted = entry.from_offset(block, self.ask.offset).map_err(|_| BatchError::Truncated)?;
        let (mut rest, mut taken, mut full) = (wanted.clone(), 0, false);
        while !rest.is_empty() {
            let batch = Batch::split_from(&mut rest)?;
            let first = *total == 0 && self.ask.at_least_one;
            let fits = first || *total + batch.size_bytes() <= self.ask.max_bytes as usize;
            if !fits || batch.head.base_offset() >= self.ask.up_to {
                full = true;
                break;
            }
            *total += batch.size_bytes();
            taken += batch.size_bytes();
            answer.next = batch.head.last_offset().next();
        }
        if taken > 0 {
            answer.pieces.push(wanted.slice(..taken));
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
