//! Settings: one table of keys, and everything that is derived from it.
//!
//! [`Config`] has one typed field per key of the table in `table.rs`; parsing, defaults, bounds, `print-config`,
//! `check-config`, DescribeConfigs of the broker and the check of `conf/thalweg.toml` all read that table, so a setting
//! is added in one place. Values come from the defaults, then the file, then `--set`; each remembers where it came
//! from. Read once at the start, on the main thread; afterwards an `Arc<Config>` is shared and never changes.

mod endpoint;
pub mod host;
mod load;
mod problem;
mod rules;
mod setting;
mod table;
mod typed;

pub use endpoint::Endpoint;
pub use load::{Entry, Origin};
pub use problem::{Problem, Problems};
pub use setting::{Kind, Setting, Synonym};
pub use table::{Config, SETTINGS};
pub use typed::{AuthorizerClass, CleanupPolicy, FactorCheck, LogFormat, S3Engine, TimestampType, WalSync};
