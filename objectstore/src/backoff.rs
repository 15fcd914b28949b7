//! How long to wait between attempts: exponential, with full jitter, so that many clients do not return in step.
//!
//! Pure: the caller brings the randomness and does the waiting.

use std::time::Duration;

/// Exponential back-off with full jitter: attempt `n` waits a uniform part of `min(cap, base * 2^n)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of any wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `attempt` (from 0) failed; `random` is 64 uniform bits.
    pub fn wait(&self, attempt: u32, random: u64) -> Duration {
        let bound = self.base.saturating_mul(1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX)).min(self.cap);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        // The upper half of the product maps 64 random bits onto 0..=nanos without a bias worth naming.
        Duration::from_nanos(((u128::from(random) * (u128::from(nanos) + 1)) >> 64) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_within_their_bound_and_use_all_of_it() {
        let backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5) };
        assert_eq!(backoff.wait(0, 0), Duration::ZERO);
        assert_eq!(backoff.wait(0, u64::MAX), Duration::from_millis(50));
        assert_eq!(backoff.wait(3, u64::MAX), Duration::from_millis(400));
        assert_eq!(backoff.wait(40, u64::MAX), Duration::from_secs(5), "capped, and no overflow");
    }
}
