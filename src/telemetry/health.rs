//! Whether the broker lives, and whether it serves.
#![expect(clippy::disallowed_types, reason = "written at the start and the stop, and judged outside the shards")]

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use thalweg_shards::runtime::Heartbeat;

/// An executor that has run no task for this long has stopped.
const STALL: Duration = Duration::from_secs(5);

/// Where the broker is in its life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It starts; what it is doing.
    Starting(&'static str),
    /// It serves.
    Ready,
    /// It stops; what it is doing.
    Stopping(&'static str),
}

struct Heart {
    heartbeat: Heartbeat,
    beats: u64,
    seen_at: Instant,
}

struct State {
    stage: Stage,
    hearts: Vec<Heart>,
}

/// Told by the broker, asked by `/healthz` and `/readyz`. Clones share one state.
#[derive(Clone)]
pub struct Health(Arc<Mutex<State>>);

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Health {
    /// A broker that has just begun to start.
    pub fn new() -> Health {
        Health(Arc::new(Mutex::new(State { stage: Stage::Starting("reading the configuration"), hearts: Vec::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells where the broker is.
    pub fn set(&self, stage: Stage) {
        self.state().stage = stage;
    }

    /// The executors to look after, in the order of their shards.
    #[expect(clippy::disallowed_methods, reason = "health is judged outside the shards")]
    pub fn watch(&self, heartbeats: &[Heartbeat]) {
        let seen_at = Instant::now();
        let heart = |heartbeat: &Heartbeat| Heart { heartbeat: heartbeat.clone(), beats: heartbeat.beats(), seen_at };
        self.state().hearts = heartbeats.iter().map(heart).collect();
    }

    /// Whether requests are served.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self) -> Result<(), String> {
        match self.state().stage {
            Stage::Ready => Ok(()),
            Stage::Starting(what) => Err(format!("starting: {what}")),
            Stage::Stopping(what) => Err(format!("stopping: {what}")),
        }
    }

    /// Whether every executor runs tasks.
    ///
    /// # Errors
    /// Which one does not, and since when.
    pub fn alive(&self, now: Instant) -> Result<(), String> {
        for (shard, heart) in self.state().hearts.iter_mut().enumerate() {
            let beats = heart.heartbeat.beats();
            let still = now.saturating_duration_since(heart.seen_at);
            if beats != heart.beats {
                (heart.beats, heart.seen_at) = (beats, now);
            } else if still >= STALL {
                return Err(format!("shard {shard} has run nothing for {} s", still.as_secs()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use thalweg_shards::runtime::Watchdog;

    use super::*;

    #[test]
    fn readiness_gives_its_reason() {
        let health = Health::new();
        assert_eq!(health.ready(), Err("starting: reading the configuration".into()));
        health.clone().set(Stage::Ready);
        assert_eq!(health.ready(), Ok(()));
        health.set(Stage::Stopping("uploading"));
        assert_eq!(health.ready(), Err("stopping: uploading".into()));
    }

    #[test]
    fn an_executor_that_stands_still_is_named() {
        let watchdog = Watchdog::start(2).expect("a thread");
        let health = Health::new();
        health.watch(watchdog.hearts());
        let mut tasks: Vec<_> = watchdog.hearts().iter().map(|h| Box::pin(h.task())).collect();
        let mut beat = |shard: usize| {
            let _never = tasks[shard].as_mut().poll(&mut Context::from_waker(Waker::noop()));
        };
        let start = Instant::now();
        beat(0);
        beat(1);
        assert_eq!(health.alive(start + STALL), Ok(()));
        beat(0);
        assert_eq!(health.alive(start + STALL * 2), Err("shard 1 has run nothing for 5 s".into()));
        beat(1);
        assert_eq!(health.alive(start + STALL * 2), Ok(()));
    }
}
