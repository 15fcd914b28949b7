//! A producer's state as the properties of an object have it, and as messages and the metadata do.
//!
//! Pure conversions, on any core. Both forms hold the same; neither may gain a field that the other lacks.

use thalweg_objectstore::format::{ProducerBatch as StoredBatch, ProducerState};

use crate::msg::{ProducerBatch, ProducerEntry};

impl From<&ProducerEntry> for ProducerState {
    fn from(entry: &ProducerEntry) -> ProducerState {
        let batch = |b: &ProducerBatch| StoredBatch {
            first_sequence: b.first_sequence,
            last_sequence: b.last_sequence,
            base_offset: b.base_offset,
            last_offset: b.last_offset,
        };
        ProducerState {
            producer_id: entry.producer_id,
            epoch: entry.epoch,
            last_timestamp: entry.last_timestamp,
            window: entry.window.iter().map(batch).collect(),
        }
    }
}

impl From<&ProducerState> for ProducerEntry {
    fn from(state: &ProducerState) -> ProducerEntry {
        let batch = |b: &StoredBatch| ProducerBatch {
            first_sequence: b.first_sequence,
            last_sequence: b.last_sequence,
            base_offset: b.base_offset,
            last_offset: b.last_offset,
        };
        ProducerEntry {
            producer_id: state.producer_id,
            epoch: state.epoch,
            window: state.window.iter().map(batch).collect(),
            last_timestamp: state.last_timestamp,
        }
    }
}
