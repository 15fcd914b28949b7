//! Hedged reads: when the first byte of an answer is later than nineteen of twenty are, a second request is sent, and the
//! sooner answer taken. Of all reads at most one in twenty is sent twice, so that a slow store does not get double load.
#![expect(clippy::disallowed_types, reason = "lives in the tokio world; held for a moment, never while a request runs")]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures_util::future::{Either, select};
use thalweg_objectstore::StoreError;
use tokio::time::{Instant, sleep};

/// What a second request costs, in reads.
const PRICE: i64 = 20;
/// How many second requests may be saved up.
const SAVED: i64 = 10 * PRICE;
/// A second request is never sent sooner than this: answers of a near store differ by chance.
const SOONEST: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(5);
/// How fast the delay follows the store.
const STEP: f64 = 0.2;
/// The share of answers that come sooner than the delay.
const SHARE: f64 = 0.95;

/// When to send a second request, of all reads of a store.
#[derive(Debug)]
pub(crate) struct Hedge {
    delay: Mutex<Duration>,
    credit: AtomicI64,
}

impl Hedge {
    /// `delay` holds until the store has shown how fast it is.
    pub(crate) fn new(delay: Duration) -> Hedge {
        Hedge { delay: Mutex::new(delay), credit: AtomicI64::new(0) }
    }

    /// The answer to `call`, or to a second such call when the first is late.
    pub(crate) async fn first<T, F>(&self, mut call: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |c| Some((c + 1).min(SAVED))).ok();
        let (began, delay) = (Instant::now(), self.delay());
        let first = match select(Box::pin(call()), Box::pin(sleep(delay))).await {
            Either::Left((answer, _)) => {
                self.learn(delay, began.elapsed());
                return answer;
            }
            Either::Right(((), first)) => first,
        };
        self.learn(delay, began.elapsed());
        if !self.pay() {
            return first.await;
        }
        tracing::debug!(delay_ms = delay.as_millis() as u64, "reading a second time");
        match select(first, Box::pin(call())).await {
            // A fault that passes says nothing about the other request; anything else is the store's word.
            Either::Left((Err(StoreError::Retry(_)), second)) => second.await,
            Either::Right((Err(StoreError::Retry(_)), first)) => first.await,
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }

    fn delay(&self) -> Duration {
        *self.delay.lock().expect("no panic while held")
    }

    /// Moves the delay to where [`SHARE`] of the answers are sooner: up by much for each that is later, down by little
    /// for each that is sooner.
    fn learn(&self, delay: Duration, took: Duration) {
        let factor = if took > delay { 1.0 + STEP * SHARE } else { 1.0 - STEP * (1.0 - SHARE) };
        let mut held = self.delay.lock().expect("no panic while held");
        *held = held.mul_f64(factor).clamp(SOONEST, LATEST);
    }

    fn pay(&self) -> bool {
        let paid = |credit: i64| (credit >= PRICE).then(|| credit - PRICE);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(test)
    }

    #[test]
    fn the_delay_settles_where_one_in_twenty_is_later() {
        let hedge = Hedge::new(Duration::from_secs(1));
        let mut later = 0;
        for n in 0..20_000u64 {
            // Evenly 0 to 1000 ms, in an order without a rhythm.
            let took = Duration::from_millis(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54);
            let delay = hedge.delay();
            later += u64::from(n >= 10_000 && took > delay);
            hedge.learn(delay, took);
        }
        assert!((400..600).contains(&later), "{later} of 10,000 were later");
    }

    #[test]
    fn a_late_read_is_sent_twice_and_no_more_than_one_in_twenty() {
        run(async {
            let hedge = Hedge::new(Duration::from_millis(20));
            let calls = Cell::new(0);
            let quick = || async { Ok(()) };
            for _ in 0..PRICE - 1 {
                assert_eq!(hedge.first(quick).await, Ok(()));
            }
            let first_hangs = || {
                let n = calls.get();
                calls.set(n + 1);
                async move { if n == 0 { std::future::pending().await } else { Ok(n) } }
            };
            assert_eq!(hedge.first(first_hangs).await, Ok(1));
            // Spent: the next one waits.
            calls.set(0);
            let waits = tokio::time::timeout(Duration::from_millis(200), hedge.first(first_hangs)).await;
            assert!(waits.is_err());
            assert_eq!(calls.get(), 1);
        });
    }

    #[test]
    fn a_passing_fault_of_one_is_made_good_by_the_other_and_the_stores_word_counts() {
        run(async {
            for (quick, expected) in [
                (StoreError::Retry("reset".to_owned()), Ok(7)),
                (StoreError::Refused("no".to_owned()), Err(StoreError::Refused("no".to_owned()))),
            ] {
                let (hedge, calls) = (Hedge::new(Duration::from_millis(20)), Cell::new(0));
                hedge.credit.store(PRICE, Ordering::Relaxed);
                let answer = hedge.first(|| {
                    calls.set(calls.get() + 1);
                    let (n, quick) = (calls.get(), quick.clone());
                    async move {
                        if n == 1 {
                            sleep(Duration::from_millis(200)).await;
                            return Ok(7);
                        }
                        Err(quick)
                    }
                });
                assert_eq!(answer.await, expected);
                assert_eq!(calls.get(), 2);
            }
        });
    }
}
