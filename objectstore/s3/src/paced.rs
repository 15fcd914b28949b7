//! The pace of one put that may have time.
#![expect(
    clippy::disallowed_types,
    reason = "lives in the tokio world; held for a moment, never while a request waits"
)]

use std::{num::NonZeroU64, sync::Mutex};

use thalweg_objectstore::Pace;
use tokio::time::{Instant, sleep_until};

/// Parts of one upload in flight.
const PARTS_AT_ONCE: usize = 4;
/// What goes no faster than this goes one part after the other, so that a stall is not made good afterwards. One connection may be slower
/// than what is faster: then as many parts are in flight as where nothing bounds them, each begun when it may.
const IN_LINE_BYTES_PER_SECOND: u64 = 64 << 20;

/// Lets the requests of one put begin when they may.
#[derive(Debug)]
pub(crate) struct Paced {
    began: Instant,
    parts_at_once: usize,
    /// `None`: at once.
    pace: Option<Mutex<Pace>>,
}

impl Paced {
    /// At most so many bytes a second, if there is a bound.
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Paced {
        let in_line = bytes_per_second.is_some_and(|rate| rate.get() <= IN_LINE_BYTES_PER_SECOND);
        let parts_at_once = if in_line { 1 } else { PARTS_AT_ONCE };
        Paced { began: Instant::now(), parts_at_once, pace: bytes_per_second.map(Pace::new).map(Mutex::new) }
    }

    /// How many parts may be in flight.
    pub(crate) fn parts_at_once(&self) -> usize {
        self.parts_at_once
    }

    /// Waits until what went before has taken its time; what begins then has `bytes`.
    pub(crate) async fn begin(&self, bytes: u64) {
        let Some(pace) = &self.pace else { return };
        let begins = pace.lock().expect("no panic while held").begin(self.began.elapsed(), bytes);
        sleep_until(self.began + begins).await;
    }

    /// Waits until all of it has taken its time.
    pub(crate) async fn end(&self) {
        self.begin(0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn parts_side_by_side_begin_no_sooner_than_one_after_the_other() {
        let paced = Paced::new(NonZeroU64::new(100 << 20));
        assert_eq!((paced.parts_at_once(), Paced::new(NonZeroU64::new(32 << 20)).parts_at_once()), (4, 1));
        let begun = |n: u32| {
            let paced = &paced;
            async move {
                paced.begin(5 << 20).await;
                assert!(paced.began.elapsed() >= Duration::from_millis(50) * n);
            }
        };
        tokio::join!(begun(0), begun(1), begun(2));
        paced.end().await;
        assert!(paced.began.elapsed() >= Duration::from_millis(150));
    }
}
