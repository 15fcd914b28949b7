//! The S3 engine of the object-store port, on `rusoto_s3`.
//!
//! `rusoto_s3` is at its end of life and lives in tokio's world, so it stays behind the port in this leaf crate. Requests
//! run as tasks of the tokio runtime whose handle the opener brings; the port's futures only wait for an answer over
//! flume, so a shard may poll them. HTTP/1.1 only, TLS against the roots of the web.
//!
//! What the library lacks and this crate adds: credentials of instances (IMDSv2), containers and web identities, renewed
//! ahead of their end; `http://` endpoints, virtual-host style, `If-None-Match`, retries with full jitter, timeouts per
//! attempt and in all, a bound on requests in flight, multipart uploads that are aborted when they fail. Requests are
//! signed and sent here (`connect.rs`): the library would log their headers.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod attempt;
mod chance;
mod connect;
mod credentials;
mod errors;
mod http;
mod multipart;
mod place;
mod requests;
mod store;
#[cfg(test)]
mod stub;
mod surroundings;
mod url;

pub use attempt::Limits;
pub use store::{S3Store, open};
pub use url::{S3Url, Style, UrlError};
