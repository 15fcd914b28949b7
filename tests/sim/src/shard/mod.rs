//! One production shard with its WAL slice, uploader and cold reader, without network and metadata: the fast simulation.
//!
//! It asks the shard by messages, lives shortly and dies often, so that the log's rare moments come up in few seeds.

mod broker;
mod metadata;
mod producer;
mod reader;
mod run;
mod scene;

pub use run::{Report, run};
