//! Tokens for the device under the log: operations and bytes per second, of all shards of the process together.
//!
//! A small cloud disk (3,000 operations and 125 MB a second) is shared by all slices. Tokens are debts that time pays off
//! (the generic cell rate algorithm): whoever finds no debt beyond a short burst may write, whatever size, and owes for it.
//! A shard that has to wait goes on staging, so scarcity makes groups larger. One atomic per limit is all that is shared, and one
//! for when the last group went there: what can wait, waits until the device rests.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use thalweg_record::Mono;

/// What may be spent ahead of time.
const BURST: Duration = Duration::from_millis(20);
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// One limit.
#[derive(Debug)]
struct Debt {
    /// Units per second; 0 is no limit.
    rate: u64,
    /// When all is paid, in nanoseconds of [`Mono`].
    paid_at: AtomicU64,
}

impl Debt {
    fn new(rate: u64) -> Debt {
        Debt { rate, paid_at: AtomicU64::new(0) }
    }

    fn owe(&self, now: Mono, units: u64) {
        if self.rate > 0 {
            let cost = u64::try_from(u128::from(units) * NANOS_PER_SECOND / u128::from(self.rate)).unwrap_or(u64::MAX);
            let more = |paid_at: u64| Some(paid_at.max(now.0).saturating_add(cost));
            let _always_some = self.paid_at.fetch_update(Relaxed, Relaxed, more);
        }
    }

    fn ready_at(&self) -> Mono {
        Mono(self.paid_at.load(Relaxed).saturating_sub(BURST.as_nanos() as u64))
    }
}

/// The limits of the log's device, shared by the shards of a process.
#[derive(Debug)]
pub struct DevicePace {
    operations: Debt,
    bytes: Debt,
    /// When the last group was written by any shard, in nanoseconds of [`Mono`].
    last_group: AtomicU64,
}

impl DevicePace {
    /// `wal.max.iops` and `wal.max.bytes.per.second`; 0 is no limit.
    pub fn new(operations_per_second: u64, bytes_per_second: u64) -> DevicePace {
        let (operations, bytes) = (Debt::new(operations_per_second), Debt::new(bytes_per_second));
        DevicePace { operations, bytes, last_group: AtomicU64::new(0) }
    }

    /// A shard writes a group now.
    pub(crate) fn group(&self, now: Mono) {
        self.last_group.fetch_max(now.0, Relaxed);
    }

    /// How long no shard has written a group.
    pub(crate) fn quiet_for(&self, now: Mono) -> Duration {
        now.since(Mono(self.last_group.load(Relaxed)))
    }

    /// When the next operation may start, if that is not now.
    pub(crate) fn wait(&self, now: Mono) -> Option<Mono> {
        Some(self.operations.ready_at().max(self.bytes.ready_at())).filter(|at| *at > now)
    }

    /// An operation of `bytes` starts now.
    pub(crate) fn spend(&self, now: Mono, bytes: u64) {
        self.operations.owe(now, 1);
        self.bytes.owe(now, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many operations of `bytes` start in ten seconds, each as soon as it may.
    fn in_ten_seconds(pace: &DevicePace, bytes: u64) -> u64 {
        let (mut now, mut started) = (Mono(7), 0);
        while now < Mono(10_000_000_007) {
            match pace.wait(now) {
                Some(at) => now = at,
                None => {
                    pace.spend(now, bytes);
                    started += 1;
                }
            }
            assert!(started < 10_000_000, "no limit at all");
        }
        started
    }

    #[test]
    fn both_limits_hold_on_the_average() {
        let operations = in_ten_seconds(&DevicePace::new(3_000, 125_000_000), 4_096);
        assert!((30_000..30_100).contains(&operations), "{operations}");
        let bytes = in_ten_seconds(&DevicePace::new(3_000, 125_000_000), 1 << 20) << 20;
        assert!((1_250_000_000..1_255_000_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let pace = DevicePace::new(100, 0);
        let later = Mono(3_600_000_000_000);
        let burst = (0..).take_while(|_| pace.wait(later).is_none().then(|| pace.spend(later, 1)).is_some()).count();
        assert_eq!(burst, 3, "20 ms of them, and the one that begins the debt");
        assert_eq!(pace.wait(later), Some(later.plus(Duration::from_millis(10))));
    }

    #[test]
    fn the_device_rests_when_no_shard_writes() {
        let (pace, second) = (DevicePace::new(0, 0), Duration::from_secs(1));
        pace.group(Mono(0).plus(second * 5));
        // Another core is a little behind.
        pace.group(Mono(0).plus(second * 4));
        assert_eq!(pace.quiet_for(Mono(0).plus(second * 6)), second);
    }

    #[test]
    fn no_limit_never_waits() {
        let pace = DevicePace::new(0, 0);
        for _ in 0..1000 {
            pace.spend(Mono(1), u64::MAX);
        }
        assert_eq!(pace.wait(Mono(1)), None);
    }
}
