//! The runtime port: clocks, randomness, tasks, timers. Two engines: glommio in production, a seeded one on virtual
//! time in the simulation.

mod port;

pub use port::{LocalBoxFuture, Queue, Runtime};
