//! Brokers under measurement: each a process of its own, with a fresh data directory and ports of its own.

mod brokers;
mod kafka;
pub mod metrics;
mod page_cache;
pub mod process;
mod running;
mod thalweg;

use brokers::repository;
pub use brokers::{Beside, Brokers, install, install_cache, librdkafka_client};
pub use running::Broker;
pub(crate) use running::{free_ports, prepare_child};
