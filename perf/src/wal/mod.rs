//! `wal`: the write-ahead log and its device beside fio, measured by `measure`.

mod fio;
mod measure;
mod ours;

pub use measure::{Options, run};
use measure::{Pattern, Written};
