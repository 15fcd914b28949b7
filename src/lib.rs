//! Thalweg's edge: everything that knows Kafka's wire protocol or the cluster.

pub mod api;
pub mod cluster;
pub mod net;
