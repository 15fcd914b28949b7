//! How fast bytes may go out that have time. Pure: it is told the time, and says when more may begin.

use std::{num::NonZeroU64, time::Duration};

/// The pace of one piece of work. Time that was not used is not saved up: after a stall its bytes go out as evenly as before.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    /// When all that was begun will have taken its time, since whatever the caller counts from.
    busy_until: Duration,
}

impl Pace {
    /// At most `bytes_per_second`.
    pub fn new(bytes_per_second: NonZeroU64) -> Pace {
        Pace { bytes_per_second, busy_until: Duration::ZERO }
    }

    /// When `bytes` may begin that are asked for `now`, one after the other.
    pub fn begin(&mut self, now: Duration, bytes: u64) -> Duration {
        let begins = self.busy_until.max(now);
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        self.busy_until = begins.saturating_add(takes);
        begins
    }

    /// Takes `bytes` that begin at `now`; says when what follows may begin.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        self.begin(now, bytes);
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let at = Duration::from_secs;
        let mut pace = Pace::new(NonZeroU64::new(8).expect("not 0"));
        assert_eq!(pace.take(at(5), 16), at(7));
        assert_eq!(pace.take(at(7), 8), at(8));
        assert_eq!(pace.take(at(60), 8), at(61), "after a stall the next one takes its time too");
        assert_eq!(pace.take(at(60), 8), at(62), "who comes too soon waits for what went before");
    }
}
