//! What manifests list, in memory, bounded by bytes, the least recently used thrown out first; each is fetched once, however many wait.
//! Pure.

use std::{collections::BTreeMap, rc::Rc};

use super::{ColdError, request::ManifestDone};
use crate::meta::{CommittedObject, ObjectId};

/// What a manifest lists, by offset.
pub type Entries = Rc<Vec<Rc<CommittedObject>>>;

/// What becomes of a question.
pub(super) enum Asked {
    /// It is answered at once.
    Known(ManifestDone, Entries),
    /// The manifest is to be fetched.
    Fetch,
    /// It is being fetched.
    Waits,
}

struct Held {
    used: u64,
    size_bytes: u64,
    entries: Entries,
}

/// The manifests of one core.
pub(super) struct Manifests {
    limit_bytes: u64,
    size_bytes: u64,
    clock: u64,
    held: BTreeMap<ObjectId, Held>,
    by_use: BTreeMap<u64, ObjectId>,
    waiting: BTreeMap<ObjectId, Vec<ManifestDone>>,
}

impl Manifests {
    pub(super) fn new(limit_bytes: u64) -> Manifests {
        let (held, by_use, waiting) = Default::default();
        Manifests { limit_bytes, size_bytes: 0, clock: 0, held, by_use, waiting }
    }

    pub(super) fn ask(&mut self, id: ObjectId, done: ManifestDone) -> Asked {
        if let Some(held) = self.held.get_mut(&id) {
            self.by_use.remove(&held.used);
            self.clock += 1;
            held.used = self.clock;
            self.by_use.insert(self.clock, id);
            return Asked::Known(done, held.entries.clone());
        }
        let waiting = self.waiting.entry(id).or_default();
        waiting.push(done);
        if waiting.len() == 1 { Asked::Fetch } else { Asked::Waits }
    }

    /// A fetch ended; answers who waited for it.
    pub(super) fn fetched(&mut self, id: ObjectId, found: &Result<Entries, ColdError>) -> Vec<ManifestDone> {
        if let Ok(entries) = found {
            self.insert(id, entries);
        }
        self.waiting.remove(&id).unwrap_or_default()
    }

    fn insert(&mut self, id: ObjectId, entries: &Entries) {
        let each = |entry: &Rc<CommittedObject>| size_of::<CommittedObject>() + entry.key.as_str().len();
        let size_bytes = entries.iter().map(each).sum::<usize>() as u64;
        if size_bytes > self.limit_bytes {
            return;
        }
        while self.size_bytes + size_bytes > self.limit_bytes {
            let (_, oldest) = self.by_use.pop_first().expect("what is accounted for is listed");
            let gone = self.held.remove(&oldest).expect("a listed manifest is there");
            self.size_bytes -= gone.size_bytes;
        }
        self.clock += 1;
        self.size_bytes += size_bytes;
        self.by_use.insert(self.clock, id);
        self.held.insert(id, Held { used: self.clock, size_bytes, entries: entries.clone() });
    }

    /// Bytes held.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

#[cfg(test)]
mod tests {
    use thalweg_objectstore::ObjectKey;
    use thalweg_record::{LeaderEpoch, Offset, Wall};

    use super::*;

    fn entries(count: i64) -> Result<Entries, ColdError> {
        let entry = |n: i64| CommittedObject {
            object: ObjectId(n as u64),
            key: ObjectKey::new("k").expect("a key"),
            object_bytes: 1,
            base: Offset(n),
            last: Offset(n),
            size_bytes: 1,
            max_timestamp: Wall(0),
            epoch: LeaderEpoch(0),
            level: 1,
        };
        Ok(Rc::new((0..count).map(|n| Rc::new(entry(n))).collect()))
    }

    fn nobody() -> ManifestDone {
        Box::new(|_| {})
    }

    #[test]
    fn a_manifest_is_fetched_once_and_the_least_recently_used_goes() {
        let each = size_of::<CommittedObject>() as u64 + 1;
        let mut manifests = Manifests::new(5 * each);
        let known = |manifests: &mut Manifests, id| matches!(manifests.ask(ObjectId(id), nobody()), Asked::Known(..));
        assert!(matches!(manifests.ask(ObjectId(1), nobody()), Asked::Fetch));
        assert!(matches!(manifests.ask(ObjectId(1), nobody()), Asked::Waits));
        assert_eq!(manifests.fetched(ObjectId(1), &entries(2)).len(), 2);
        assert_eq!(manifests.fetched(ObjectId(2), &entries(2)).len(), 0);
        assert!(known(&mut manifests, 1));
        manifests.fetched(ObjectId(3), &entries(3));
        assert!(known(&mut manifests, 1) && known(&mut manifests, 3) && !known(&mut manifests, 2));
        assert_eq!(manifests.size_bytes(), 5 * each);
        manifests.fetched(ObjectId(4), &entries(6));
        assert!(!known(&mut manifests, 4) && known(&mut manifests, 3), "what exceeds the limit is not kept");
        let failed = manifests.fetched(ObjectId(2), &Err(ColdError::Gone(ObjectId(2))));
        assert_eq!(failed.len(), 1, "whoever waits is told");
        assert!(matches!(manifests.ask(ObjectId(2), nobody()), Asked::Fetch), "and asks again");
    }
}
