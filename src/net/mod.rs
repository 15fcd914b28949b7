//! Connections: listeners, frames, the order of answers, limits. All of it lives on the shards' executors.
//!
//! Only `listen` knows glommio; connections work over futures-io streams, so the simulation can drive them.

mod admit;
mod decode;
mod limits;

pub use admit::{Admission, Permit};
pub use decode::{Undecodable, decoding, guarded};
pub use limits::EdgeLimits;
