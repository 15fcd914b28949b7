//! The limits of a log.

use std::time::Duration;

use crate::format::{BLOCK, ENTRY_LEN, GROUP_HEADER_LEN, round_up};

/// Limits of a [`crate::Log`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// The largest group in bytes, header and table included; rounded down to whole blocks. At least two blocks.
    pub max_group_bytes: u32,
    /// The most bytes of groups in flight; [`crate::Log::seal`] waits above it. At least twice `max_group_bytes`.
    pub max_in_flight_bytes: u32,
    /// Share of the ring, in percent, that only [`crate::Log::reserve_internal`] may fill. 0 to 50.
    pub reserve_percent: u8,
    /// How long nothing must have been sealed before a marker confirms the last group.
    pub marker_idle: Duration,
    /// Protections to take out, so that tests can show that they find it.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub planted: crate::PlantedBugs,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            max_group_bytes: 1 << 20,
            max_in_flight_bytes: 8 << 20,
            reserve_percent: 5,
            marker_idle: Duration::from_millis(5),
            #[cfg(any(test, feature = "planted-bugs"))]
            planted: crate::PlantedBugs::default(),
        }
    }
}

impl LogConfig {
    /// The same within the ranges that the fields name.
    pub(crate) fn within_ranges(mut self) -> LogConfig {
        self.max_group_bytes = (self.max_group_bytes / BLOCK as u32 * BLOCK as u32).clamp(2 * BLOCK as u32, 1 << 28);
        self.max_in_flight_bytes = self.max_in_flight_bytes.clamp(2 * self.max_group_bytes, 1 << 31);
        self.reserve_percent = self.reserve_percent.min(50);
        self
    }

    /// The largest batch in bytes that fits into a group: a greater `max.message.bytes` cannot be kept.
    pub fn max_batch_bytes(&self) -> u32 {
        self.within_ranges().max_group_bytes - (GROUP_HEADER_LEN + ENTRY_LEN) as u32
    }

    /// Length in bytes of the smallest device that can hold a ring of four of the largest group.
    pub fn min_device_bytes(&self) -> u64 {
        (4 * u64::from(self.within_ranges().max_group_bytes)) + crate::format::SUPERBLOCKS * BLOCK
    }
}

/// Ring bytes that a batch of `bytes` costs at most: it may be alone in its group.
pub(crate) fn ring_bytes(bytes: u32) -> u64 {
    round_up(u64::from(bytes) + (GROUP_HEADER_LEN + ENTRY_LEN) as u64)
}

impl LogConfig {
    /// The incarnation that groups bear.
    pub(crate) fn bears(&self, incarnation: crate::Incarnation) -> crate::Incarnation {
        #[cfg(any(test, feature = "planted-bugs"))]
        if self.planted.no_incarnation {
            return crate::Incarnation::default();
        }
        incarnation
    }

    /// Whether recovery checks what groups bear.
    pub(crate) fn checks_incarnation(&self) -> bool {
        #[cfg(any(test, feature = "planted-bugs"))]
        return !self.planted.no_incarnation;
        #[cfg(not(any(test, feature = "planted-bugs")))]
        true
    }

    /// Whether recovery checks that each group follows the one before.
    pub(crate) fn checks_chain(&self) -> bool {
        #[cfg(any(test, feature = "planted-bugs"))]
        return !self.planted.no_chain;
        #[cfg(not(any(test, feature = "planted-bugs")))]
        true
    }
}
