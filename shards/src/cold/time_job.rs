//! One look-up by time: from the index to the block, from the block to the record. Pure.

use std::rc::Rc;

use bytes::Bytes;
use thalweg_objectstore::format::{BlockEntry, BlockIndex};
use thalweg_record::{Offset, PartitionId, Wall};

use super::{
    ColdError,
    cache::{Cache, Content, Unit},
    rounds::Want,
};
use crate::{meta::CommittedObject, records::FoundTime};

/// What a look-up asks for; see `ColdFindTime`.
#[derive(Clone, Debug)]
pub(super) struct TimeAsk {
    pub(super) partition: PartitionId,
    pub(super) objects: Vec<Rc<CommittedObject>>,
    pub(super) time: Wall,
    pub(super) from: Offset,
    pub(super) up_to: Offset,
}

/// Where a look-up stands.
#[derive(Debug)]
pub(super) enum TimeStep {
    /// It waits for this unit too.
    Waits(Option<Want>),
    /// The records of this block must be walked from an offset on; the answer comes back through `searched`.
    Search(Bytes, Offset),
    /// It is over.
    Done(Result<Option<FoundTime>, ColdError>),
}

#[derive(Debug)]
enum State {
    /// Looks for the next block in `objects[object]`.
    Index { asked: bool },
    /// Waits for this block.
    Block(BlockEntry, Unit),
    /// Its records are being walked.
    Searching(BlockEntry),
    /// It is over.
    Over(Result<Option<FoundTime>, ColdError>),
}

/// A look-up in progress.
#[derive(Debug)]
pub(super) struct TimeJob {
    ask: TimeAsk,
    object: usize,
    index: Option<Rc<BlockIndex>>,
    delivered: Option<Bytes>,
    state: State,
}

impl TimeJob {
    pub(super) fn new(ask: TimeAsk) -> TimeJob {
        TimeJob { ask, object: 0, index: None, delivered: None, state: State::Index { asked: false } }
    }

    /// Goes as far as the cache and what was delivered allow.
    pub(super) fn advance(&mut self, cache: &mut Cache) -> TimeStep {
        loop {
            match &mut self.state {
                State::Over(result) => return TimeStep::Done(result.clone()),
                State::Searching(_) => return TimeStep::Waits(None),
                State::Block(block, _) => {
                    let Some(bytes) = self.delivered.take() else { return TimeStep::Waits(None) };
                    let from = self.ask.from;
                    self.state = State::Searching(*block);
                    return TimeStep::Search(bytes, from);
                }
                State::Index { asked } => {
                    let Some(object) = self.ask.objects.get(self.object).cloned() else {
                        self.state = State::Over(Ok(None));
                        continue;
                    };
                    if object.base >= self.ask.up_to {
                        self.state = State::Over(Ok(None));
                        continue;
                    }
                    let Some(index) = self.index.take().or_else(|| cache.index(object.object)) else {
                        let first = !std::mem::replace(asked, true);
                        let want = Want { partition: self.ask.partition, object, block: None };
                        return TimeStep::Waits(first.then_some(want));
                    };
                    if let Some(want) = self.next_block(&object, &index, cache) {
                        return TimeStep::Waits(Some(want));
                    }
                }
            }
        }
    }

    /// Chooses the object's next block that reaches the time, or goes on to the next object.
    fn next_block(&mut self, object: &Rc<CommittedObject>, index: &BlockIndex, cache: &mut Cache) -> Option<Want> {
        let Some(block) = index.find_time(self.ask.partition, self.ask.from, self.ask.time) else {
            self.object += 1;
            self.state = State::Index { asked: false };
            return None;
        };
        if block.base >= self.ask.up_to {
            self.state = State::Over(Ok(None));
            return None;
        }
        self.state = State::Block(*block, Unit::Block(object.object, block.position));
        self.delivered = cache.block(object.object, block.position);
        let missing = self.delivered.is_none();
        missing.then(|| Want { partition: self.ask.partition, object: object.clone(), block: Some(*block) })
    }

    /// A unit it waits for is here.
    pub(super) fn deliver(&mut self, unit: Unit, content: &Content) {
        match (content, &self.state) {
            (Content::Index(index), State::Index { .. }) => self.index = Some(index.clone()),
            (Content::Block(bytes), State::Block(_, waited)) if *waited == unit => self.delivered = Some(bytes.clone()),
            _ => {}
        }
    }

    /// A unit it waits for will not come.
    pub(super) fn unit_failed(&mut self, error: ColdError) {
        self.state = State::Over(Err(error));
    }

    /// What walking the block's records found.
    pub(super) fn searched(&mut self, found: Option<FoundTime>) {
        let State::Searching(block) = &self.state else { return };
        match found {
            Some(found) => self.state = State::Over(Ok(Some(found).filter(|f| f.offset < self.ask.up_to))),
            // The greatest timestamp belongs to a record before `from`: look behind this block.
            None => {
                self.ask.from = block.last.next();
                self.state = State::Index { asked: false };
            }
        }
    }

    /// The time looked for.
    pub(super) fn time(&self) -> Wall {
        self.ask.time
    }
}
