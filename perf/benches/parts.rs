//! Micro-benchmarks of the parts that a record passes: `cargo bench -p thalweg-perf`, or `-- turn` for some of them.
//!
//! They run in memory and on one thread: what is measured is computing, not waiting. Allocations are counted.
#![allow(clippy::disallowed_methods, reason = "benchmarks live outside the broker")]

#[path = "parts/index.rs"]
mod index;
#[path = "parts/log.rs"]
mod log;
#[path = "parts/object.rs"]
mod object;
#[path = "parts/sample.rs"]
mod sample;
#[path = "parts/shard.rs"]
mod shard;
#[path = "parts/turn.rs"]
mod turn;
#[path = "parts/validate.rs"]
mod validate;

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

fn main() {
    divan::main();
}
