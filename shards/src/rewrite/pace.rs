//! How fast a shard copies, for compaction and for cleaning: slowly while little waits, for producers want the same disk, network and cores, and faster the more does.
//!
//! With nothing but a rate, either a peak of producers is felt twice, or a load that goes on for hours outruns compaction, and entries and
//! small objects pile up. So the rate doubles with each *usual backlog* that waits: about what is there when a merger begins. Under any
//! steady load the backlog then grows to where both are equally fast, some times the usual one, and stays there.

use std::{cell::RefCell, num::NonZeroU64};

use thalweg_record::Mono;

/// The rate doubles at most so often.
const DOUBLINGS: f64 = 10.0;

/// The pace of one piece of work. Pure: it says when something may begin.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Bytes that are read or written in a second; `None`: as fast as it goes.
    rate: Option<NonZeroU64>,
    /// Of the same rate, in time since the clock's zero.
    begun: Option<RefCell<thalweg_objectstore::Pace>>,
}

impl Pace {
    /// Work that copies `bytes_per_second` (0: no bound) while nothing waits, and twice as many with each `usual_backlog` of the
    /// `waiting` bytes.
    pub(crate) fn new(bytes_per_second: u64, usual_backlog: u64, waiting: u64) -> Pace {
        let doublings = (waiting as f64 / usual_backlog.max(1) as f64).min(DOUBLINGS);
        // What is copied is read, and then written.
        let rate = 2.0 * bytes_per_second as f64 * doublings.exp2();
        let rate = NonZeroU64::new(rate as u64);
        Pace { rate, begun: rate.map(thalweg_objectstore::Pace::new).map(RefCell::new) }
    }

    /// When `bytes` may be read that are asked for `now`, one after the other.
    pub(crate) fn begin(&self, now: Mono, bytes: u64) -> Mono {
        let zero = Mono(0);
        self.begun.as_ref().map_or(now, |pace| zero.plus(pace.borrow_mut().begin(now.since(zero), bytes)))
    }

    /// Bytes per second of one long write.
    pub(crate) fn rate(&self) -> Option<NonZeroU64> {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn copied_per_second(waiting: u64) -> u64 {
        Pace::new(16 * MIB, 3 * GIB, waiting).rate().map_or(0, |rate| rate.get() / 2 / MIB)
    }

    #[test]
    fn the_more_waits_the_faster_it_goes() {
        assert_eq!(copied_per_second(0), 16);
        assert_eq!(copied_per_second(3 * GIB), 32);
        assert_eq!(copied_per_second(15 * GIB), 512);
        assert_eq!(copied_per_second(u64::MAX), 16 << 10);
    }

    #[test]
    fn one_thing_begins_when_the_one_before_has_taken_its_time() {
        let pace = Pace::new(8, GIB, 0);
        let second = Duration::from_secs(1);
        let now = Mono(5);
        assert_eq!(pace.begin(now, 32), now);
        assert_eq!(pace.begin(now, 16), now.plus(second * 2));
        assert_eq!(pace.begin(now.plus(second), 16), now.plus(second * 3));
        assert_eq!(pace.begin(now.plus(second * 60), 16), now.plus(second * 60), "what was not used is not saved up");
    }

    #[test]
    fn without_a_bound_nothing_waits() {
        let pace = Pace::new(0, GIB, GIB);
        assert_eq!((pace.begin(Mono(1), u64::MAX), pace.begin(Mono(1), 1)), (Mono(1), Mono(1)));
        assert_eq!(pace.rate(), None);
    }
}
