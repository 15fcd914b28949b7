//! How many groups there are, by state, and how many members they have; kept up with every change, for the metrics.

use super::state::{Group, GroupState};

/// A count of groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    by_state: [u64; GroupState::ALL.len()],
    /// Members of all of them.
    pub members: u64,
}

impl Census {
    /// That of one group.
    pub(super) fn of(group: &Group) -> Census {
        let mut census = Census { members: group.members.len() as u64, ..Census::default() };
        census.by_state[group.state as usize] = 1;
        census
    }

    /// Groups in `state`.
    pub fn in_state(&self, state: GroupState) -> u64 {
        self.by_state[state as usize]
    }

    /// Adds what `other` counts.
    pub fn add(&mut self, other: &Census) {
        self.members += other.members;
        self.by_state.iter_mut().zip(other.by_state).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Takes away what `other` counts, which was added before.
    pub fn take(&mut self, other: &Census) {
        self.members -= other.members;
        self.by_state.iter_mut().zip(other.by_state).for_each(|(ours, theirs)| *ours -= theirs);
    }
}
