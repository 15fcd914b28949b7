//! The memory engine: for tests and the simulation, with faults to order.
//!
//! Its futures complete at once unless a [`FaultHook`] makes them wait. Clones share the same objects, so a simulated
//! crash of a broker leaves its bucket standing.
#![expect(clippy::disallowed_types, reason = "shared by the brokers of a test; each call holds the lock for a moment")]

use std::{
    collections::BTreeMap,
    fmt,
    ops::{Bound, Range},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::{Bytes, BytesMut};

use crate::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError, StoreFuture};

/// What a call does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::get_range`].
    GetRange,
    /// [`ObjectStore::head`].
    Head,
    /// [`ObjectStore::delete`].
    Delete,
    /// [`ObjectStore::list`].
    List,
}

/// One call, as a [`FaultHook`] sees it before it takes effect.
#[derive(Debug)]
pub struct Call<'a> {
    /// What it does.
    pub operation: Operation,
    /// The key, or the prefix of a listing.
    pub key: &'a str,
    /// How many calls came before it.
    pub number: u64,
}

/// What becomes of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It is done.
    Pass,
    /// It fails and changes nothing.
    FailBefore(StoreError),
    /// It is done, and the answer is lost: the caller sees this error.
    FailAfter(StoreError),
}

/// Decides the fate of each call; its future may wait first (latency), in whatever clock its owner likes.
pub trait FaultHook: Send + Sync + 'static {
    /// Called once per call, before it takes effect.
    fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>>;
}

#[derive(Default)]
struct State {
    objects: BTreeMap<ObjectKey, Bytes>,
    hook: Option<Arc<dyn FaultHook>>,
    calls: u64,
}

/// An object store in memory.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "MemoryStore({} objects, {} calls)", state.objects.len(), state.calls)
    }
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// From now on `hook` decides about each call; `None` lets all pass.
    pub fn set_hook(&self, hook: Option<Arc<dyn FaultHook>>) {
        self.state().hook = hook;
    }

    /// All objects, past any fault; for checks and digests.
    pub fn objects(&self) -> BTreeMap<ObjectKey, Bytes> {
        self.state().objects.clone()
    }

    /// Puts an object in place, past any fault: a test's damage.
    pub fn overwrite(&self, key: &ObjectKey, content: Bytes) {
        self.state().objects.insert(key.clone(), content);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// Waits for the fate of a call, and does it (or not).
    async fn run<T>(
        &self,
        operation: Operation,
        key: &str,
        effect: impl FnOnce(&mut BTreeMap<ObjectKey, Bytes>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let (hook, number) = {
            let mut state = self.state();
            state.calls += 1;
            (state.hook.clone(), state.calls - 1)
        };
        let fate = match hook {
            Some(hook) => hook.fate(&Call { operation, key, number }).await,
            None => Fate::Pass,
        };
        match fate {
            Fate::Pass => effect(&mut self.state().objects),
            Fate::FailBefore(error) => Err(error),
            Fate::FailAfter(error) => {
                let _lost = effect(&mut self.state().objects);
                Err(error)
            }
        }
    }
}

impl ObjectStore for MemoryStore {
    fn put<'a>(&'a self, key: &'a ObjectKey, parts: Vec<Bytes>, condition: PutCondition) -> StoreFuture<'a, ()> {
        Box::pin(self.run(Operation::Put, key.as_str(), move |objects| {
            if condition == PutCondition::IfAbsent && objects.contains_key(key) {
                return Err(StoreError::Exists(key.clone()));
            }
            // Copied, as a real store does: the parts may pin larger buffers.
            let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
            parts.iter().for_each(|part| whole.extend_from_slice(part));
            objects.insert(key.clone(), whole.freeze());
            Ok(())
        }))
    }

    fn get_range<'a>(&'a self, key: &'a ObjectKey, range: Range<u64>) -> StoreFuture<'a, Bytes> {
        Box::pin(self.run(Operation::GetRange, key.as_str(), move |objects| {
            let object = objects.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
            if range.is_empty() || range.end > object.len() as u64 {
                return Err(past_the_end(key, &range, object.len() as u64));
            }
            Ok(object.slice(range.start as usize..range.end as usize))
        }))
    }

    fn head<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ObjectMeta> {
        Box::pin(self.run(Operation::Head, key.as_str(), move |objects| {
            let object = objects.get(key).ok_or_else(|| StoreError::NotFound(key.clone()))?;
            Ok(ObjectMeta { key: key.clone(), size_bytes: object.len() as u64 })
        }))
    }

    fn delete<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, ()> {
        Box::pin(self.run(Operation::Delete, key.as_str(), move |objects| {
            objects.remove(key);
            Ok(())
        }))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a ObjectKey>,
        limit: usize,
    ) -> StoreFuture<'a, Vec<ObjectMeta>> {
        Box::pin(self.run(Operation::List, prefix, move |objects| {
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            Ok(objects
                .range((from, Bound::Unbounded))
                .filter(|(key, _)| key.as_str().starts_with(prefix))
                .take(limit.min(1000))
                .map(|(key, object)| ObjectMeta { key: key.clone(), size_bytes: object.len() as u64 })
                .collect())
        }))
    }
}

/// The refusal of a range that the object does not have.
pub(crate) fn past_the_end(key: &ObjectKey, range: &Range<u64>, size_bytes: u64) -> StoreError {
    StoreError::Refused(format!("range {}..{} of {key}, which has {size_bytes} bytes", range.start, range.end))
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::testing::{Contract, contract};

    #[test]
    fn keeps_the_contract() {
        block_on(contract(&MemoryStore::new(), Contract::default()));
    }

    struct Third(Fate);

    impl FaultHook for Third {
        fn fate(&self, call: &Call<'_>) -> Pin<Box<dyn Future<Output = Fate> + Send>> {
            let fate = if call.number == 2 { self.0.clone() } else { Fate::Pass };
            Box::pin(async move {
                futures_lite::future::yield_now().await;
                fate
            })
        }
    }

    #[test]
    fn faults_strike_before_or_after_the_effect() {
        let key = ObjectKey::new("k").expect("a key");
        let lost = StoreError::Retry("answer lost".to_owned());
        for (fate, stays) in [(Fate::FailBefore(lost.clone()), "two"), (Fate::FailAfter(lost.clone()), "three")] {
            let store = MemoryStore::new();
            store.set_hook(Some(Arc::new(Third(fate))));
            let put = |text: &'static str| {
                block_on(store.put(&key, vec![Bytes::from_static(text.as_bytes())], PutCondition::Always))
            };
            assert_eq!(put("one"), Ok(()));
            assert_eq!(put("two"), Ok(()));
            assert_eq!(put("three"), Err(lost.clone()));
            assert_eq!(store.objects()[&key], stays.as_bytes());
        }
    }
}
