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

/// A cold read is shown at least so many objects, if there are.
const LEAST_TO_READ: usize = 8;
/// And no more than this, or each read would clone too many: a multiple of what is fetched at once.
const MOST_TO_READ: usize = 64;
/// Between the two, objects with so many bytes of the partition: one answer, and the largest readahead behind it.
const BYTES_TO_READ: u64 = 40 << 20;

/// Committed objects in offset order.
#[derive(Debug, Default)]
pub struct ObjectList {
    objects: VecDeque<Rc<CommittedObject>>,
    /// Place of the first behind all that compaction made.
    uploads_from: usize,
}

impl ObjectList {
    /// A list as the metadata has it.
    pub fn new(objects: Vec<CommittedObject>) -> ObjectList {
        let uploads_from = objects.iter().rposition(|o| o.level > 0).map_or(0, |at| at + 1);
        ObjectList { objects: objects.into_iter().map(Rc::new).collect(), uploads_from }
    }

    /// Adds the newest.
    pub fn push(&mut self, object: CommittedObject) {
        if let Some(newest) = self.objects.back() {
            assert_eq!(newest.last.next(), object.base, "committed objects are contiguous");
        }
        self.objects.push_back(Rc::new(object));
    }

    /// Up to `limit` objects from the one that holds `offset` on.
    pub fn from(&self, offset: Offset, limit: usize) -> Vec<Rc<CommittedObject>> {
        let at = self.objects.partition_point(|o| o.last < offset);
        self.objects.range(at..).take(limit).cloned().collect()
    }

    /// What a cold read from `offset` on is shown: the object that holds it, and those behind it.
    pub fn to_read(&self, offset: Offset) -> Vec<Rc<CommittedObject>> {
        let at = self.objects.partition_point(|o| o.last < offset);
        let mut bytes = 0;
        let enough = |(n, object): (usize, &Rc<CommittedObject>)| {
            let more = n < LEAST_TO_READ || bytes < BYTES_TO_READ;
            bytes += object.size_bytes;
            more.then(|| object.clone())
        };
        self.objects.range(at..).take(MOST_TO_READ).enumerate().map_while(enough).collect()
    }

    /// Bytes of the objects from the one that holds `offset` on, counted until they reach `enough`.
    pub fn bytes_to_read(&self, offset: Offset, enough: u64) -> u64 {
        let at = self.objects.partition_point(|o| o.last < offset);
        let mut bytes = 0;
        for object in self.objects.range(at..).take(MOST_TO_READ) {
            if bytes >= enough {
                break;
            }
            bytes += object.size_bytes;
        }
        bytes
    }

    /// Up to `limit` objects from the first at or after `from` that reaches `time`, and on.
    pub fn reaching(&self, time: Wall, from: Offset, limit: usize) -> Vec<Rc<CommittedObject>> {
        let at = self.objects.partition_point(|o| o.last < from);
        self.objects.range(at..).filter(|o| o.max_timestamp >= time).take(limit).cloned().collect()
    }

    /// The first object with the greatest timestamp at or after `from`.
    pub fn max_timestamp(&self, from: Offset) -> Option<Rc<CommittedObject>> {
        self.objects
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
        while self.objects.front().is_some_and(|o| o.last < log_start) {
            self.objects.pop_front();
            self.uploads_from = self.uploads_from.saturating_sub(1);
        }
    }

    /// Puts an object in the place of those that it holds the records of. Those that retention took meanwhile stay away.
    pub fn replace(&mut self, object: CommittedObject) {
        let from = self.objects.partition_point(|o| o.base < object.base);
        let until = self.objects.partition_point(|o| o.last <= object.last);
        if from < until {
            let replaced: Vec<Rc<CommittedObject>> = self.objects.drain(from..until).collect();
            assert_eq!(replaced.last().map(|o| o.last), Some(object.last), "whole objects are replaced");
            if self.uploads_from > from {
                self.uploads_from = self.uploads_from.saturating_sub(until - from - 1).max(from + 1);
            } else if object.level > 0 {
                self.uploads_from = from + 1;
            }
            self.objects.insert(from, Rc::new(object));
        }
    }

    /// The newest, as far as they are uploads; oldest first.
    pub fn uploads(&self) -> impl Iterator<Item = &Rc<CommittedObject>> {
        self.objects.range(self.uploads_from..)
    }

    /// Those that are in `set`.
    pub fn among<'a>(&'a self, set: &'a BTreeSet<ObjectId>) -> impl Iterator<Item = Rc<CommittedObject>> + 'a {
        self.objects.iter().filter(|o| set.contains(&o.object)).cloned()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &CommittedObject> {
        self.objects.iter().map(|o| &**o)
    }

    /// Bytes of the partition in all of them.
    pub fn size_bytes(&self) -> u64 {
        self.objects.iter().map(|o| o.size_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use thalweg_objectstore::ObjectKey;
    use thalweg_record::LeaderEpoch;

    use super::*;

    fn object(id: u64, base: i64, last: i64, level: u32) -> CommittedObject {
        CommittedObject {
            object: ObjectId(id),
            key: ObjectKey::new(format!("k{id}")).expect("a key"),
            object_bytes: 1,
            base: Offset(base),
            last: Offset(last),
            size_bytes: 1,
            max_timestamp: Wall(0),
            epoch: LeaderEpoch(0),
            level,
        }
    }

    #[test]
    fn a_read_is_shown_what_its_readahead_may_reach() {
        let shown = |bytes: u64, from| {
            let of = |n: i64| CommittedObject { size_bytes: bytes, ..object(n as u64, n * 10, n * 10 + 9, 0) };
            ObjectList::new((0..200).map(of).collect()).to_read(Offset(from)).len()
        };
        assert_eq!(shown(64 << 20, 0), LEAST_TO_READ);
        assert_eq!(shown(1 << 20, 0), 40);
        assert_eq!(shown(1 << 10, 0), MOST_TO_READ);
        assert_eq!(shown(1 << 10, 1955), 5, "the last of them");
        let list = ObjectList::new((0..9).map(|n| object(n as u64, n * 10, n * 10 + 9, 0)).collect());
        assert_eq!((list.bytes_to_read(Offset(75), 9), list.bytes_to_read(Offset(0), 3)), (2, 3));
    }

    #[test]
    fn what_compaction_made_and_all_before_it_are_no_uploads() {
        let uploads = |list: &ObjectList| list.uploads().map(|o| o.object.0).collect::<Vec<_>>();
        let mut list = ObjectList::new((0..8).map(|n| object(n as u64, n * 10, n * 10 + 9, 0)).collect());
        assert_eq!(uploads(&list), [0, 1, 2, 3, 4, 5, 6, 7]);
        list.replace(object(10, 20, 39, 1));
        assert_eq!(uploads(&list), [4, 5, 6, 7], "0 and 1 stay as they are");
        list.replace(object(11, 0, 19, 1));
        assert_eq!(uploads(&list), [4, 5, 6, 7]);
        list.raise_start(Offset(25));
        assert_eq!(uploads(&list), [4, 5, 6, 7]);
        list.replace(object(12, 20, 39, 2));
        list.replace(object(13, 40, 59, 1));
        assert_eq!(uploads(&list), [6, 7]);
        list.push(object(14, 80, 89, 0));
        assert_eq!(uploads(&list), [6, 7, 14]);
        list.raise_start(Offset(75));
        assert_eq!(uploads(&list), [7, 14]);
        let anew = ObjectList::new(vec![object(1, 0, 9, 0), object(2, 10, 19, 1), object(3, 20, 29, 0)]);
        assert_eq!(uploads(&anew), [3]);
    }
}
