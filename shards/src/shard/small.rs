//! A shard for tests: small, and doing nothing by itself.

use std::time::Duration;

use thalweg_record::{NodeId, ShardId};

use super::ShardConfig;
use crate::upload::{UploadConfig, WriterIdentity};

impl ShardConfig {
    /// With room for a MiB of everything; nothing is ever due by time.
    pub(crate) fn small(id: ShardId) -> ShardConfig {
        let never = Duration::from_secs(1 << 30);
        ShardConfig {
            id,
            identity: WriterIdentity { cluster_id: "c".into(), node: NodeId(1), node_epoch: 2 },
            tail_cache_bytes: 1 << 20,
            groups_in_flight: 2,
            overlap_bytes: 64 << 10,
            wal_bytes_in_flight: 1 << 20,
            ring_read_bytes: 1 << 20,
            upload: UploadConfig {
                object_bytes: 1 << 20,
                interval: never,
                split_bytes: 1 << 20,
                block_bytes: 4096,
                jobs: 1,
                batches: 1000,
            },
            retention_check_interval: never,
            producer_expiration: never,
            entries_max: usize::MAX,
        }
    }
}
