//! The clock of a load: nanoseconds since it began, and sleeping to a moment as exactly as the kernel can.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Nanoseconds since a common start.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins after `delay`, so that all threads are there by then.
    pub fn begins_in(delay: Duration) -> Clock {
        Clock(Instant::now() + delay)
    }

    /// Nanoseconds since the start; 0 before it.
    pub fn now_ns(self) -> u64 {
        Instant::now().saturating_duration_since(self.0).as_nanos() as u64
    }

    /// Sleeps until then; not at all when it is past.
    pub fn sleep_until(self, ns: u64) {
        let wait = (self.0 + Duration::from_nanos(ns)).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }
}

/// Lets the calling thread wake within a microsecond of the time asked for; by default the kernel takes up to 50.
pub fn wake_exactly() {
    // SAFETY: sets a property of the calling thread and touches no memory. Refused, sleeps are merely less exact.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64, 0, 0, 0) };
}
