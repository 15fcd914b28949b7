//! Releasing what dead manifests list: those that lie below a log start, or whose topic is gone.
//!
//! Only the manifest itself knows which objects it lists, so it is read first; then one transaction takes its entries off their objects and
//! makes it garbage, with the objects of which nothing else is live. All that is deleted behind the snapshots as other garbage is. A crash
//! in between repeats the step. A manifest that cannot be read ends the round, for the object store may be what fails, and the keeper has
//! snapshots to write: rounds pause then. That manifest is tried again for ever, after longer and longer pauses, and holds up no other.

use std::{cell::RefCell, rc::Rc};

use futures_util::{StreamExt, stream};
use thalweg_objectstore::{ObjectStore, format::MAX_MANIFEST_BYTES};
use thalweg_record::PartitionId;
use thalweg_shards::meta::{CommittedObject, ManifestRef, ObjectId};

use super::{deletion::Refused, meters::BucketMeters};
use crate::cluster::{
    ledger::{Fault, Ledger},
    partition::Manifest,
};

/// Manifests read at once.
const AT_ONCE: usize = if cfg!(test) { 1 } else { 8 };
/// Manifests released before the keeper looks at other things again.
const BATCH: usize = if cfg!(test) { 2 } else { 200 };

/// Reads a manifest; the error says why it cannot be used.
pub(super) async fn read(
    objects: &dyn ObjectStore,
    partition: PartitionId,
    of: &ManifestRef,
) -> Result<Vec<CommittedObject>, String> {
    if of.bytes == 0 || of.bytes > MAX_MANIFEST_BYTES {
        return Err(format!("{} bytes are no manifest", of.bytes));
    }
    let bytes = objects.get_range(&of.key, 0..of.bytes).await.map_err(|error| error.to_string())?;
    of.entries(partition, &bytes)
}

/// What manifests wait, but those that could not be read just now; those that could not be read before come last.
fn waiting(ledger: &Ledger, refused: &Refused) -> Vec<(ObjectId, PartitionId, Manifest)> {
    let dead = |again: bool| {
        let due = move |id: &ObjectId| !refused.waits(*id) && refused.comes_again(*id) == again;
        ledger.catalog.dead_manifests.iter().filter(move |(id, _)| due(id))
    };
    let dead = dead(false).chain(dead(true));
    dead.map(|(id, (partition, manifest))| (*id, *partition, manifest.clone())).take(BATCH).collect()
}

/// Releases what up to a batch of dead manifests list, or those before the first that cannot be read. Answers whether all could be.
///
/// # Errors
/// The metadata fails for good.
pub(super) async fn release(
    objects: &dyn ObjectStore,
    ledger: &Rc<RefCell<Ledger>>,
    refused: &mut Refused,
    meters: &BucketMeters,
) -> Result<bool, Fault> {
    let waiting = waiting(&ledger.borrow(), refused);
    let reads = waiting.into_iter().map(|(id, partition, manifest)| async move {
        let found = read(objects, partition, &manifest.of).await;
        (id, found)
    });
    let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
    while let Some((id, found)) = reads.next().await {
        let unread = found.is_err();
        let outcome = match found {
            Ok(listed) => ledger.borrow_mut().release_manifest(id, &listed)?,
            Err(why) => Err(why),
        };
        refused.ended(id, outcome.is_ok());
        match outcome {
            Ok(()) => meters.manifests_released.increment(1),
            Err(why) => {
                tracing::warn!(manifest = id.0, why, "what a manifest lists cannot be released; it is tried again")
            }
        }
        if unread {
            return Ok(false);
        }
    }
    Ok(true)
}
