//! What is counted of metadata snapshots and of the objects that are deleted behind them.

use metrics::{Counter, Gauge};

thalweg_shards::meters! {
    /// Metadata snapshots; one set in the process.
    pub struct BucketMeters(BUCKET_METRICS, labels: []) {
        /// Number of the newest metadata snapshot in the bucket that this process wrote.
        snapshot_sequence: Gauge = "thalweg_metadata_snapshot_sequence", "snapshots";
        /// Time since the newest metadata snapshot was written, while something has changed since; else 0. Two intervals are usual while nothing but uploads is committed.
        snapshot_age_seconds: Gauge = "thalweg_metadata_snapshot_age_seconds", "seconds";
        /// Size of the newest metadata snapshot that this process wrote.
        snapshot_bytes: Gauge = "thalweg_metadata_snapshot_bytes", "bytes";
        /// Metadata snapshots written.
        snapshots: Counter = "thalweg_metadata_snapshots_total", "snapshots";
        /// Metadata snapshots that could not be written, listed or removed; each is tried again.
        snapshot_errors: Counter = "thalweg_metadata_snapshot_errors_total", "snapshots";
        /// Objects in the bucket of which nothing is live, and that are not deleted yet.
        garbage: Gauge = "thalweg_garbage_objects", "objects";
        /// Objects deleted from the bucket.
        deleted: Counter = "thalweg_garbage_deleted_total", "objects";
        /// Deletions that failed; each is tried again.
        delete_errors: Counter = "thalweg_garbage_delete_errors_total", "objects";
        /// Manifests whose entries were released.
        manifests_released: Counter = "thalweg_manifests_released_total", "manifests";
    }
}

impl BucketMeters {
    /// The handles, registered with the recorder in force.
    pub fn new() -> BucketMeters {
        BucketMeters::register(&[])
    }
}

impl Default for BucketMeters {
    fn default() -> BucketMeters {
        BucketMeters::new()
    }
}
