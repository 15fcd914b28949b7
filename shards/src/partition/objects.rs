//! The committed objects of a partition, by offset; the oldest may be listed in manifests in the bucket.
//!
//! Pure; owned by the partition. Ranges are contiguous and ascend, those of manifests before those of objects; the list is shared with
//! cold reads as it was when they began. Of what a manifest lists nothing is known here but the sum.

use std::{
    collections::{BTreeSet, VecDeque},
    rc::Rc,
};

use thalweg_record::{Offset, Wall};

use crate::meta::{CommittedObject, ManifestRef, ObjectId};

/// What retention must know of an object, or of all that a manifest lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Its last offset.
    pub last: Offset,
    /// Bytes of the partition in it.
    pub size_bytes: u64,
    /// Its greatest timestamp.
    pub max_timestamp: Wall,
}

/// A cold read is shown at least so many objects, if there are.
const LEAST_TO_READ: usize = 8;
/// And no more than this, or each read would clone too many: a multiple of what is fetched at once.
const MOST_TO_READ: usize = 64;
/// Between the two, objects with so many bytes of the partition: one answer, and the largest readahead behind it.
const BYTES_TO_READ: u64 = 40 << 20;

/// Of `objects`, which are in offset order, those that a cold read of the first is shown.
pub fn to_read<'a>(objects: impl Iterator<Item = &'a Rc<CommittedObject>>) -> Vec<Rc<CommittedObject>> {
    let mut bytes = 0;
    let enough = |(n, object): (usize, &Rc<CommittedObject>)| {
        let more = n < LEAST_TO_READ || bytes < BYTES_TO_READ;
        bytes += object.size_bytes;
        more.then(|| object.clone())
    };
    objects.take(MOST_TO_READ).enumerate().map_while(enough).collect()
}

/// Committed objects in offset order.
#[derive(Debug, Default)]
pub struct ObjectList {
    /// Lists of those before the objects.
    manifests: VecDeque<Rc<ManifestRef>>,
    objects: VecDeque<Rc<CommittedObject>>,
    /// Place of the first behind all that compaction made.
    uploads_from: usize,
    /// Bytes of the partition from there on.
    uploads_bytes: u64,
}

impl ObjectList {
    /// A list as the metadata has it.
    pub fn new(manifests: Vec<ManifestRef>, objects: Vec<CommittedObject>) -> ObjectList {
        let uploads_from = objects.iter().rposition(|o| o.level > 0).map_or(0, |at| at + 1);
        let uploads_bytes = objects[uploads_from..].iter().map(|o| o.size_bytes).sum();
        let manifests = manifests.into_iter().map(Rc::new).collect();
        ObjectList { manifests, objects: objects.into_iter().map(Rc::new).collect(), uploads_from, uploads_bytes }
    }

    /// Adds the newest.
    pub fn push(&mut self, object: CommittedObject) {
        if let Some(newest) = self.objects.back() {
            assert_eq!(newest.last.next(), object.base, "committed objects are contiguous");
        }
        self.uploads_bytes += object.size_bytes;
        self.objects.push_back(Rc::new(object));
    }

    /// The manifest that lists what holds `offset`.
    pub fn manifest_of(&self, offset: Offset) -> Option<Rc<ManifestRef>> {
        let at = self.manifests.partition_point(|m| m.last < offset);
        self.manifests.get(at).cloned()
    }

    /// Up to `limit` manifests that list something at or after `from`, and reach `time`.
    pub fn manifests_reaching(&self, time: Wall, from: Offset, limit: usize) -> Vec<Rc<ManifestRef>> {
        self.manifests.iter().filter(|m| m.last >= from && m.max_timestamp >= time).take(limit).cloned().collect()
    }

    /// The last of the manifests, whose place what it lists can take again.
    pub fn newest_manifest(&self) -> Option<&Rc<ManifestRef>> {
        self.manifests.back()
    }

    /// Up to `limit` objects from the one that holds `offset` on.
    pub fn from(&self, offset: Offset, limit: usize) -> Vec<Rc<CommittedObject>> {
        let at = self.objects.partition_point(|o| o.last < offset);
        self.objects.range(at..).take(limit).cloned().collect()
    }

    /// What a cold read from `offset` on is shown, which no manifest lists: the object that holds it, and those behind it.
    pub fn to_read(&self, offset: Offset) -> Vec<Rc<CommittedObject>> {
        let at = self.objects.partition_point(|o| o.last < offset);
        to_read(self.objects.range(at..))
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

    /// The greatest timestamp of what holds something at or after `from`.
    pub fn max_timestamp(&self, from: Offset) -> Option<Wall> {
        self.extents().filter(|extent| extent.last >= from).map(|extent| extent.max_timestamp).max()
    }

    /// Forgets the objects, and manifests, that end below `log_start`; answers the partition's bytes in them.
    pub fn raise_start(&mut self, log_start: Offset) -> u64 {
        let mut bytes = 0;
        while let Some(manifest) = self.manifests.front().filter(|m| m.last < log_start) {
            bytes += manifest.size_bytes;
            self.manifests.pop_front();
        }
        while let Some(object) = self.objects.front().filter(|o| o.last < log_start) {
            bytes += object.size_bytes;
            self.pop_oldest();
        }
        bytes
    }

    fn pop_oldest(&mut self) {
        let Some(oldest) = self.objects.pop_front() else { return };
        if self.uploads_from == 0 {
            self.uploads_bytes -= oldest.size_bytes;
        }
        self.uploads_from = self.uploads_from.saturating_sub(1);
    }

    /// Puts an object in the place of those that it holds the records of. Those that retention took meanwhile stay away.
    pub fn replace(&mut self, object: CommittedObject) {
        let from = self.objects.partition_point(|o| o.base < object.base);
        let until = self.objects.partition_point(|o| o.last <= object.last);
        if from < until {
            // No upload any more is what goes, nor what comes to lie before what compaction made.
            let is_upload = object.level == 0 && self.uploads_from <= from;
            let first = if is_upload { from } else { self.uploads_from.min(until) };
            self.uploads_bytes -= self.objects.range(first..until).map(|o| o.size_bytes).sum::<u64>();
            self.uploads_bytes += if is_upload { object.size_bytes } else { 0 };
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

    /// Has a manifest take the place of the oldest, as far as retention has left them.
    pub fn fold(&mut self, manifest: ManifestRef, log_start: Offset) {
        while self.objects.front().is_some_and(|o| o.last <= manifest.last) {
            self.pop_oldest();
        }
        if manifest.last >= log_start {
            self.manifests.push_back(Rc::new(manifest));
        }
    }

    /// Has what the newest manifest lists take its place, if it is this one.
    pub fn unfold(&mut self, id: ObjectId, entries: Vec<CommittedObject>, log_start: Offset) {
        if self.manifests.back().is_some_and(|m| m.id == id) {
            self.manifests.pop_back();
            let compacted = |o: &CommittedObject| o.level > 0;
            let live: Vec<CommittedObject> = entries.into_iter().filter(|o| o.last >= log_start).collect();
            if self.uploads_from > 0 {
                self.uploads_from += live.len();
            } else {
                self.uploads_from = live.iter().rposition(compacted).map_or(0, |at| at + 1);
                self.uploads_bytes += live[self.uploads_from..].iter().map(|o| o.size_bytes).sum::<u64>();
            }
            live.into_iter().rev().for_each(|o| self.objects.push_front(Rc::new(o)));
        }
    }

    /// How many objects there are that no manifest lists.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// The oldest that compaction has no more to do with: what it made, what lies before that, and what `stays` as it is. Oldest first.
    pub fn settled(&self, stays: impl Fn(&CommittedObject) -> bool) -> impl Iterator<Item = &Rc<CommittedObject>> {
        let more = self.uploads().take_while(|o| stays(o)).count();
        self.objects.range(..self.uploads_from + more)
    }

    /// What retention goes through, oldest first.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        let of_manifest =
            |m: &Rc<ManifestRef>| Extent { last: m.last, size_bytes: m.size_bytes, max_timestamp: m.max_timestamp };
        let of_object =
            |o: &Rc<CommittedObject>| Extent { last: o.last, size_bytes: o.size_bytes, max_timestamp: o.max_timestamp };
        self.manifests.iter().map(of_manifest).chain(self.objects.iter().map(of_object))
    }

    /// The newest, as far as they are uploads; oldest first.
    pub fn uploads(&self) -> impl Iterator<Item = &Rc<CommittedObject>> {
        self.objects.range(self.uploads_from..)
    }

    /// Bytes of the partition in those, however many there are.
    pub fn uploads_bytes(&self) -> u64 {
        self.uploads_bytes
    }

    /// Those that are in `set`.
    pub fn among<'a>(&'a self, set: &'a BTreeSet<ObjectId>) -> impl Iterator<Item = Rc<CommittedObject>> + 'a {
        self.objects.iter().filter(|o| set.contains(&o.object)).cloned()
    }

    /// The manifests, oldest first.
    pub fn manifests(&self) -> impl Iterator<Item = &ManifestRef> {
        self.manifests.iter().map(|m| &**m)
    }

    /// Those that no manifest lists, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &CommittedObject> {
        self.objects.iter().map(|o| &**o)
    }

    /// Bytes of the partition in all of them.
    pub fn size_bytes(&self) -> u64 {
        self.extents().map(|extent| extent.size_bytes).sum()
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
            size_bytes: 1 + id % 3,
            max_timestamp: Wall(0),
            epoch: LeaderEpoch(0),
            level,
        }
    }

    #[test]
    fn a_read_is_shown_what_its_readahead_may_reach() {
        let shown = |bytes: u64, from| {
            let of = |n: i64| CommittedObject { size_bytes: bytes, ..object(n as u64, n * 10, n * 10 + 9, 0) };
            ObjectList::new(Vec::new(), (0..200).map(of).collect()).to_read(Offset(from)).len()
        };
        assert_eq!(shown(64 << 20, 0), LEAST_TO_READ);
        assert_eq!(shown(1 << 20, 0), 40);
        assert_eq!(shown(1 << 10, 0), MOST_TO_READ);
        assert_eq!(shown(1 << 10, 1955), 5, "the last of them");
        let list = ObjectList::new(Vec::new(), (0..9).map(|n| object(n as u64, n * 10, n * 10 + 9, 0)).collect());
        assert_eq!((list.bytes_to_read(Offset(75), 9), list.bytes_to_read(Offset(0), 3)), (5, 3));
    }

    /// The uploads, whose bytes must be counted right.
    fn uploads(list: &ObjectList) -> Vec<u64> {
        assert_eq!(list.uploads_bytes(), list.uploads().map(|o| o.size_bytes).sum::<u64>());
        list.uploads().map(|o| o.object.0).collect()
    }

    #[test]
    fn what_compaction_made_and_all_before_it_are_no_uploads() {
        let mut list = ObjectList::new(Vec::new(), (0..8).map(|n| object(n as u64, n * 10, n * 10 + 9, 0)).collect());
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
        let anew = ObjectList::new(Vec::new(), vec![object(1, 0, 9, 0), object(2, 10, 19, 1), object(3, 20, 29, 0)]);
        assert_eq!(uploads(&anew), [3]);
    }

    fn manifest(id: u64, base: i64, last: i64) -> ManifestRef {
        let key = ObjectKey::new(format!("m{id}")).expect("a key");
        let (id, base, last) = (ObjectId(id), Offset(base), Offset(last));
        ManifestRef { id, key, bytes: 1, base, last, entries: 2, size_bytes: 2, max_timestamp: Wall(7) }
    }

    #[test]
    fn a_manifest_takes_the_place_of_the_oldest_and_gives_it_back() {
        let ids = |list: &ObjectList| list.iter().map(|o| o.object.0).collect::<Vec<_>>();
        let folded = |list: &ObjectList, offset| list.manifest_of(Offset(offset)).map(|m| m.id.0);
        let all: Vec<CommittedObject> =
            (0..6).map(|n| object(n, n as i64 * 10, n as i64 * 10 + 9, u32::from(n < 4))).collect();
        let mut list = ObjectList::new(Vec::new(), all.clone());
        list.fold(manifest(20, 0, 19), Offset(0));
        list.fold(manifest(21, 20, 29), Offset(0));
        assert_eq!((ids(&list), list.size_bytes()), (vec![3, 4, 5], 10));
        assert_eq!((folded(&list, 0), folded(&list, 25), folded(&list, 30)), (Some(20), Some(21), None));
        assert_eq!(uploads(&list), [4, 5]);
        assert_eq!((list.max_timestamp(Offset(29)), list.max_timestamp(Offset(30))), (Some(Wall(7)), Some(Wall(0))));
        list.unfold(ObjectId(20), all[..2].to_vec(), Offset(0));
        assert_eq!(ids(&list), [3, 4, 5], "it is not the newest");
        list.unfold(ObjectId(21), all[2..3].to_vec(), Offset(0));
        list.raise_start(Offset(15));
        list.unfold(ObjectId(20), all[..2].to_vec(), Offset(15));
        assert_eq!((ids(&list), folded(&list, 15)), (vec![1, 2, 3, 4, 5], None));
        assert_eq!(uploads(&list), [4, 5]);
        list.fold(manifest(22, 10, 29), Offset(35));
        assert_eq!((ids(&list), folded(&list, 20)), (vec![3, 4, 5], None), "retention was faster");
    }

    #[test]
    fn compaction_has_no_more_to_do_with_what_it_made_and_with_what_stays() {
        let settled = |list: &ObjectList, stays: &[u64]| {
            list.settled(|o| stays.contains(&o.object.0)).map(|o| o.object.0).collect::<Vec<_>>()
        };
        let list = ObjectList::new(
            Vec::new(),
            vec![object(0, 0, 9, 0), object(1, 10, 19, 1), object(2, 20, 29, 0), object(3, 30, 39, 0)],
        );
        assert_eq!(settled(&list, &[]), [0, 1]);
        assert_eq!(settled(&list, &[2]), [0, 1, 2]);
        assert_eq!(settled(&list, &[3]), [0, 1]);
        let fresh = ObjectList::new(Vec::new(), vec![object(0, 0, 9, 0)]);
        assert_eq!((settled(&fresh, &[]), settled(&fresh, &[0])), (vec![], vec![0]));
    }
}
