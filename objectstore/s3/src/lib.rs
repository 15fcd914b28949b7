//! What every S3 engine of the object-store port has in common: everything but the library that speaks to S3.
//!
//! An engine is a crate of its own (`objectstore/s3/rusoto`, `objectstore/s3/arrow`) that makes single requests
//! ([`Requests`]); [`S3Store`] makes the port of them. Requests run as tasks of the tokio runtime whose handle the opener
//! brings; the port's futures only wait for an answer over flume, so a shard may poll them. HTTP/1.1 only, TLS against the
//! roots of the web.
//!
//! Here is what libraries lack, or each would do in its own way: credentials of instances (IMDSv2), containers and web
//! identities, renewed ahead of their end; `http://` endpoints, virtual-host style, `If-None-Match`, checksums (CRC-32C),
//! retries with full jitter within a budget of all calls, timeouts per attempt, in all, and where nothing moves, a bound on requests in flight,
//! hedged reads, multipart uploads that are aborted when they fail, or when a crash left them behind. Engines sign, and
//! [`Connection`] sends: libraries' own clients would log requests' headers. The port has no conditional replace, so
//! nothing sends `If-Match`.

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests touch the machine"))]

mod attempt;
mod budget;
mod chance;
mod connect;
mod credentials;
mod headers;
mod hedge;
mod http;
mod multipart;
mod paced;
mod place;
mod requests;
mod stale;
mod stall;
mod status;
mod store;
mod surroundings;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod url;
mod xml;

pub use attempt::Limits;
pub use connect::Connection;
pub use credentials::Keys;
pub use headers::{Extras, checksum};
pub use http::{AnswerBody, Body, BoxError, secret_header, streamed, whole};
pub use place::Place;
pub use requests::{Markers, Page, Part, Reading, Requests, Upload, Uploads};
pub use status::refusal;
pub use store::{S3Store, open};
pub use url::{Checksum, Encryption, S3Url, Style, UrlError};
