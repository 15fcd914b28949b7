//! What all calls of a store may spend on trying again, as in the standard mode of AWS's SDKs: while most calls fail, each
//! is made once, and an outage does not get a multiple of the load.

use std::sync::atomic::{AtomicU32, Ordering};

/// What there is at most, and at first.
const FULL: u32 = 500;
/// What trying again costs; it comes back when that succeeds.
const PRICE: u32 = 5;
/// What a call earns that succeeds at once.
const WAGE: u32 = 1;

/// Tokens for trying again.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Budget {
    pub(crate) fn new() -> Budget {
        Budget(AtomicU32::new(FULL))
    }

    /// Pays for trying again; `false` when there is not enough.
    pub(crate) fn pay(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(PRICE)).is_ok()
    }

    /// The store answered, the first time it was asked or not.
    pub(crate) fn earn(&self, first_time: bool) {
        let more = if first_time { WAGE } else { PRICE };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some((held + more).min(FULL))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_spends_it_and_answers_bring_it_back() {
        let budget = Budget::new();
        assert_eq!((0..1000).filter(|_| budget.pay()).count(), 100);
        (0..4).for_each(|_| budget.earn(true));
        assert!(!budget.pay());
        budget.earn(true);
        assert!(budget.pay() && !budget.pay());
        (0..1000).for_each(|_| budget.earn(false));
        assert_eq!((0..1000).filter(|_| budget.pay()).count(), 100, "never more than full");
    }
}
