//! Who gets how much of an answer. Pure: sizes in, allotments out.
//!
//! The budget is one for all shards and is given out in request order (KIP-74). So that a partition late in the order
//! does not starve behind busy ones, the next fetch of the connection starts with the first one that got nothing.

/// What one partition has to give.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Offer {
    /// Bytes it could give; 0 for nothing, also when it is in error.
    pub bytes: u64,
    /// Size of its first batch.
    pub first_batch: u64,
    /// The request's limit for this partition.
    pub limit: u64,
    /// Whether they must be read from the ring or the object store.
    pub slow: bool,
    /// Whether they are read already, and are given whole or not at all.
    pub whole: bool,
}

/// Who gets how much.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Allotment {
    /// Bytes for each offer, in their order; 0 is none.
    pub bytes: Vec<u64>,
    /// The offer that was first in the order to have something: it gets a whole batch, whatever the limits.
    pub first: Option<usize>,
    /// The first offer in the order that had something and got nothing.
    pub starved: Option<usize>,
}

impl Allotment {
    /// Bytes given in all.
    pub fn total(&self) -> u64 {
        self.bytes.iter().sum()
    }
}

/// Gives out `budget` bytes, of which at most `slow_budget` to slow offers, in order from place `from` on, round to the
/// one before it. No offer gets less than its first batch: one whose first batch does not fit gets nothing, except for
/// the first that has any. The first batch of a slow offer may be smaller than told: it may try with what fits.
pub(super) fn allot(offers: &[Offer], budget: u64, slow_budget: u64, from: usize) -> Allotment {
    let mut left = budget;
    let mut slow_left = slow_budget;
    let mut allotment = Allotment { bytes: vec![0; offers.len()], first: None, starved: None };
    for place in (from..offers.len()).chain(0..from.min(offers.len())) {
        let offer = &offers[place];
        if offer.bytes == 0 {
            continue;
        }
        let room = if offer.slow { left.min(slow_left) } else { left };
        let limit = if offer.whole { room } else { room.min(offer.limit) };
        let least = match offer {
            Offer { whole: true, .. } => offer.bytes,
            Offer { slow: true, .. } if limit > 0 => offer.first_batch.min(limit),
            _ => offer.first_batch,
        };
        let given = if least <= limit {
            limit.min(offer.bytes.max(least)).max(if allotment.first.is_none() { offer.first_batch } else { 0 })
        } else if allotment.first.is_none() {
            least
        } else {
            allotment.starved.get_or_insert(place);
            continue;
        };
        allotment.first.get_or_insert(place);
        allotment.bytes[place] = given;
        left = left.saturating_sub(given);
        if offer.slow {
            slow_left = slow_left.saturating_sub(given);
        }
    }
    allotment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hot(bytes: u64, first_batch: u64, limit: u64) -> Offer {
        Offer { bytes, first_batch, limit, ..Offer::default() }
    }

    #[test]
    fn the_budget_goes_in_request_order() {
        let offers = [hot(600, 100, 1000), hot(0, 0, 1000), hot(600, 100, 1000), hot(600, 100, 1000)];
        let given = allot(&offers, 1000, 1000, 0);
        assert_eq!(given.bytes, [600, 0, 400, 0]);
        assert_eq!((given.first, given.starved), (Some(0), Some(3)));
    }

    #[test]
    fn the_next_round_starts_with_the_starved() {
        let offers = [hot(1000, 100, 1000), hot(1000, 100, 1000), hot(1000, 100, 1000)];
        let first = allot(&offers, 1000, 1000, 0);
        assert_eq!(first.starved, Some(1));
        let second = allot(&offers, 1000, 1000, 1);
        assert_eq!((second.bytes, second.starved), (vec![0, 1000, 0], Some(2)));
    }

    #[test]
    fn the_first_with_something_gets_one_batch_beyond_every_limit() {
        let offers = [hot(0, 0, 10), hot(5000, 5000, 10), hot(5000, 5000, 10)];
        let given = allot(&offers, 100, 100, 0);
        assert_eq!(given.bytes, [0, 5000, 0], "but only the first: the other waits for its turn");
        assert_eq!((given.first, given.starved), (Some(1), Some(2)));
        assert_eq!(allot(&[hot(70, 70, 0)], 0, 0, 0).bytes, [70], "limits of zero too");
    }

    #[test]
    fn a_partition_keeps_to_its_own_limit() {
        let offers = [hot(600, 100, 150), hot(600, 200, 150)];
        assert_eq!(allot(&offers, 1000, 1000, 0).bytes, [150, 0]);
    }

    #[test]
    fn slow_reads_have_a_budget_of_their_own() {
        let slow = Offer { slow: true, ..hot(800, 100, 1000) };
        let given = allot(&[slow, slow, hot(800, 100, 1000)], 5000, 1000, 0);
        assert_eq!(given.bytes, [800, 200, 800]);
    }

    #[test]
    fn a_slow_first_batch_may_be_smaller_than_told() {
        let slow = |first| Offer { slow: true, ..hot(5000, first, 1000) };
        let given = allot(&[slow(1012), slow(1012)], 50_000, 50_000, 0);
        assert_eq!(given.bytes, [1012, 1000], "the first gets its batch, the other tries with its limit");
    }

    #[test]
    fn what_was_read_before_is_given_whole() {
        let read = Offer { whole: true, ..hot(800, 800, 100) };
        assert_eq!(allot(&[hot(500, 100, 500), read], 1000, 0, 0).bytes, [500, 0]);
        assert_eq!(allot(&[hot(500, 100, 500), read], 1300, 0, 0).bytes, [500, 800]);
    }

    proptest! {
        #[test]
        fn limits_hold_and_somebody_always_gets_something(
            offers in prop::collection::vec((0u64..2000, 1u64..700, 0u64..1500, any::<bool>()), 1..8),
            budget in 0u64..4000,
            from in 0usize..8,
        ) {
            let offers: Vec<Offer> = offers
                .into_iter()
                .map(|(bytes, first, limit, slow)| Offer { bytes, first_batch: first.min(bytes), limit, slow, whole: false })
                .collect();
            let from = from % offers.len();
            let given = allot(&offers, budget, 1000, from);
            let something = offers.iter().any(|o| o.bytes > 0);
            prop_assert_eq!(given.first.is_some(), something);
            for (place, (offer, bytes)) in offers.iter().zip(&given.bytes).enumerate() {
                prop_assert!(*bytes == 0 || *bytes >= offer.first_batch || offer.slow);
                prop_assert!(*bytes <= offer.bytes);
                prop_assert!(*bytes <= offer.limit || given.first == Some(place));
            }
            let beyond = given.first.map_or(0, |place| offers[place].first_batch);
            prop_assert!(given.total() <= budget.max(beyond));
        }
    }
}
