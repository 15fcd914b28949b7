//! How long producers are asked to pause as the ring fills up, before any of them is refused.
//!
//! Pure. The ring fills when uploads cannot keep up with producers, above all while the object store is down. Pauses grow
//! with the square of how far the free room has shrunk below a fifth of the ring: a short dip costs little, and a ring that
//! is nearly full takes what trickles out of it.

use std::time::Duration;

/// Producers pause while less than this percentage of the ring is free to them.
const FREE_PERCENT: u64 = 20;
/// The pause when nothing is free.
const LONGEST: Duration = Duration::from_secs(1);

/// The pause that goes with an answer while `free` of `capacity` ring bytes are open to clients (KIP-219: the answer leaves
/// at once, then the connection is not read).
pub(crate) fn throttle(free: u64, capacity: u64) -> Duration {
    let room = capacity / 100 * FREE_PERCENT;
    if free >= room {
        return Duration::ZERO;
    }
    let missing = (room - free) as f64 / room as f64;
    LONGEST.mul_f64(missing * missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_at_a_fifth_and_grow_to_the_longest() {
        assert_eq!(throttle(1000, 1000), Duration::ZERO);
        assert_eq!(throttle(200, 1000), Duration::ZERO);
        assert_eq!(throttle(100, 1000), Duration::from_millis(250));
        assert_eq!(throttle(0, 1000), LONGEST);
        assert!((0..200).all(|free| throttle(free, 1000) > throttle(free + 1, 1000)));
    }
}
