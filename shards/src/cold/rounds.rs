//! Whose turn it is: deficit round robin over connections, in bytes (Shreedhar and Varghese, 1995). Pure.
//!
//! A connection spends credit on what it fetches and gets more each time its turn comes and it has too little; so those
//! who want large blocks wait for more turns, and everybody gets the same bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use thalweg_objectstore::format::BlockEntry;
use thalweg_record::PartitionId;

use super::cache::Unit;
use crate::{meta::CommittedObject, msg::ConnId};

/// What an index is taken to cost before its size is known.
pub(super) const INDEX_COST_BYTES: u64 = 64 * 1024;

/// One unit somebody wants.
#[derive(Clone, Debug)]
pub(super) struct Want {
    /// For whom, to take readahead back.
    pub(super) partition: PartitionId,
    /// The object it is in.
    pub(super) object: Rc<CommittedObject>,
    /// Which block; none: the object's index.
    pub(super) block: Option<BlockEntry>,
}

impl Want {
    pub(super) fn unit(&self) -> Unit {
        self.block.map_or(Unit::Index(self.object.object), |b| Unit::Block(self.object.object, b.position))
    }

    fn cost_bytes(&self) -> u64 {
        self.block.map_or(INDEX_COST_BYTES, |b| u64::from(b.size_bytes))
    }

    /// Whether `next` begins where this block ends.
    fn touches(&self, next: &Want) -> bool {
        match (self.block, next.block) {
            (Some(a), Some(b)) => {
                self.object.object == next.object.object && a.position + u64::from(a.size_bytes) == b.position
            }
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
struct Turn {
    wants: VecDeque<Want>,
    credit_bytes: u64,
}

/// Wants of all connections of one class.
#[derive(Debug)]
pub(super) struct Rounds {
    run_bytes: u64,
    order: VecDeque<ConnId>,
    turns: BTreeMap<ConnId, Turn>,
}

impl Rounds {
    /// Rounds in which a connection gets `run_bytes` each time, and one request fetches at most as much (or one unit).
    pub(super) fn new(run_bytes: u64) -> Rounds {
        Rounds { run_bytes: run_bytes.max(1), order: VecDeque::new(), turns: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, conn: ConnId, want: Want) {
        let turn = self.turns.entry(conn).or_insert_with(|| {
            self.order.push_back(conn);
            Turn::default()
        });
        turn.wants.push_back(want);
    }

    /// The next units to fetch with one request, and their bytes: side by side in one object. What is `stale` is dropped
    /// on the way. `None` when nothing is wanted, or the next does not `fit`; it keeps its turn then.
    pub(super) fn next(
        &mut self,
        stale: impl Fn(Unit) -> bool,
        fits: impl Fn(u64) -> bool,
    ) -> Option<(Vec<Want>, u64)> {
        loop {
            let conn = *self.order.front()?;
            let turn = self.turns.get_mut(&conn).expect("who is in order has wants");
            while turn.wants.front().is_some_and(|want| stale(want.unit())) {
                turn.wants.pop_front();
            }
            let Some(first) = turn.wants.front() else {
                self.turns.remove(&conn);
                self.order.pop_front();
                continue;
            };
            let mut bytes = first.cost_bytes();
            if turn.credit_bytes < bytes {
                turn.credit_bytes += self.run_bytes;
                self.order.rotate_left(1);
                continue;
            }
            if !fits(bytes) {
                return None;
            }
            let mut run = Vec::from_iter(turn.wants.pop_front());
            while let (Some(last), Some(next)) = (run.last(), turn.wants.front()) {
                let sum = bytes + next.cost_bytes();
                let joins = last.touches(next) && sum <= self.run_bytes.min(turn.credit_bytes);
                if !joins || stale(next.unit()) || !fits(sum) {
                    break;
                }
                bytes = sum;
                run.extend(turn.wants.pop_front());
            }
            turn.credit_bytes -= bytes;
            return Some((run, bytes));
        }
    }

    /// Takes back what `conn` wants of `partition`, or of all.
    pub(super) fn take_back(&mut self, conn: ConnId, partition: Option<PartitionId>) {
        if let Some(turn) = self.turns.get_mut(&conn) {
            turn.wants.retain(|want| partition.is_some_and(|p| p != want.partition));
        }
    }
}

#[cfg(test)]
mod tests {
    use thalweg_objectstore::{ObjectKey, format::BlockEntry};
    use thalweg_record::{LeaderEpoch, Offset, Wall};

    use super::*;
    use crate::meta::ObjectId;

    fn want(object: u64, position: u64, size_bytes: u32) -> Want {
        let committed = CommittedObject {
            object: ObjectId(object),
            key: ObjectKey::new("k").expect("a key"),
            object_bytes: 1,
            base: Offset(0),
            last: Offset(0),
            size_bytes: 1,
            max_timestamp: Wall(0),
            epoch: LeaderEpoch(0),
            level: 0,
        };
        let block = BlockEntry {
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
        };
        Want { partition: PartitionId::default(), object: Rc::new(committed), block: Some(block) }
    }

    fn units(run: Option<(Vec<Want>, u64)>) -> Vec<Unit> {
        run.map_or(Vec::new(), |(run, _)| run.iter().map(Want::unit).collect())
    }

    #[test]
    fn neighbours_are_fetched_together() {
        let mut rounds = Rounds::new(100);
        for (position, size) in [(0, 40), (40, 40), (80, 40), (200, 10)] {
            rounds.push(ConnId(1), want(7, position, size));
        }
        let at = |p| Unit::Block(ObjectId(7), p);
        assert_eq!(units(rounds.next(|_| false, |_| true)), [at(0), at(40)], "at most a run's bytes");
        assert_eq!(units(rounds.next(|_| false, |_| true)), [at(80)], "no gap is read");
        assert_eq!(units(rounds.next(|_| false, |_| true)), [at(200)]);
        assert_eq!(units(rounds.next(|_| false, |_| true)), []);
    }

    #[test]
    fn everybody_gets_the_same_bytes() {
        let mut rounds = Rounds::new(100);
        for n in 0..200 {
            rounds.push(ConnId(1), want(1, n * 1000, 300));
            rounds.push(ConnId(2), want(2, n * 1000, 50));
        }
        let mut bytes = BTreeMap::from([(1, 0u64), (2, 0u64)]);
        for _ in 0..100 {
            let (run, sum) = rounds.next(|_| false, |_| true).expect("more is wanted");
            *bytes.get_mut(&run[0].object.object.0).expect("object 1 or 2") += sum;
        }
        let difference = bytes[&1].abs_diff(bytes[&2]);
        assert!(difference <= 400, "{bytes:?}");
    }

    #[test]
    fn what_does_not_fit_keeps_its_turn_and_what_is_stale_loses_it() {
        let mut rounds = Rounds::new(100);
        rounds.push(ConnId(1), want(1, 0, 90));
        rounds.push(ConnId(2), want(2, 0, 10));
        assert!(rounds.next(|_| false, |bytes| bytes < 50).is_none(), "the small one must not starve the large one");
        assert_eq!(units(rounds.next(|_| false, |_| true)), [Unit::Block(ObjectId(1), 0)]);
        assert_eq!(units(rounds.next(|unit| unit == Unit::Block(ObjectId(2), 0), |_| true)), []);
        rounds.push(ConnId(3), want(3, 0, 10));
        rounds.take_back(ConnId(3), Some(PartitionId::default()));
        assert_eq!(units(rounds.next(|_| false, |_| true)), []);
        assert!(rounds.order.is_empty() && rounds.turns.is_empty());
    }
}
