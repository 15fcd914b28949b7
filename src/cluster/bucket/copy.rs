//! A copy of the metadata store as of one revision, taken page by page while writes go on.
//!
//! Pure but for the store. Before a write changes a key that the copy has not reached yet, the key's value is set aside; the
//! copy takes it from there. So it shows one revision, however long it takes, and holds nothing up for longer than a page.

use std::collections::BTreeMap;

use super::format::Entry;
use crate::cluster::store::{MetadataError, MetadataStore, Revision, Versioned, Write};

/// Entries of one page: some hundred microseconds.
pub(in crate::cluster) const PAGE: usize = 256;

/// A copy under way.
#[derive(Debug)]
pub(in crate::cluster) struct Copy {
    revision: Revision,
    /// The last key that was copied; nothing yet when empty.
    reached: Vec<u8>,
    /// What keys held, at the copy's revision, that were written since.
    aside: BTreeMap<Vec<u8>, Option<Versioned>>,
}

impl Copy {
    /// Begins a copy of what the store holds now.
    pub(in crate::cluster) fn begin(store: &dyn MetadataStore) -> Copy {
        Copy { revision: store.revision(), reached: Vec::new(), aside: BTreeMap::new() }
    }

    /// The revision it shows.
    pub(in crate::cluster) fn revision(&self) -> Revision {
        self.revision
    }

    /// Must be told of writes before they are made.
    pub(in crate::cluster) fn before(
        &mut self,
        store: &dyn MetadataStore,
        writes: &[Write],
    ) -> Result<(), MetadataError> {
        for key in writes.iter().map(Write::key) {
            if key > self.reached.as_slice() && !self.aside.contains_key(key) {
                self.aside.insert(key.to_vec(), store.get(key)?);
            }
        }
        Ok(())
    }

    /// The next entries in key order; `None` after the last.
    pub(in crate::cluster) fn page(&mut self, store: &dyn MetadataStore) -> Result<Option<Vec<Entry>>, MetadataError> {
        let after = (!self.reached.is_empty()).then_some(self.reached.as_slice());
        let found = store.range(b"", after, PAGE)?;
        if found.is_empty() && self.aside.is_empty() {
            return Ok(None);
        }
        let mut page: BTreeMap<Vec<u8>, Versioned> = BTreeMap::new();
        let last = found.last().map(|(key, _)| key.clone());
        page.extend(found.into_iter().filter(|(key, _)| !self.aside.contains_key(key)));
        // Keys deleted since lie between those found; behind the last page there may be more of them.
        let later = match &last {
            Some(last) => self.aside.split_off(last.as_slice()),
            None => BTreeMap::new(),
        };
        let mut taken = std::mem::replace(&mut self.aside, later);
        if let Some(last) = last {
            taken.extend(self.aside.remove_entry(&last));
            self.reached = last;
        } else {
            self.reached = taken.keys().next_back().cloned().unwrap_or_default();
        }
        page.extend(taken.into_iter().filter_map(|(key, value)| Some((key, value?))));
        Ok(Some(page.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::store::MemoryStore;

    fn put(key: u32, value: u32) -> Write {
        Write::Put(format!("k{key:05}").into_bytes(), value.to_le_bytes().to_vec())
    }

    fn delete(key: u32) -> Write {
        Write::Delete(format!("k{key:05}").into_bytes())
    }

    fn all(store: &MemoryStore) -> Vec<Entry> {
        store.range(b"", None, usize::MAX).expect("memory")
    }

    /// A small generator: the order of writes differs from seed to seed.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *state >> 33
    }

    #[test]
    fn a_copy_shows_one_revision_whatever_is_written_meanwhile() {
        for seed in 0..30 {
            let (store, mut state) = (MemoryStore::new(), seed);
            for key in 0..2_000 {
                store.transact(&[], &[put(key * 2, key)]).expect("memory");
            }
            let expected = all(&store);
            let mut copy = Copy::begin(&store);
            assert_eq!(copy.revision(), store.revision());
            let mut seen = Vec::new();
            while let Some(page) = copy.page(&store).expect("memory") {
                seen.extend(page);
                for _ in 0..next(&mut state) % 400 {
                    let key = next(&mut state) as u32 % 4_100;
                    let write = if next(&mut state) % 2 == 0 { put(key, 9) } else { delete(key) };
                    copy.before(&store, std::slice::from_ref(&write)).expect("memory");
                    store.transact(&[], &[write]).expect("memory");
                }
            }
            assert!(seen == expected, "seed {seed}: {} entries, {} expected", seen.len(), expected.len());
        }
    }

    #[test]
    fn what_is_deleted_behind_the_last_page_is_in_the_copy() {
        let store = MemoryStore::new();
        (0..300).for_each(|key| drop(store.transact(&[], &[put(key, key)])));
        let expected = all(&store);
        let mut copy = Copy::begin(&store);
        let mut seen = copy.page(&store).expect("memory").expect("a page");
        for key in 0..300 {
            let gone = delete(key);
            copy.before(&store, std::slice::from_ref(&gone)).expect("memory");
            store.transact(&[], &[gone]).expect("memory");
        }
        while let Some(page) = copy.page(&store).expect("memory") {
            seen.extend(page);
        }
        assert_eq!(seen, expected);
    }
}
