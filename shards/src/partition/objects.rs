//! The committed objects of a partition, by offset.
//!
//! Pure; owned by the partition. Ranges are contiguous and ascend; the list is shared with cold reads as it was when they
//! began.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use thalweg_record::{Offset, Wall};

use crate::meta::{CommittedObject, ObjectId};

/// Committed objects in offset order.
#[derive(Debug, Default)]
pub struct ObjectList(VecDeque<Rc<CommittedObject>>);

impl ObjectList {
    /// A list as the metadata has it.
    pub fn new(objects: Vec<CommittedObject>) -> ObjectList {
        ObjectList(objects.into_iter().map(Rc::new).collect())
    }

    /// Adds the newest.
    pub fn push(&mut self, object: CommittedObject) {
        if let Some(newest) = self.0.back() {
            assert_eq!(newest.last.next(), object.base, "committed objects are contiguous");
        }
        self.0.push_back(Rc::new(object));
    }

    /// Up to `limit` objects from the one that holds `offset` on.
    pub fn from(&self, offset: Offset, limit: usize) -> Vec<Rc<CommittedObject>> {
        let at = self.0.partition_point(|o| o.last < offset);
        self.0.range(at..).take(limit).cloned().collect()
    }

    /// Up to `limit` objects from the first at or after `from` that reaches `time`, and on.
    pub fn reaching(&self, time: Wall, from: Offset, limit: usize) -> Vec<Rc<CommittedObject>> {
        let at = self.0.partition_point(|o| o.last < from);
        self.0.range(at..).filter(|o| o.max_timestamp >= time).take(limit).cloned().collect()
    }

    /// The first object with the greatest timestamp at or after `from`.
    pub fn max_timestamp(&self, from: Offset) -> Option<Rc<CommittedObject>> {
        self.0
            .iter()
            .filter(|o| o.last >= from)
            .fold(None, |best: Option<&Rc<CommittedObject>>, o| match best {
                Some(b) if b.max_timestamp >= o.max_timestamp => Some(b),
                _ => Some(o),
            })
            .cloned()
    }

    /// Forgets the objects that end below `log_start`.
    pub fn raise_start(&mut self, log_start: Offset) {
        while self.0.front().is_some_and(|o| o.last < log_start) {
            self.0.pop_front();
        }
    }

    /// Puts an object in the place of those that it holds the records of. Those that retention took meanwhile stay away.
    pub fn replace(&mut self, object: CommittedObject) {
        let from = self.0.partition_point(|o| o.base < object.base);
        let until = self.0.partition_point(|o| o.last <= object.last);
        if from < until {
            let replaced: Vec<Rc<CommittedObject>> = self.0.drain(from..until).collect();
            assert_eq!(replaced.last().map(|o| o.last), Some(object.last), "whole objects are replaced");
            self.0.insert(from, Rc::new(object));
        }
    }

    /// The newest, as far as they are uploads; oldest first.
    pub fn uploads(&self) -> Vec<Rc<CommittedObject>> {
        let from = self.0.iter().rposition(|o| o.level > 0).map_or(0, |at| at + 1);
        self.0.range(from..).cloned().collect()
    }

    /// Those that are in `set`.
    pub fn among<'a>(&'a self, set: &'a BTreeSet<ObjectId>) -> impl Iterator<Item = Rc<CommittedObject>> + 'a {
        self.0.iter().filter(|o| set.contains(&o.object)).cloned()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &CommittedObject> {
        self.0.iter().map(|o| &**o)
    }

    /// Bytes of the partition in all of them.
    pub fn size_bytes(&self) -> u64 {
        self.0.iter().map(|o| o.size_bytes).sum()
    }
}
