//! The share of its time that a shard spends in turns.

use thalweg_record::Mono;

const WINDOW_NS: u64 = 1_000_000_000;

/// Adds up turns over windows of a second.
#[derive(Debug)]
pub struct BusyRatio {
    since: Mono,
    busy_ns: u64,
}

impl BusyRatio {
    /// Starts a window at `now`.
    pub fn new(now: Mono) -> BusyRatio {
        BusyRatio { since: now, busy_ns: 0 }
    }

    /// Counts one turn. At the end of a window: its ratio, 0 to 1, for [`super::ShardMeters::busy_ratio`].
    pub fn turn(&mut self, began: Mono, ended: Mono) -> Option<f64> {
        self.busy_ns += ended.0.saturating_sub(began.0);
        let window_ns = ended.0.saturating_sub(self.since.0);
        if window_ns < WINDOW_NS {
            return None;
        }
        let ratio = self.busy_ns as f64 / window_ns as f64;
        *self = BusyRatio::new(ended);
        Some(ratio.min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_after_a_second_and_the_next_starts_anew() {
        let at = |ms: u64| Mono(ms * 1_000_000);
        let mut busy = BusyRatio::new(at(0));
        assert_eq!(busy.turn(at(0), at(100)), None);
        assert_eq!(busy.turn(at(900), at(1000)), Some(0.2));
        assert_eq!(busy.turn(at(1000), at(1500)), None);
        assert_eq!(busy.turn(at(2000), at(2000)), Some(0.5));
    }
}
