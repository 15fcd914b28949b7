//! Settings of a topic, as its partitions' shards follow them.

use crate::codec::Compression;

/// Topic settings that act in a shard; the values in force, defaults applied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionSettings {
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `retention.ms`; `None` is -1, for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`; `None` is -1, no limit.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// `cleanup.policy` contains `compact`: null keys are refused.
    pub compact: bool,
    /// `message.timestamp.before.max.ms`; `None` is the default, no limit.
    pub timestamp_before_max_ms: Option<u64>,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: Option<u64>,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `compression.type` and its level; `None` is `producer`, as it was sent.
    pub compression: Option<Compression>,
    /// When and how the log is cleaned, if `compact`.
    pub cleaning: CleaningSettings,
    /// Revision of the metadata that these settings are of; objects tell it to a rebuild.
    pub version: u64,
}

/// A share of a whole, in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Millionths(pub u32);

impl Millionths {
    /// Of a number from 0 to 1.
    pub fn of(share: f64) -> Millionths {
        Millionths((share.clamp(0.0, 1.0) * 1e6).round() as u32)
    }

    /// As a number from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

/// Settings of a topic whose log is cleaned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleaningSettings {
    /// `min.cleanable.dirty.ratio`.
    pub least_ratio: Millionths,
    /// `min.compaction.lag.ms`.
    pub min_lag_ms: u64,
    /// `max.compaction.lag.ms`; `None` is the default, for ever.
    pub max_lag_ms: Option<u64>,
    /// `delete.retention.ms`.
    pub delete_retention_ms: u64,
    /// `segment.ms`: what is dirty for so long is cleaned though it is little.
    pub segment_ms: u64,
}

impl PartitionSettings {
    /// Kafka's defaults.
    pub const KAFKA_DEFAULTS: PartitionSettings = PartitionSettings {
        max_message_bytes: 1_048_588,
        retention_ms: Some(604_800_000),
        retention_bytes: None,
        delete: true,
        compact: false,
        timestamp_before_max_ms: None,
        timestamp_after_max_ms: Some(3_600_000),
        log_append_time: false,
        compression: None,
        cleaning: CleaningSettings {
            least_ratio: Millionths(500_000),
            min_lag_ms: 0,
            max_lag_ms: None,
            delete_retention_ms: 86_400_000,
            segment_ms: 604_800_000,
        },
        version: 0,
    };
}
