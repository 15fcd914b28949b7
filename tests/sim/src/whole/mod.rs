//! The whole broker: what the binary starts, on a simulated host, disk, network, bucket and metadata store.
//!
//! Several shards, whose number changes from life to life, serve clients that speak Kafka's protocol over streams in memory:
//! idempotent producers, readers, consumer groups, and administrators that create and delete topics and records.

mod admin;
mod alterer;
mod client;
mod disks;
mod gauges;
mod host;
mod member;
mod metadata;
mod mover;
mod network;
mod producer;
mod reader;
mod run;
mod scene;
mod session;
mod site;
mod storm;
mod stream;

pub use run::run;
