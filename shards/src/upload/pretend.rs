//! Aborted transactions that uploads tell of although there are none yet, so that a simulation sees what becomes of them. Never in a
//! release: a feature for tests alone.

use std::cell::Cell;

use thalweg_objectstore::format::AbortedTransaction;
use thalweg_record::{Offset, PartitionId};

/// Of a partition's offsets, from the first to the last, the transactions whose abort marker lies there.
pub type Aborted = fn(PartitionId, Offset, Offset) -> Vec<AbortedTransaction>;

thread_local! {
    static ABORTED: Cell<Option<Aborted>> = const { Cell::new(None) };
}

/// Has the uploads of the calling thread tell of such transactions, or of none.
pub fn pretend_aborted(aborted: Option<Aborted>) {
    ABORTED.set(aborted);
}

pub(super) fn aborted(partition: PartitionId, base: Offset, last: Offset) -> Vec<AbortedTransaction> {
    ABORTED.get().map_or_else(Vec::new, |aborted| aborted(partition, base, last))
}
