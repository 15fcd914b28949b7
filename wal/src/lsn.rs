//! Positions and identities within a WAL slice.

use std::fmt;

/// Logical byte offset in a WAL slice: only grows; its place in the ring is `lsn % capacity`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group in flight: what one device write carries. Ascends by one with each sealed group of a [`crate::Log`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u64);

/// Which opening of the slice wrote a group: a counter that never falls, and random bits that no payload can guess.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Incarnation {
    /// Counts the openings of the slice, from 1.
    pub opens: u64,
    /// Drawn anew at each opening.
    pub random: u64,
}
