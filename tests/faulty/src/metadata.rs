//! A metadata store that keeps in memory what was not synced: gone with the process.
#![expect(clippy::disallowed_types, reason = "the disk's stand-in blocks as the disk does, on the metadata's thread")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::faults::MetadataFault;
use thalweg::cluster::store::{Compare, MetadataError, MetadataStore, Revision, Transacted, Versioned, Write};

/// Lies over the store on the disk, which sees a transaction when it is synced.
pub struct VolatileStore {
    disk: Arc<dyn MetadataStore>,
    state: Mutex<State>,
    forgets_sync: bool,
    faults: Vec<MetadataFault>,
}

struct State {
    /// How often it was written and synced.
    writes: u64,
    syncs: u64,
    revision: Revision,
    /// Keys written since the last sync; `None` when deleted.
    changed: BTreeMap<Vec<u8>, Option<Versioned>>,
    /// The transactions since the last sync, in order.
    applied: Vec<Vec<Write>>,
}

impl VolatileStore {
    /// Over `disk`. One that forgets to sync says that everything is durable and leaves it in memory.
    pub fn over(
        disk: Arc<dyn MetadataStore>,
        forgets_sync: bool,
        faults: Vec<MetadataFault>,
    ) -> Arc<dyn MetadataStore> {
        let (writes, syncs) = (0, 0);
        let state = State { writes, syncs, revision: disk.revision(), changed: BTreeMap::new(), applied: Vec::new() };
        Arc::new(VolatileStore { disk, state: Mutex::new(state), forgets_sync, faults })
    }

    fn fail_if(&self, due: MetadataFault) -> Result<(), MetadataError> {
        if !self.faults.contains(&due) {
            return Ok(());
        }
        eprintln!("the disk of the metadata fails: {due:?}");
        Err(MetadataError::Io { path: "metadata".into(), source: std::io::Error::from_raw_os_error(libc::EIO) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with the lock")
    }

    fn find(&self, state: &State, key: &[u8]) -> Result<Option<Versioned>, MetadataError> {
        match state.changed.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => self.disk.get(key),
        }
    }

    fn holds(&self, state: &State, compare: &Compare) -> Result<bool, MetadataError> {
        Ok(match compare {
            Compare::Absent(key) => self.find(state, key)?.is_none(),
            Compare::Revision(key, revision) => self.find(state, key)?.is_some_and(|v| v.revision == *revision),
            Compare::Value(key, value) => self.find(state, key)?.is_some_and(|v| v.value == *value),
        })
    }
}

impl MetadataStore for VolatileStore {
    fn revision(&self) -> Revision {
        self.state().revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetadataError> {
        self.find(&self.state(), key)
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, MetadataError> {
        let state = self.state();
        let mut found: BTreeMap<Vec<u8>, Versioned> = self.disk.range(prefix, after, usize::MAX)?.into_iter().collect();
        let wanted = |key: &[u8]| key.starts_with(prefix) && after.is_none_or(|after| key > after);
        for (key, changed) in state.changed.iter().filter(|(key, _)| wanted(key)) {
            match changed {
                Some(value) => found.insert(key.clone(), value.clone()),
                None => found.remove(key),
            };
        }
        Ok(found.into_iter().take(limit).collect())
    }

    fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Transacted, MetadataError> {
        let mut state = self.state();
        for compare in compares {
            if !self.holds(&state, compare)? {
                return Ok(Transacted::Refused);
            }
        }
        if writes.is_empty() {
            return Ok(Transacted::Applied(state.revision));
        }
        state.writes += 1;
        self.fail_if(MetadataFault::EioWrite(state.writes))?;
        let revision = Revision(state.revision.0 + 1);
        state.revision = revision;
        for write in writes {
            let value = match write {
                Write::Put(_, value) => Some(Versioned { value: value.clone(), revision }),
                Write::Delete(_) => None,
            };
            state.changed.insert(write.key().to_vec(), value);
        }
        state.applied.push(writes.to_vec());
        Ok(Transacted::Applied(revision))
    }

    fn skip_to(&self, revision: Revision) -> Result<(), MetadataError> {
        let mut state = self.state();
        assert!(state.applied.is_empty(), "a store skips before it is written");
        self.disk.skip_to(revision)?;
        state.revision = self.disk.revision();
        Ok(())
    }

    fn sync(&self) -> Result<(), MetadataError> {
        if self.forgets_sync {
            return Ok(());
        }
        let mut state = self.state();
        state.syncs += 1;
        self.fail_if(MetadataFault::EioSync(state.syncs)).inspect_err(|_| state.applied.clear())?;
        for writes in std::mem::take(&mut state.applied) {
            self.disk.transact(&[], &writes)?;
        }
        assert_eq!(self.disk.revision(), state.revision, "the store on the disk counts as this one does");
        state.changed.clear();
        self.disk.sync()
    }
}
