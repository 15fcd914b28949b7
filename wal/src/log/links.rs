//! Where groups end, and the CRC of each: the places at which the log may be trimmed.

use std::collections::VecDeque;

use crate::Lsn;

/// The end of a group and its CRC: the link of the chain for the group that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Link {
    pub lsn: Lsn,
    pub crc: u32,
}

/// Ends of groups, not all: at most one for each 4,096th of the ring, so that memory stays bounded.
pub(super) struct Links {
    step: u64,
    kept: VecDeque<Link>,
}

impl Links {
    pub(super) fn new(capacity: u64) -> Links {
        Links { step: capacity / 4096, kept: VecDeque::new() }
    }

    pub(super) fn push(&mut self, link: Link) {
        if self.kept.back().is_none_or(|last| link.lsn.0 - last.lsn.0 >= self.step) {
            self.kept.push_back(link);
        }
    }

    /// The last kept end at or below `lsn`; what lies before it is forgotten.
    pub(super) fn advance_to(&mut self, lsn: Lsn) -> Option<Link> {
        let above = self.kept.partition_point(|link| link.lsn <= lsn);
        self.kept.drain(..above.saturating_sub(1));
        self.kept.front().copied().filter(|link| link.lsn <= lsn)
    }
}
