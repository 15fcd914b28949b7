//! The pace of one put that may have time.
#![expect(
    clippy::disallowed_types,
    reason = "lives in the tokio world; held for a moment, never while a request waits"
)]

use std::{num::NonZeroU64, sync::Mutex, time::Duration};

use thalweg_objectstore::Pace;
use tokio::time::{Instant, sleep_until};

/// Lets the requests of one put begin when they may.
#[derive(Debug)]
pub(crate) struct Paced {
    began: Instant,
    /// With when the next request may begin; `None`: at once.
    pace: Option<Mutex<(Pace, Duration)>>,
}

impl Paced {
    /// At most so many bytes a second, if there is a bound.
    pub(crate) fn new(bytes_per_second: Option<NonZeroU64>) -> Paced {
        let pace = bytes_per_second.map(|rate| Mutex::new((Pace::new(rate), Duration::ZERO)));
        Paced { began: Instant::now(), pace }
    }

    /// Whether there is a bound.
    pub(crate) fn is_even(&self) -> bool {
        self.pace.is_some()
    }

    /// Waits until what went before has taken its time; what begins then has `bytes`.
    pub(crate) async fn begin(&self, bytes: u64) {
        self.end().await;
        if let Some(pace) = &self.pace {
            let (pace, next) = &mut *pace.lock().expect("no panic while held");
            *next = pace.take(self.began.elapsed(), bytes);
        }
    }

    /// Waits until all of it has taken its time.
    pub(crate) async fn end(&self) {
        let Some(pace) = &self.pace else { return };
        let next = pace.lock().expect("no panic while held").1;
        sleep_until(self.began + next).await;
    }
}
