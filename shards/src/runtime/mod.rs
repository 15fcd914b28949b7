//! The runtime port: clocks, randomness, tasks, timers. Two engines: glommio in production, a seeded one on virtual
//! time in the simulation.

pub mod glommio;
mod port;
pub mod seeded;
mod watchdog;

pub use port::{LocalBoxFuture, Queue, Runtime};
pub use watchdog::{Heartbeat, Watchdog};
