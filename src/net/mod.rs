//! Connections: listeners, frames, the order of answers, limits. All of it lives on the shards' executors.
//!
//! Only `listen` knows glommio; connections work over futures-io streams, so the simulation can drive them.

mod admit;
mod answers;
pub mod bounds;
mod chunk;
mod conn;
mod decode;
mod flow;
mod frame;
mod header;
mod limits;
mod listen;
mod pressure;

pub use admit::{Admission, Permit};
pub use chunk::ChunkPool;
pub use conn::{Ended, serve};
pub use decode::{Undecodable, decoding, guarded};
pub use frame::FrameError;
pub use limits::EdgeLimits;
pub use listen::{Advertised, Arrival, Claim, Connections, claim, connections, listen, serve_arrivals};
