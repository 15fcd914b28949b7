//! Topic settings: one table of Kafka 4.3's names, types, defaults and rules, and what follows from it.
//!
//! Pure. A setting that acts is checked and put in force; one that has no meaning here (segments, replicas, index files)
//! is checked and stored, for tools set it and read it back; one that would have to act but does not yet is refused.

mod edit;
mod effective;
mod table;

pub(super) use edit::{apply, check_value, list_of};
pub use edit::{check, edited};
pub use effective::{BrokerDefaults, CompressionLevels};
pub use table::{Rule, TOPIC_CONFIGS, TopicConfig, topic_config};

#[cfg(test)]
pub(super) use effective::tests::defaults as test_defaults;
