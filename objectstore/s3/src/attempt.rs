//! Trying: a bound on requests in flight, a timeout per attempt and in all, and waits with full jitter between attempts.

use std::{cell::Cell, time::Duration};

use thalweg_objectstore::{Backoff, StoreError};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};

use crate::{budget::Budget, chance::Chance};

/// The slowest way to the store that still works: what moves bytes gets so much more time.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

/// Bounds of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Requests in flight, of all shards together.
    pub in_flight: usize,
    /// How long one attempt may take, besides the time that its bytes need on a slow line.
    pub attempt: Duration,
    /// How long nothing may move on a connection that somebody waits for. Longer than an answer may take, and what the system still
    /// holds of a request may need on a slow line; calls without many bytes end sooner.
    pub stall: Duration,
    /// How long a call may take with all its attempts, likewise. A multipart upload is several calls.
    pub total: Duration,
    /// Waits between attempts.
    pub backoff: Backoff,
    /// Larger objects are uploaded in parts: each part is a request to be paid, and so are their beginning and end.
    pub single_bytes: usize,
    /// The most that a part holds; all parts are about as large. S3 wants at least 5 MiB.
    pub part_bytes: usize,
    /// How long the first byte of a read may take before a second request is sent, until the store has shown how fast it
    /// is.
    pub hedge: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            in_flight: 64,
            attempt: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(60),
            backoff: Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(5) },
            single_bytes: 32 << 20,
            part_bytes: 48 << 20,
            hedge: Duration::from_secs(1),
        }
    }
}

/// Whether a call may be sent again when its outcome is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    /// It comes to the same.
    Harmless,
    /// The first attempt may have done it, and the second would then be refused: the caller must look. It is sent again only
    /// where nothing can have been done ([`undone`]).
    Ambiguous,
}

tokio::task_local! {
    /// Whether the call's last request has certainly done nothing: libraries' errors have no place for it.
    static UNDONE: Cell<bool>;
}

/// Notes of the call that this task makes whether its request has certainly done nothing.
pub(crate) fn undone(certainly: bool) {
    // Not within a call: nobody wants to know.
    let _nobody = UNDONE.try_with(|noted| noted.set(certainly));
}

/// How often an ambiguous call that was turned away is repeated. Its caller tells the operator, and should hear of it in seconds.
const TURNED_AWAY: u32 = 4;

/// Runs calls within [`Limits`].
#[derive(Debug)]
pub(crate) struct Attempts {
    pub(crate) limits: Limits,
    permits: Semaphore,
    chance: Chance,
    budget: Budget,
}

impl Attempts {
    /// `seed` tells the jitter of this process from that of others.
    pub(crate) fn new(limits: Limits, seed: u64) -> Attempts {
        let permits = Semaphore::new(limits.in_flight.max(1));
        Attempts { limits, permits, chance: Chance::new(seed), budget: Budget::new() }
    }

    /// Calls what moves no bytes worth naming: [`Attempts::moving`].
    pub(crate) async fn run<T, F>(&self, repeat: Repeat, call: impl FnMut() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        self.moving(0, repeat, call).await
    }

    /// Calls what moves `bytes` until it succeeds, fails for good, or the time is up.
    pub(crate) async fn moving<T, F>(
        &self,
        bytes: u64,
        repeat: Repeat,
        mut call: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let on_the_way = Duration::from_secs((bytes / SLOWEST_BYTES_PER_SECOND).min(3600));
        let deadline = Instant::now() + self.limits.total + on_the_way;
        let mut attempt = 0;
        loop {
            let (outcome, undone) = self.once(deadline, self.limits.attempt + on_the_way, &mut call).await;
            let Err(StoreError::Retry(why)) = outcome else {
                // A refusal is an answer too.
                self.budget.earn(attempt == 0);
                return outcome;
            };
            let wait = self.limits.backoff.wait(attempt, self.chance.next());
            let may_repeat = repeat == Repeat::Harmless || (undone && attempt < TURNED_AWAY);
            if !may_repeat || Instant::now() + wait >= deadline {
                return Err(StoreError::Retry(why));
            }
            if !self.budget.pay() {
                return Err(StoreError::Retry(format!("{why} (not tried again: most requests fail)")));
            }
            tracing::debug!(attempt, why, "trying the object store again");
            attempt += 1;
            sleep(wait).await;
        }
    }

    /// One attempt, and whether it has certainly done nothing.
    async fn once<T, F>(
        &self,
        deadline: Instant,
        attempt: Duration,
        call: &mut impl FnMut() -> F,
    ) -> (Result<T, StoreError>, bool)
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let late = || StoreError::Retry("no answer in time".to_owned());
        let Ok(permit) = timeout_at(deadline, self.permits.acquire()).await else { return (Err(late()), true) };
        let _permit = permit.expect("the semaphore is never closed");
        let noted = UNDONE.scope(Cell::new(false), async { (call().await, UNDONE.with(Cell::get)) });
        let answered = timeout_at(deadline.min(Instant::now() + attempt), noted).await;
        // What was not waited for may have been done.
        answered.unwrap_or_else(|_| (Err(late()), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts() -> Attempts {
        let limits = Limits {
            in_flight: 2,
            attempt: Duration::from_millis(20),
            total: Duration::from_millis(200),
            backoff: Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(4) },
            ..Limits::default()
        };
        Attempts::new(limits, 7)
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(test)
    }

    fn stumble() -> StoreError {
        StoreError::Retry("stumbled".to_owned())
    }

    #[test]
    fn passing_faults_are_tried_again_and_others_are_not() {
        run(async {
            let (attempts, calls) = (attempts(), Cell::new(0));
            let third = attempts.run(Repeat::Harmless, || async {
                calls.set(calls.get() + 1);
                if calls.get() < 3 { Err(stumble()) } else { Ok(calls.get()) }
            });
            assert_eq!(third.await, Ok(3));
            for (repeat, error) in
                [(Repeat::Ambiguous, stumble()), (Repeat::Harmless, StoreError::Refused("no".to_owned()))]
            {
                calls.set(0);
                let once = attempts.run(repeat, || async {
                    calls.set(calls.get() + 1);
                    Err::<(), _>(error.clone())
                });
                assert_eq!(once.await, Err(error.clone()));
                assert_eq!(calls.get(), 1);
            }
        });
    }

    #[test]
    fn what_may_have_been_done_is_sent_again_only_where_it_was_not() {
        run(async {
            let (attempts, calls) = (attempts(), Cell::new(0));
            let call = || async {
                calls.set(calls.get() + 1);
                undone(calls.get() < 3);
                Err::<(), _>(stumble())
            };
            assert_eq!(attempts.run(Repeat::Ambiguous, call).await, Err(stumble()));
            assert_eq!(calls.get(), 3, "twice nothing was done, and then nobody knows");
            let stuck = || async {
                calls.set(calls.get() + 1);
                undone(true);
                undone(false);
                std::future::pending::<Result<(), _>>().await
            };
            assert!(attempts.run(Repeat::Ambiguous, stuck).await.is_err());
            assert_eq!(calls.get(), 4);
        });
    }

    #[test]
    fn in_an_outage_calls_are_made_once_and_afterwards_repeated_again() {
        run(async {
            let (attempts, calls, down) = (attempts(), Cell::new(0), Cell::new(true));
            let call = || async {
                calls.set(calls.get() + 1);
                if down.get() { Err(stumble()) } else { Ok(()) }
            };
            for _ in 0..30 {
                assert!(attempts.run(Repeat::Harmless, call).await.is_err());
            }
            assert_eq!(calls.replace(0), 130, "thirty calls, and a hundred more for all of them");
            let told = attempts.run(Repeat::Harmless, call).await.expect_err("down").to_string();
            assert!(told.contains("stumbled (not tried again"), "{told}");
            down.set(false);
            for _ in 0..5 {
                assert_eq!(attempts.run(Repeat::Harmless, call).await, Ok(()));
            }
            down.set(true);
            calls.set(0);
            assert!(attempts.run(Repeat::Harmless, call).await.is_err());
            assert_eq!(calls.get(), 2);
        });
    }

    #[test]
    fn an_attempt_and_the_whole_end_in_time() {
        run(async {
            let (attempts, calls) = (attempts(), Cell::new(0));
            let began = Instant::now();
            let stuck = attempts.run(Repeat::Harmless, || async {
                calls.set(calls.get() + 1);
                std::future::pending::<Result<(), _>>().await
            });
            assert!(matches!(stuck.await, Err(StoreError::Retry(_))));
            assert!(calls.get() > 2, "{} attempts", calls.get());
            assert!(began.elapsed() < Duration::from_secs(2));
        });
    }

    #[test]
    fn no_more_run_at_once_than_permitted() {
        run(async {
            let (attempts, running, most) = (attempts(), Cell::new(0), Cell::new(0));
            let calls = (0..10).map(|_| {
                attempts.run(Repeat::Harmless, || async {
                    running.set(running.get() + 1);
                    most.set(most.get().max(running.get()));
                    tokio::task::yield_now().await;
                    running.set(running.get() - 1);
                    Ok(())
                })
            });
            assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
            assert_eq!(most.get(), 2);
        });
    }
}
