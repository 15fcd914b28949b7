//! The S3 engine of the object-store port, on `rusoto_s3`.
//!
//! `rusoto_s3` is at its end of life and lives in tokio's world, so it stays behind the port in this leaf crate. Requests
//! run as tasks of the tokio runtime whose handle the opener brings; the port's futures only wait for an answer over
//! flume, so a shard may poll them. HTTP/1.1 only, TLS against the roots of the web.
//!
//! What the library lacks and this crate adds: credentials of instances (IMDSv2), containers and web identities, renewed
//! ahead of their end; `http://` endpoints, virtual-host style, `If-None-Match`, checksums (CRC-32C), retries with full
//! jitter within a budget of all calls, timeouts per attempt and in all, a bound on requests in flight, hedged reads,
//! multipart uploads that are aborted when they fail, or when a crash left them behind. Requests are signed and sent here
//! (`connect.rs`): the library would log their headers. The port has no conditional replace, so nothing sends `If-Match`.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod attempt;
mod budget;
mod chance;
mod connect;
mod credentials;
mod errors;
mod headers;
mod hedge;
mod http;
mod multipart;
mod place;
mod requests;
mod stale;
mod store;
#[cfg(test)]
mod stub;
mod surroundings;
mod url;

pub use attempt::Limits;
pub use store::{S3Store, open};
pub use url::{Checksum, Encryption, S3Url, Style, UrlError};
