//! The metadata store in memory, for tests and the simulation.
//!
//! Clones share one store, so a restarted broker finds what it wrote; [`MemoryStore::crash`] takes back what was not synced.
#![expect(clippy::disallowed_types, reason = "for tests and the simulation; each call holds the lock for a moment")]

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use super::port::{Compare, MetadataError, MetadataStore, Revision, Transacted, Versioned, Write, check_writes};

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<Vec<u8>, Versioned>,
    revision: Revision,
    /// What keys held before each write since the last sync, oldest first, and the revision of that sync.
    undo: Vec<(Revision, Vec<u8>, Option<Versioned>)>,
    synced: Revision,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// The power is lost: everything since the last sync is gone.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// The power is lost: of the transactions since the last sync, the first `kept` are there.
    pub fn crash_keeping(&self, kept: usize) {
        let mut content = self.content();
        let Content { entries, revision, undo, synced } = &mut *content;
        *synced = Revision(revision.0.min(synced.0 + kept as u64));
        for (written_by, key, before) in undo.drain(..).rev() {
            if written_by <= *synced {
                break;
            }
            match before {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        *revision = *synced;
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().expect("no call of the store panics while it holds the lock")
    }
}

impl Content {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Revision(key, revision) => self.entries.get(key).is_some_and(|v| v.revision == *revision),
            Compare::Value(key, value) => self.entries.get(key).is_some_and(|v| v.value == *value),
        }
    }
}

impl MetadataStore for MemoryStore {
    fn revision(&self) -> Revision {
        self.content().revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetadataError> {
        Ok(self.content().entries.get(key).cloned())
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, MetadataError> {
        let from = after.filter(|a| *a >= prefix).map_or(Bound::Included(prefix), Bound::Excluded);
        let content = self.content();
        let found = content.entries.range::<[u8], _>((from, Bound::Unbounded));
        Ok(found.take_while(|(k, _)| k.starts_with(prefix)).take(limit).map(|(k, v)| (k.clone(), v.clone())).collect())
    }

    fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Transacted, MetadataError> {
        check_writes(writes);
        let mut content = self.content();
        if !compares.iter().all(|c| content.holds(c)) {
            return Ok(Transacted::Refused);
        }
        if writes.is_empty() {
            return Ok(Transacted::Applied(content.revision));
        }
        let revision = Revision(content.revision.0 + 1);
        content.revision = revision;
        for write in writes {
            let before = match write {
                Write::Put(key, value) => {
                    content.entries.insert(key.clone(), Versioned { value: value.clone(), revision })
                }
                Write::Delete(key) => content.entries.remove(key),
            };
            content.undo.push((revision, write.key().to_vec(), before));
        }
        Ok(Transacted::Applied(revision))
    }

    fn skip_to(&self, revision: Revision) -> Result<(), MetadataError> {
        let mut content = self.content();
        content.revision = content.revision.max(revision);
        Ok(())
    }

    fn sync(&self) -> Result<(), MetadataError> {
        let mut content = self.content();
        content.undo.clear();
        content.synced = content.revision;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::store::contract;

    #[test]
    fn keeps_the_contract() {
        contract::run(|| Box::new(MemoryStore::new()));
    }

    #[test]
    fn a_crash_may_keep_the_first_transactions() {
        let store = MemoryStore::new();
        for value in [b"1", b"2", b"3"] {
            store.transact(&[], &[Write::Put(b"a".to_vec(), value.to_vec())]).expect("memory");
        }
        store.crash_keeping(2);
        assert_eq!(store.revision(), Revision(2));
        assert_eq!(store.get(b"a").expect("memory").map(|v| v.value), Some(b"2".to_vec()));
        store.crash();
        assert_eq!(store.revision(), Revision(2), "what a crash kept is durable");
    }

    #[test]
    fn a_crash_takes_back_what_was_not_synced() {
        let store = MemoryStore::new();
        store.transact(&[], &[Write::Put(b"a".to_vec(), b"1".to_vec())]).expect("memory");
        store.sync().expect("memory");
        store.transact(&[], &[Write::Delete(b"a".to_vec())]).expect("memory");
        store
            .transact(&[], &[Write::Put(b"a".to_vec(), b"2".to_vec()), Write::Put(b"b".to_vec(), vec![])])
            .expect("memory");
        store.crash();
        assert_eq!(store.revision(), Revision(1));
        assert_eq!(store.get(b"a").expect("memory").map(|v| v.value), Some(b"1".to_vec()));
        assert_eq!(store.get(b"b").expect("memory"), None);
    }
}
