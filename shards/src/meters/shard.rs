//! What a shard, its log, its uploader and the object-store engine count.

use metrics::{Counter, Gauge, Histogram};
use thalweg_record::ShardId;

use super::{ByKind, ByOperation, ByReason, ByTier, buckets};

crate::meters! {
    /// One shard's handles.
    pub struct ShardMeters(SHARD_METRICS, labels: ["shard"]) {
        /// Bytes of record batches that became durable.
        appended_bytes: Counter = "thalweg_append_bytes_total", "bytes";
        /// Records that became durable.
        appended_records: Counter = "thalweg_append_records_total", "records";
        /// Record batches that became durable.
        appended_batches: Counter = "thalweg_append_batches_total", "batches";
        /// Produces that were refused because the write-ahead log is full.
        appends_refused: Counter = "thalweg_append_refused_total", "requests";
        /// Bytes of records that are written but not durable yet.
        staged_bytes: Gauge = "thalweg_append_staged_bytes", "bytes";
        /// Size of the groups written to the write-ahead log.
        wal_group_bytes: Histogram = "thalweg_wal_group_bytes", "bytes", buckets::BYTES;
        /// From sealing a group to its being durable.
        wal_commit_seconds: Histogram = "thalweg_wal_commit_seconds", "seconds", buckets::LATENCY;
        /// Bytes of the write-ahead log in use.
        wal_used_bytes: Gauge = "thalweg_wal_used_bytes", "bytes";
        /// Bytes of the write-ahead log in all.
        wal_capacity_bytes: Gauge = "thalweg_wal_capacity_bytes", "bytes";
        /// Bytes of the write-ahead log that no committed object holds yet.
        wal_trim_lag_bytes: Gauge = "thalweg_wal_trim_lag_bytes", "bytes";
        /// Length of the shard's turns.
        turn_seconds: Histogram = "thalweg_shard_turn_seconds", "seconds", buckets::TURN;
        /// Share of the last second that the shard spent in turns, 0 to 1.
        busy_ratio: Gauge = "thalweg_shard_busy_ratio", "ratio";
        /// Messages that wait in the shard's mailbox.
        mailbox_depth: Gauge = "thalweg_shard_mailbox_depth", "messages";
        /// Partitions that are open on the shard.
        partitions: Gauge = "thalweg_shard_partitions", "partitions";
        /// Partitions that came from another shard of the broker.
        partitions_taken: Counter = "thalweg_shard_partitions_taken_total", "partitions";
        /// Connections of which a fetch waits on the shard, or did so last.
        fetch_watches: Gauge = "thalweg_fetch_watches", "connections";
        /// Reads of one partition each, by where the records came from.
        reads: ByTier<Counter> = "thalweg_reads_total", "reads";
        /// Bytes of record batches read, by where they came from.
        read_bytes: ByTier<Counter> = "thalweg_read_bytes_total", "bytes";
        /// Memory that the newest records take.
        tail_cache_bytes: Gauge = "thalweg_tail_cache_bytes", "bytes";
        /// Memory that indexes and blocks of objects take.
        cold_cache_bytes: Gauge = "thalweg_cold_cache_bytes", "bytes";
        /// Blocks of objects that were found in memory.
        cold_cache_hits: Counter = "thalweg_cold_cache_hits_total", "blocks";
        /// Blocks of objects that had to be read from the object store.
        cold_cache_misses: Counter = "thalweg_cold_cache_misses_total", "blocks";
        /// Objects uploaded and committed.
        uploaded_objects: Counter = "thalweg_upload_objects_total", "objects";
        /// Bytes of the objects uploaded and committed.
        uploaded_bytes: Counter = "thalweg_upload_bytes_total", "bytes";
        /// Uploads and commits that failed and are tried again.
        upload_errors: Counter = "thalweg_upload_errors_total", "uploads";
        /// From the start of an upload, of one object or several, to the commit of all of them.
        upload_seconds: Histogram = "thalweg_upload_seconds", "seconds", buckets::STORE;
        /// Objects that compaction made, by why.
        compaction_objects: ByKind<Counter> = "thalweg_compaction_objects_total", "objects";
        /// Bytes of the objects that compaction made.
        compaction_bytes: Counter = "thalweg_compaction_bytes_total", "bytes";
        /// Compactions thrown away because what they copied had changed meanwhile.
        compaction_dropped: Counter = "thalweg_compaction_dropped_total", "compactions";
        /// Compactions that failed and are tried again.
        compaction_errors: Counter = "thalweg_compaction_errors_total", "compactions";
        /// From the start of a compaction, of one object, to its commit.
        compaction_seconds: Histogram = "thalweg_compaction_seconds", "seconds", buckets::STORE;
        /// Rounds of log cleaning that came to their end, of one partition each.
        cleaner_rounds: Counter = "thalweg_cleaner_rounds_total", "rounds";
        /// Rounds of log cleaning that failed and are tried again.
        cleaner_errors: Counter = "thalweg_cleaner_errors_total", "rounds";
        /// Bytes of record batches that log cleaning read.
        cleaner_read_bytes: Counter = "thalweg_cleaner_read_bytes_total", "bytes";
        /// Bytes of the objects that log cleaning made.
        cleaner_written_bytes: Counter = "thalweg_cleaner_written_bytes_total", "bytes";
        /// Length of rounds of log cleaning.
        cleaner_seconds: Histogram = "thalweg_cleaner_seconds", "seconds", buckets::STORE;
        /// Of the dirtiest partition, the share of its bytes that no cleaning has seen, 0 to 1.
        cleaner_dirty_ratio: Gauge = "thalweg_cleaner_dirty_ratio", "ratio";
        /// Partitions that cannot be cleaned, for a batch in them cannot be unpacked.
        cleaner_unfit: Gauge = "thalweg_cleaner_uncleanable_partitions", "partitions";
        /// Since log cleaning last looked for work and had done all of it; 0 while it works.
        cleaner_idle_seconds: Gauge = "thalweg_cleaner_idle_seconds", "seconds";
        /// Log starts that moved, by why.
        log_starts_moved: ByReason<Counter> = "thalweg_retention_log_starts_moved_total", "moves";
        /// Bytes of record batches that went with objects, or manifests, of which no offset is left above the log start, by why.
        dropped_bytes: ByReason<Counter> = "thalweg_retention_bytes_total", "bytes";
        /// Manifests written: lists of objects that take their place in the metadata.
        manifests: Counter = "thalweg_manifests_written_total", "manifests";
        /// Manifests that gave their place back to what they list, for their topic's log is to be cleaned.
        manifests_unfolded: Counter = "thalweg_manifests_unfolded_total", "manifests";
        /// Objects of partitions that no manifest lists, each counted once for each partition in it.
        object_entries: Gauge = "thalweg_object_entries", "entries";
        /// Bytes of records in uploads that no compaction has taken up.
        compaction_waiting_bytes: Gauge = "thalweg_compaction_waiting_bytes", "bytes";
    }
}

crate::meters! {
    /// The object-store engine's handles; one set in the process.
    pub struct StoreMeters(STORE_METRICS, labels: []) {
        /// Calls of the object store by shards; those of the start are not counted.
        requests: ByOperation<Counter> = "thalweg_object_store_requests_total", "requests";
        /// Calls of the object store that failed.
        errors: ByOperation<Counter> = "thalweg_object_store_errors_total", "requests";
        /// Bytes that calls of the object store moved.
        bytes: ByOperation<Counter> = "thalweg_object_store_bytes_total", "bytes";
        /// How long calls of the object store took, retries within the engine included.
        seconds: ByOperation<Histogram> = "thalweg_object_store_seconds", "seconds", buckets::STORE;
    }
}

impl ShardMeters {
    /// The handles of one shard, registered with the recorder in force.
    pub fn new(shard: ShardId) -> ShardMeters {
        ShardMeters::register(&[("shard", shard.0.to_string())])
    }
}

impl StoreMeters {
    /// The engine's handles, registered with the recorder in force.
    pub fn new() -> StoreMeters {
        StoreMeters::register(&[])
    }
}

impl Default for StoreMeters {
    fn default() -> StoreMeters {
        StoreMeters::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meters::{Kind, Metric};

    #[test]
    fn names_say_kind_and_unit() {
        for Metric { name, kind, unit, buckets, help, .. } in SHARD_METRICS.iter().chain(STORE_METRICS) {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(buckets.is_empty(), *kind != Kind::Histogram, "{name}");
            assert!(buckets.is_sorted(), "{name}");
            assert!(help.ends_with('.') || help.ends_with("0 to 1."), "{name}: {help}");
            if ["bytes", "seconds", "ratio"].contains(unit) {
                assert!(name.trim_end_matches("_total").ends_with(unit), "{name} counts {unit}");
            }
        }
    }

    #[test]
    fn families_name_their_label_after_the_structs() {
        let reads = SHARD_METRICS.iter().find(|m| m.name == "thalweg_reads_total").expect("listed");
        assert_eq!((reads.kind, reads.labels().collect()), (Kind::Counter, vec!["shard", "tier"]));
        let store = STORE_METRICS.iter().find(|m| m.name == "thalweg_object_store_seconds").expect("listed");
        assert_eq!((store.kind, store.labels().collect()), (Kind::Histogram, vec!["operation"]));
    }
}
