//! Leader epochs of a partition and where each begins (KIP-101).
//!
//! Pure; owned by the partition. Epochs and their first offsets both ascend.

use thalweg_record::{LeaderEpoch, Offset};

/// Epochs in ascending order with their first offsets.
#[derive(Clone, Debug, Default)]
pub struct EpochHistory(Vec<(LeaderEpoch, Offset)>);

impl EpochHistory {
    /// A history as it was persisted. Entries that do not ascend are dropped: they cannot have been written.
    pub fn new(entries: Vec<(LeaderEpoch, Offset)>) -> EpochHistory {
        let mut history = EpochHistory::default();
        for (epoch, start) in entries {
            history.note(epoch, start);
        }
        history
    }

    /// A batch of `epoch` begins at `start`; remembered when the epoch is new.
    pub fn note(&mut self, epoch: LeaderEpoch, start: Offset) {
        if self.0.last().is_none_or(|(last, _)| *last < epoch) {
            self.0.push((epoch, start));
        }
    }

    /// The largest epoch at or below `asked` with its end offset; `end` is the log end, where the current epoch ends.
    /// `None` when every known epoch is larger.
    pub fn end_of(&self, asked: LeaderEpoch, end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let after = self.0.partition_point(|(epoch, _)| *epoch <= asked);
        let (epoch, _) = *self.0.get(after.checked_sub(1)?)?;
        Some((epoch, self.0.get(after).map_or(end, |(_, start)| *start)))
    }

    /// The epoch that `offset` was written under, as far as known.
    pub fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.0.partition_point(|(_, start)| *start <= offset);
        Some(self.0.get(after.checked_sub(1)?)?.0)
    }

    /// The epochs that begin in `[from, to]`.
    pub fn beginning_in(&self, from: Offset, to: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.0.iter().filter(|(_, start)| (from..=to).contains(start)).copied().collect()
    }

    /// Everything, for persisting.
    pub fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        EpochHistory::new(vec![(LeaderEpoch(2), Offset(0)), (LeaderEpoch(5), Offset(40)), (LeaderEpoch(6), Offset(70))])
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let end = |asked| history().end_of(LeaderEpoch(asked), Offset(99)).map(|(e, o)| (e.0, o.0));
        assert_eq!(end(1), None);
        assert_eq!(end(2), Some((2, 40)));
        assert_eq!(end(4), Some((2, 40)), "an unknown epoch falls back to the largest below it");
        assert_eq!(end(5), Some((5, 70)));
        assert_eq!(end(6), Some((6, 99)), "the current epoch ends at the log end");
    }

    #[test]
    fn an_epoch_is_noted_once_and_never_falls() {
        let mut h = history();
        h.note(LeaderEpoch(6), Offset(80));
        h.note(LeaderEpoch(3), Offset(90));
        assert_eq!(h.entries().len(), 3);
        assert_eq!(h.at(Offset(69)), Some(LeaderEpoch(5)));
        assert_eq!(h.beginning_in(Offset(40), Offset(69)), vec![(LeaderEpoch(5), Offset(40))]);
    }
}
