//! The runtime port: clocks, randomness, tasks, timers. Two engines: glommio in production, a seeded one on virtual
//! time in the simulation.

mod glommio;
mod port;
pub mod seeded;
mod watchdog;

pub use self::glommio::{Executor, mono_now, random_bits, start as start_executor, wall_now};
pub use port::{LocalBoxFuture, Queue, Runtime};
pub use watchdog::{Heartbeat, Watchdog};
