//! Deleting objects of which nothing is live: the second of two phases. The first is their record in the metadata.
//!
//! An object that was committed goes when every metadata snapshot in the bucket lists it as garbage, so that a rebuild from
//! any of them misses nothing. One that never was goes as soon as its record is durable: the record took its reservation
//! away. Deleting is repeated until the store says so, and forgotten only then; a crash in between repeats it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use thalweg_objectstore::{ObjectKey, ObjectStore, StoreError, data_key, manifest_key};
use thalweg_shards::meta::ObjectId;

use super::{keeper::Retry, meters::BucketMeters};
use crate::cluster::{
    ledger::{Fault, Ledger},
    schema::GarbageKind,
};

/// Calls of the object store at once.
const AT_ONCE: usize = 8;
/// Objects deleted before the keeper looks at other things again.
const BATCH: usize = if cfg!(test) { 10 } else { 1_000 };

/// Committed objects of which nothing is live.
pub(super) fn dead(ledger: &Ledger) -> BTreeSet<ObjectId> {
    let dead = ledger.catalog.garbage.iter().filter(|(_, g)| g.record.kind == GarbageKind::Dead);
    dead.map(|(id, _)| *id).collect()
}

/// Whether garbage waits for further snapshots: some of it is not in `listed`, what all of them list.
pub(super) fn waits(ledger: &Ledger, listed: &BTreeSet<ObjectId>) -> bool {
    ledger.catalog.garbage.iter().any(|(id, g)| g.record.kind == GarbageKind::Dead && !listed.contains(id))
}

/// What may go now, of which `listed` is what every snapshot in the bucket lists as garbage.
fn may_go(ledger: &Ledger, listed: &BTreeSet<ObjectId>, refused: &Refused) -> BTreeMap<ObjectId, Vec<ObjectKey>> {
    let node = ledger.node();
    let keys = |id: &ObjectId, record: &crate::cluster::schema::GarbageRecord| match (&record.key, record.kind) {
        (Some(key), _) => ObjectKey::new(key.clone()).ok().map(|key| vec![key]),
        (None, GarbageKind::Orphan) => {
            // Nobody knows what the id was reserved for.
            let epoch = record.epoch.unsigned_abs().into();
            Some(vec![data_key(id.0, node, epoch), manifest_key(id.0, node, epoch)])
        }
        (None, GarbageKind::Dead) => None,
    };
    let garbage = ledger.catalog.garbage.iter();
    let free = garbage.filter(|(id, g)| g.record.kind == GarbageKind::Orphan || listed.contains(id));
    let due = free.filter(|(id, _)| !refused.0.contains_key(*id));
    // Those that never were refused go first: a batch of nothing but the others would be refused again, and the keeper wait.
    let (again, fresh): (Vec<_>, Vec<_>) = due.partition(|(id, _)| refused.1.contains_key(*id));
    fresh.into_iter().chain(again).filter_map(|(id, g)| Some((*id, keys(id, &g.record)?))).take(BATCH).collect()
}

/// Whether there is something to delete.
pub(super) fn is_due(ledger: &Ledger, listed: &BTreeSet<ObjectId>, refused: &Refused) -> bool {
    !may_go(ledger, listed, refused).is_empty()
}

/// Objects that could not be deleted. Each waits by itself, so that those which never go do not stand in the way of others.
#[derive(Default)]
pub(super) struct Refused(BTreeMap<ObjectId, Retry>, BTreeMap<ObjectId, Retry>);

impl Refused {
    /// Lets time pass; those whose turn it is may go again.
    pub(super) fn wait(&mut self, step: Duration) {
        let due: Vec<ObjectId> =
            self.0.iter_mut().filter_map(|(id, retry)| retry.is_due(step).then_some(*id)).collect();
        self.1.extend(due.into_iter().filter_map(|id| self.0.remove_entry(&id)));
    }

    /// Whether it is not this one's turn.
    pub(super) fn waits(&self, id: ObjectId) -> bool {
        self.0.contains_key(&id)
    }

    /// Whether it was refused before, and it is its turn again.
    pub(super) fn comes_again(&self, id: ObjectId) -> bool {
        self.1.contains_key(&id)
    }

    pub(super) fn ended(&mut self, id: ObjectId, well: bool) {
        let mut retry = self.1.remove(&id).unwrap_or_default();
        if !well {
            retry.ended(false);
            self.0.insert(id, retry);
        }
    }
}

/// Deletes up to a batch of what may go. Answers whether anything of that is gone.
///
/// # Errors
/// The metadata fails for good. What the object store refuses stays listed, and is tried again.
pub(super) async fn delete(
    objects: &dyn ObjectStore,
    ledger: &Rc<RefCell<Ledger>>,
    listed: &BTreeSet<ObjectId>,
    refused: &mut Refused,
    meters: &BucketMeters,
) -> Result<bool, Fault> {
    let going = may_go(&ledger.borrow(), listed, refused);
    if going.is_empty() {
        return Ok(true);
    }
    // Nothing may come back here that is gone there.
    let store = ledger.borrow().store();
    store.sync()?;
    let deletions = going.into_iter().map(|(id, keys)| async move {
        for key in keys {
            if let Err(error) = objects.delete(&key).await {
                return (id, Err(error));
            }
        }
        (id, Ok(()))
    });
    let outcomes: Vec<(ObjectId, Result<(), StoreError>)> =
        stream::iter(deletions).buffer_unordered(AT_ONCE).collect().await;
    outcomes.iter().for_each(|(id, outcome)| refused.ended(*id, outcome.is_ok()));
    let gone: Vec<ObjectId> = outcomes.iter().filter(|(_, o)| o.is_ok()).map(|(id, _)| *id).collect();
    let failed = outcomes.len() - gone.len();
    if let Some((id, Err(error))) = outcomes.iter().find(|(_, o)| o.is_err()) {
        tracing::warn!(object = id.0, %error, failed, "dead objects could not be deleted; it is tried again");
    }
    meters.deleted.increment(gone.len() as u64);
    meters.delete_errors.increment(failed as u64);
    if !gone.is_empty() {
        ledger.borrow_mut().garbage_gone(&gone)?;
    }
    // When everything fails it is the store, and whoever has not been tried waits too.
    Ok(failed == 0 || !gone.is_empty())
}
