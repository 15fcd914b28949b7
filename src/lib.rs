//! Thalweg's edge: everything that knows Kafka's wire protocol or the cluster.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

pub mod api;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod coordinator;
pub mod net;
pub mod telemetry;
