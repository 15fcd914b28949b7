//! From overrides and the broker's defaults to the values in force in the shards.

use std::collections::BTreeMap;

use thalweg_shards::{
    codec::Compression,
    msg::{Millionths, PartitionSettings},
};

/// Levels of the codecs for topics that name a codec and no level of it (`compression.*.level`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompressionLevels {
    /// 1 to 9, or -1.
    pub gzip: i32,
    /// 1 to 17.
    pub lz4: i32,
    /// -131,072 to 22.
    pub zstd: i32,
}

impl CompressionLevels {
    /// What `compression.type` means at these levels; `producer` is `None`.
    pub fn compression(self, kind: &str) -> Option<Compression> {
        match kind {
            "uncompressed" => Some(Compression::Uncompressed),
            "gzip" => Some(Compression::Gzip(self.gzip)),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4(self.lz4)),
            "zstd" => Some(Compression::Zstd(self.zstd)),
            _ => None,
        }
    }
}

/// What the broker's own settings say about topics that do not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerDefaults {
    /// `num.partitions`, >= 1.
    pub num_partitions: i32,
    /// `wal.max.group.bytes`: a topic's largest batch must fit.
    pub max_group_bytes: u32,
    /// `compression.type`.
    pub compression_type: &'static str,
    /// `compression.*.level`.
    pub compression_levels: CompressionLevels,
    /// Settings of a topic without overrides; its compression follows from the two above.
    pub settings: PartitionSettings,
    /// What was altered of all this while the broker ran, by the topics' names.
    pub altered: BTreeMap<String, String>,
}

impl BrokerDefaults {
    /// The settings in force for a topic with these overrides, which are checked.
    pub fn effective(&self, overrides: &BTreeMap<String, String>) -> PartitionSettings {
        let mut settings = self.settings.clone();
        let mut levels = self.compression_levels;
        let level = |value: &str| value.parse().unwrap_or(0);
        for (name, value) in self.altered.iter().chain(overrides) {
            match name.as_str() {
                "max.message.bytes" => settings.max_message_bytes = number(value).unwrap_or(0) as u32,
                "retention.ms" => settings.retention_ms = number(value),
                "retention.bytes" => settings.retention_bytes = number(value),
                "message.timestamp.before.max.ms" => settings.timestamp_before_max_ms = limit(value),
                "message.timestamp.after.max.ms" => settings.timestamp_after_max_ms = limit(value),
                "message.timestamp.type" => settings.log_append_time = value == "LogAppendTime",
                "min.cleanable.dirty.ratio" => {
                    settings.cleaning.least_ratio = Millionths::of(value.parse().unwrap_or(0.0));
                }
                "min.compaction.lag.ms" => settings.cleaning.min_lag_ms = number(value).unwrap_or(0),
                "max.compaction.lag.ms" => settings.cleaning.max_lag_ms = limit(value),
                "delete.retention.ms" => settings.cleaning.delete_retention_ms = number(value).unwrap_or(0),
                "segment.ms" => settings.cleaning.segment_ms = number(value).unwrap_or(u64::MAX),
                "compression.gzip.level" => levels.gzip = level(value),
                "compression.lz4.level" => levels.lz4 = level(value),
                "compression.zstd.level" => levels.zstd = level(value),
                "cleanup.policy" => {
                    settings.delete = value.split(',').any(|policy| policy == "delete");
                    settings.compact = value.split(',').any(|policy| policy == "compact");
                }
                _ => {}
            }
        }
        let kind = overrides.get("compression.type").or_else(|| self.altered.get("compression.type"));
        let kind = kind.map_or(self.compression_type, String::as_str);
        settings.compression = levels.compression(kind);
        settings
    }
}

/// A number; -1 is `None`.
fn number(value: &str) -> Option<u64> {
    value.parse::<i64>().ok().and_then(|n| u64::try_from(n).ok())
}

/// A number; the greatest one is `None`.
fn limit(value: &str) -> Option<u64> {
    number(value).filter(|n| *n != i64::MAX.unsigned_abs())
}

#[cfg(test)]
pub(in crate::cluster) mod tests {
    use thalweg_shards::msg::CleaningSettings;

    use super::*;

    /// Kafka's defaults.
    pub(in crate::cluster) fn defaults() -> BrokerDefaults {
        let settings = PartitionSettings::KAFKA_DEFAULTS;
        let compression_levels = CompressionLevels { gzip: -1, lz4: 9, zstd: 3 };
        BrokerDefaults {
            num_partitions: 1,
            max_group_bytes: 4 << 20,
            compression_type: "producer",
            compression_levels,
            settings,
            altered: BTreeMap::new(),
        }
    }

    #[test]
    fn overrides_replace_defaults() {
        let defaults = defaults();
        assert_eq!(defaults.effective(&BTreeMap::new()), defaults.settings);
        let overrides = [
            ("max.message.bytes", "2000"),
            ("retention.ms", "-1"),
            ("retention.bytes", "500"),
            ("cleanup.policy", "compact"),
            ("message.timestamp.before.max.ms", "7"),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
            ("segment.bytes", "1048576"),
            ("segment.ms", "11"),
            ("message.timestamp.type", "LogAppendTime"),
            ("compression.type", "gzip"),
            ("compression.gzip.level", "2"),
            ("min.cleanable.dirty.ratio", "0.01"),
            ("min.compaction.lag.ms", "8"),
            ("max.compaction.lag.ms", "9"),
            ("delete.retention.ms", "10"),
        ];
        let overrides = overrides.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let expected = PartitionSettings {
            max_message_bytes: 2000,
            retention_ms: None,
            retention_bytes: Some(500),
            delete: false,
            compact: true,
            timestamp_before_max_ms: Some(7),
            timestamp_after_max_ms: None,
            log_append_time: true,
            compression: Some(Compression::Gzip(2)),
            cleaning: CleaningSettings {
                least_ratio: Millionths(10_000),
                min_lag_ms: 8,
                max_lag_ms: Some(9),
                delete_retention_ms: 10,
                segment_ms: 11,
            },
            version: 0,
        };
        assert_eq!(defaults.effective(&overrides), expected);
        let broker = BrokerDefaults { compression_type: "zstd", ..defaults };
        assert_eq!(broker.effective(&BTreeMap::new()).compression, Some(Compression::Zstd(3)));
        let own = [("compression.type".to_owned(), "producer".to_owned())].into();
        assert_eq!(broker.effective(&own).compression, None);
        let altered = [("compression.type".to_owned(), "lz4".to_owned()), ("retention.ms".to_owned(), "7".to_owned())];
        let broker = BrokerDefaults { altered: altered.into(), ..broker };
        assert_eq!(broker.effective(&BTreeMap::new()).compression, Some(Compression::Lz4(9)));
        assert_eq!(broker.effective(&own).compression, None, "a topic's own value goes before what was altered");
        assert_eq!(broker.effective(&own).retention_ms, Some(7));
    }
}
