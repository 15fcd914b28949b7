//! `flood`: cold reads that nobody feels. Producers and consumers at the tail under half of what the broker takes; then, in the
//! middle, readers that begin at the start of gigabytes which lie in the object store (of Kafka: on a disk, with a cold page cache).
//!
//! [`run()`] is the command, `course` runs it on one broker, `readers` is the flood, `phases` puts what was measured in time, [`outcome`]
//! is the figures as plain data, [`table`] shows them. The picture is drawn by the report's.

mod course;
pub mod outcome;
mod phases;
mod readers;
mod run;
pub mod table;

pub use self::{
    outcome::FloodReport,
    run::{Options, redraw, run},
};
