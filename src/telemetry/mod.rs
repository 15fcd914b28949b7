//! What the broker tells about itself: metrics, and the HTTP endpoint with `/metrics`, `/healthz` and `/readyz`.
//!
//! Handles are made per executor and live there; rendering and HTTP run in the tokio world. Everything that is measured
//! stands in a table ([`tables`]), from which buckets, help texts and docs/metrics.md come.

mod edge;
mod exporter;
mod health;
mod http;
mod lag;
mod process;

pub use edge::{ConnectionMeters, EdgeMeters, GroupMeters, RequestMeters};
pub use exporter::{Exporter, tables};
pub use health::{Health, Stage};
pub use http::serve;
pub use lag::Lags;
