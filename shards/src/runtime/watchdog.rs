//! Wakes each executor every few milliseconds, and knows which one has stopped.
//!
//! Lives on a plain thread. glommio 0.9 can park an executor while task queues are runnable and then hang until an
//! outside event arrives; a wake from another thread is such an event, a timer inside the executor is not.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "runtime module: owns a plain thread and its pace, and wakes from it"
)]

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

const PERIOD: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Pulse {
    waker: Mutex<Option<Waker>>,
    beats: AtomicU64,
}

/// What an executor shows the watchdog: a counter that grows as long as the executor runs tasks.
#[derive(Clone)]
pub struct Heartbeat(Arc<Pulse>);

impl Heartbeat {
    /// How often the executor answered the watchdog.
    pub fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// The dummy task that the watchdog wakes; never completes. Spawn it once per executor.
    pub fn task(&self) -> impl Future<Output = ()> + 'static {
        let pulse = self.0.clone();
        std::future::poll_fn(move |cx| {
            pulse.beats.fetch_add(1, Ordering::Relaxed);
            let mut slot = pulse.waker.lock().unwrap_or_else(PoisonError::into_inner);
            if !slot.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                *slot = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

/// The thread that wakes the executors. Dropping it stops the thread within one period.
pub struct Watchdog {
    hearts: Vec<Heartbeat>,
    stop: Arc<AtomicBool>,
}

impl Watchdog {
    /// Starts the thread for `executors` heartbeats.
    ///
    /// # Errors
    /// When the operating system refuses a thread.
    pub fn start(executors: usize) -> std::io::Result<Watchdog> {
        let hearts: Vec<Heartbeat> = (0..executors).map(|_| Heartbeat(Arc::default())).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (woken, stopped) = (hearts.clone(), stop.clone());
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(PERIOD);
                for heart in &woken {
                    if let Some(waker) = &*heart.0.waker.lock().unwrap_or_else(PoisonError::into_inner) {
                        waker.wake_by_ref();
                    }
                }
            }
        })?;
        Ok(Watchdog { hearts, stop })
    }

    /// The heartbeats, one per executor.
    pub fn hearts(&self) -> &[Heartbeat] {
        &self.hearts
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
