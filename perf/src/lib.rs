//! Measuring Thalweg: beside Apache Kafka (`compare`), its write-ahead log beside fio (`wal`), any broker under one load
//! (`produce`, `consume`, `latency`), cold reads beside writes (`flood`). docs/performance.md says what each figure means and
//! how it is kept fair.
//!
//! Everything lives on plain threads, but for the log under measurement, which runs on a shard's executor as it does in
//! the broker.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement lives on clocks, threads and files"
)]

pub mod broker;
pub mod client;
pub mod compare;
pub mod figures;
pub mod flood;
mod free_memory;
pub mod load;
pub mod machine;
pub mod report;
pub mod scenario;
pub mod skew;
pub mod store;
pub mod wal;
