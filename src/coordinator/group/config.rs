//! The settings that groups obey, with Apache Kafka's defaults.

use std::time::Duration;

use crate::config::Config;

/// Settings of the group coordinator, by Kafka's broker setting each comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`: a shorter session timeout is refused (26).
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: a longer session timeout is refused (26).
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members. Kafka's
    /// compiled default is 3 s, the file it ships says 0; so does ours.
    pub initial_rebalance_delay: Duration,
    /// `group.max.size`: members a classic group may have.
    pub max_size: usize,
    /// How long a member that has not yet learnt its member id may stay parked in a rebalance. Not a setting in Kafka
    /// either.
    pub new_member_join_timeout: Duration,
    /// `offset.metadata.max.bytes`: longer metadata of a committed offset is refused (12).
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`: how long offsets outlive their group's last member, or their commit.
    pub offsets_retention: Duration,
    /// `offsets.retention.check.interval.ms`: how often expired offsets are looked for.
    pub offsets_retention_check_interval: Duration,
    /// `offsets.commit.timeout.ms`: how long a group waits for the log before it answers that it does not know.
    pub offsets_commit_timeout: Duration,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay: Duration::ZERO,
            max_size: i32::MAX as usize,
            new_member_join_timeout: Duration::from_secs(300),
            offset_metadata_max_bytes: 4_096,
            offsets_retention: Duration::from_secs(7 * 24 * 3600),
            offsets_retention_check_interval: Duration::from_secs(600),
            offsets_commit_timeout: Duration::from_secs(5),
        }
    }
}

impl GroupConfig {
    /// What the broker's settings say, Kafka's defaults for the rest.
    pub fn of(config: &Config) -> GroupConfig {
        GroupConfig {
            min_session_timeout_ms: config.group_min_session_timeout_ms as i32,
            max_session_timeout_ms: config.group_max_session_timeout_ms as i32,
            initial_rebalance_delay: Duration::from_millis(u64::from(config.group_initial_rebalance_delay_ms)),
            max_size: config.group_max_size as usize,
            offset_metadata_max_bytes: config.offset_metadata_max_bytes as usize,
            offsets_retention: Duration::from_secs(60 * u64::from(config.offsets_retention_minutes)),
            ..GroupConfig::default()
        }
    }
}
