//! What an actor may ask of the world around it. Passed explicitly as `Rc<dyn Runtime>`.

use std::pin::Pin;

use thalweg_record::{Mono, Wall};

/// A future that stays on its core.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The task queues of a shard, by the share of the core each gets (1000 / 250 / 100 / 50).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Queue {
    /// Network, partitions, WAL, coordinators.
    Hot,
    /// Tail upload.
    Upload,
    /// Cold reads.
    Cold,
    /// Compaction and retention.
    Janitor,
}

/// One core's runtime.
pub trait Runtime {
    /// The monotonic clock now. Sample once per turn.
    fn mono(&self) -> Mono;
    /// The wall clock now.
    fn wall(&self) -> Wall;
    /// 64 random bits; seeded in the simulation.
    fn random(&self) -> u64;
    /// Schedules `f` on `q`; never polls it inside the caller.
    fn spawn(&self, q: Queue, name: &'static str, f: LocalBoxFuture<'static, ()>);
    /// Completes at `at`, or soon after.
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()>;
    /// Lets I/O be polled and other tasks run; call in every loop that may go on for more than about 100 us.
    fn breathe(&self) -> LocalBoxFuture<'static, ()>;
    /// As [`Runtime::breathe`] when this task's queue has had its turn, and next to nothing before: for loops that are called often,
    /// or go on for long.
    fn give_way(&self) -> LocalBoxFuture<'static, ()>;
    /// An invariant is broken: ends the process before anything more is acknowledged.
    fn fatal(&self, why: &str) -> !;
}
