//! The contract suite of the port: every engine runs it.

mod contract;

pub use contract::{Contract, contract};
