//! Settings of a broker that can be altered while it runs (KIP-226): which, what values they take, and what of them acts.
//!
//! Pure. Follows Kafka: what is the default of a topic's setting can be altered, and little else; a name that nobody knows is
//! stored and never shown, for it may be a secret of a plug-in's.

mod foreign;

use std::time::Duration;

use thalweg_shards::msg::{CleanerTuning, Millionths};

use super::{
    ConfigOp,
    altered::{Altered, Values},
    control_msg::ControlError,
    topic_config::{BrokerDefaults, Rule, TOPIC_CONFIGS, TopicConfig, apply, check_value, list_of},
};
use crate::config::{Kind, SETTINGS, Setting};

/// Settings of the broker's own that act at once, and the least that each may be altered to.
const DYNAMIC: &[(&str, i64)] = &[
    (MAX_CONNECTIONS, MIN_CONNECTIONS),
    (MAX_CONNECTIONS_PER_IP, MIN_CONNECTIONS),
    (PRODUCER_ID_EXPIRATION_MS, 1),
    (CLEANER_BACKOFF_MS, 0),
    (CLEANER_DEDUPE_BUFFER_SIZE, 0),
    (CLEANER_LOAD_FACTOR, 0),
];
/// See [`SETTINGS`].
pub const MAX_CONNECTIONS: &str = "max.connections";
/// See [`SETTINGS`].
pub const MAX_CONNECTIONS_PER_IP: &str = "max.connections.per.ip";
/// See [`SETTINGS`].
pub const PRODUCER_ID_EXPIRATION_MS: &str = "producer.id.expiration.ms";
/// See [`SETTINGS`].
pub const CLEANER_BACKOFF_MS: &str = "log.cleaner.backoff.ms";
/// See [`SETTINGS`].
pub const CLEANER_DEDUPE_BUFFER_SIZE: &str = "log.cleaner.dedupe.buffer.size";
/// See [`SETTINGS`].
pub const CLEANER_LOAD_FACTOR: &str = "log.cleaner.io.buffer.load.factor";
/// The fewest connections that may be altered to: below, an administrator could not come back to undo it.
const MIN_CONNECTIONS: i64 = 10;
/// Names that are stored for one broker: what nobody knows is taken too.
const MAX_NAMES: usize = 1000;
/// The longest name.
const MAX_NAME_BYTES: usize = 249;

/// What a name means to a broker.
#[derive(Clone, Copy, Debug)]
pub enum Known {
    /// The default of this topic setting, which is told under the broker's name here.
    OfTopics(TopicConfig),
    /// A setting of the broker's that acts at once, and the least it may be altered to.
    Own(&'static Setting, i64),
    /// It has no meaning here; stored, and told back.
    Stored(&'static str, Kind),
    /// It cannot be altered while the broker runs.
    ReadOnly,
    /// Nobody knows it.
    Unknown,
}

/// What `name` means.
pub fn known(name: &str) -> Known {
    if let Some(topic) = TOPIC_CONFIGS.iter().find(|topic| topic.synonym == Some(name)) {
        return Known::OfTopics(TopicConfig { name: topic.synonym.unwrap_or(topic.name), ..*topic });
    }
    if let Some(own) = SETTINGS.iter().find(|own| own.key == name || own.synonyms.iter().any(|s| s.key == name)) {
        let dynamic = DYNAMIC.iter().find(|(key, _)| *key == own.key);
        return dynamic.map_or(Known::ReadOnly, |(_, min)| Known::Own(own, own.min.max(*min)));
    }
    if let Some((name, kind)) = foreign::STORED.iter().find(|(stored, _)| *stored == name) {
        return Known::Stored(name, *kind);
    }
    let mut words = foreign::REFUSED.split_whitespace().chain(foreign::READ_AT_START.split_whitespace());
    if words.any(|word| word == name) { Known::ReadOnly } else { Known::Unknown }
}

/// Whether an altered value acts; if not, it is only told back.
pub fn acts(name: &str) -> bool {
    match known(name) {
        Known::Own(..) => true,
        Known::OfTopics(topic) => SETTINGS.iter().any(|own| own.key == topic.name),
        Known::Stored(..) | Known::ReadOnly | Known::Unknown => false,
    }
}

/// The values of a broker, or of all of them, after `ops`.
///
/// # Errors
/// A name that cannot be altered, or a bad value: 42, as Kafka says it; adding to what is no list: 40.
pub fn edited(values: &Values, ops: &[ConfigOp], defaults: &BrokerDefaults) -> Result<Values, ControlError> {
    let none_may = |be: fn(&str) -> bool, why: &str| {
        let names: Vec<&str> = ops.iter().filter_map(written).filter(|name| be(name)).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(ControlError::InvalidRequest(format!("{why}: [{}]", names.join(", "))))
    };
    none_may(|name| matches!(known(name), Known::ReadOnly), "Cannot update these configs dynamically")?;
    none_may(
        |name| name.starts_with("ssl."),
        "These security configs can be dynamically updated only per-listener using the listener prefix",
    )?;
    if ops
        .iter()
        .any(|op| matches!(op, ConfigOp::Append(name, _) | ConfigOp::Subtract(name, _) if list(name).is_none()))
    {
        // Of all that can be wrong with a value, Kafka gives this alone the code 40.
        return apply(values, ops, |name| Ok(list(name)), |_, value| Ok(value.to_owned()))
            .map_err(ControlError::InvalidConfig);
    }
    let edited = apply(values, ops, |name| Ok(list(name)), |name, value| check(name, value, defaults));
    let edited = edited.map_err(ControlError::InvalidRequest)?;
    if edited.len() > MAX_NAMES {
        return Err(ControlError::InvalidRequest(format!("More than {MAX_NAMES} settings of a broker.")));
    }
    Ok(edited)
}

/// The name of what is written; taking a value away is free.
fn written(op: &ConfigOp) -> Option<&str> {
    match op {
        ConfigOp::Delete(_) => None,
        ConfigOp::Set(name, _) | ConfigOp::Append(name, _) | ConfigOp::Subtract(name, _) => Some(name),
    }
}

/// The default of a name that takes a list.
fn list(name: &str) -> Option<&'static str> {
    match known(name) {
        Known::OfTopics(topic) => list_of(&topic),
        Known::Stored(_, Kind::List) => Some(""),
        _ => None,
    }
}

fn check(name: &str, value: &str, defaults: &BrokerDefaults) -> Result<String, String> {
    match known(name) {
        // Of all that is not -1, Kafka refuses this alone in its own words.
        Known::OfTopics(TopicConfig { name: name @ "log.retention.ms", .. }) if value.trim() == "0" => {
            Err(format!("requirement failed: {name} must be unlimited (-1) or, greater than or equal to 1"))
        }
        Known::OfTopics(topic) => check_value(&topic, value, defaults),
        Known::Own(own, min) => typed(own.key, own.kind, value).and_then(|text| in_bounds(own, min, text)),
        Known::Stored(name, kind) => typed(name, kind, value),
        Known::ReadOnly | Known::Unknown if name.len() > MAX_NAME_BYTES => {
            Err(format!("A name of more than {MAX_NAME_BYTES} bytes"))
        }
        Known::ReadOnly | Known::Unknown if value.len() > i16::MAX as usize => {
            Err(format!("A value of more than {} bytes", i16::MAX))
        }
        Known::ReadOnly | Known::Unknown => Ok(value.to_owned()),
    }
}

/// The value's normal form, if it is of this type: a row of the topics' table knows how.
fn typed(name: &'static str, kind: Kind, value: &str) -> Result<String, String> {
    TopicConfig { name, kind, default: "", synonym: None, rule: Rule::Any }.check(value)
}

fn in_bounds(own: &Setting, min: i64, text: String) -> Result<String, String> {
    let wrong = |why: String| Err(format!("Invalid value {text} for configuration {}: {why}", own.key));
    // The only such settings are shares of a whole.
    if own.kind == Kind::Double && !text.parse::<f64>().is_ok_and(|share| (0.0..=1.0).contains(&share)) {
        return wrong("Value must be from 0 to 1".to_owned());
    }
    match text.parse::<i64>() {
        Ok(n) if n < min => wrong(format!("Value must be at least {min}")),
        Ok(n) if n > own.max => wrong(format!("Value must be no more than {}", own.max)),
        _ => Ok(text),
    }
}

/// How logs are cleaned: as the settings say that were read at the start, but for what was altered.
pub fn cleaner_tuning(altered: &Altered, configured: CleanerTuning) -> CleanerTuning {
    let share = altered.of_broker(CLEANER_LOAD_FACTOR).and_then(|text| text.parse().ok()).map(Millionths::of);
    CleanerTuning {
        backoff: altered.number(CLEANER_BACKOFF_MS).map_or(configured.backoff, Duration::from_millis),
        dedupe_bytes: altered.number(CLEANER_DEDUPE_BUFFER_SIZE).unwrap_or(configured.dedupe_bytes),
        load_factor: share.unwrap_or(configured.load_factor),
    }
}

/// What altered settings of the broker say about topics that do not, by the topic's names.
pub fn of_topics(altered: &Altered) -> Values {
    let value = |topic: &TopicConfig| Some((topic.name.to_owned(), altered.of_broker(topic.synonym?)?.to_owned()));
    TOPIC_CONFIGS.iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topic_config::test_defaults;

    fn set(name: &str, value: &str) -> ConfigOp {
        ConfigOp::Set(name.to_owned(), value.to_owned())
    }

    fn edit(ops: &[ConfigOp]) -> Result<Values, ControlError> {
        edited(&Values::new(), ops, &test_defaults())
    }

    #[test]
    fn every_name_has_one_meaning() {
        for (name, _) in foreign::STORED {
            assert!(matches!(known(name), Known::Stored(..)), "{name}");
        }
        for name in foreign::REFUSED.split_whitespace().chain(foreign::READ_AT_START.split_whitespace()) {
            assert!(matches!(known(name), Known::ReadOnly), "{name}");
        }
        for topic in TOPIC_CONFIGS {
            assert!(topic.synonym.is_none_or(|name| matches!(known(name), Known::OfTopics(row) if row.name == name)));
        }
        for own in SETTINGS {
            assert!(!matches!(known(own.key), Known::Unknown | Known::Stored(..)), "{}", own.key);
        }
        assert!(matches!(known("log.retention.hours"), Known::ReadOnly), "a synonym in a larger unit");
        assert!(matches!(known("node.id"), Known::ReadOnly));
        assert!(acts("message.max.bytes") && acts("max.connections") && acts("log.cleanup.policy"));
        assert!(!acts("background.threads") && !acts("log.segment.bytes") && !acts("no.such"));
    }

    #[test]
    fn values_are_checked_and_refused_as_by_kafka() {
        let good = edit(&[
            set("log.retention.ms", " 5 "),
            set("max.connections", "10"),
            set("background.threads", "9"),
            set("no.such", " as it is "),
            ConfigOp::Append("log.cleanup.policy".into(), "compact".into()),
        ]);
        let expected = [
            ("background.threads", "9"),
            ("log.cleanup.policy", "delete,compact"),
            ("log.retention.ms", "5"),
            ("max.connections", "10"),
            ("no.such", " as it is "),
        ];
        assert_eq!(good, Ok(expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()));
        let text = |op: ConfigOp| edit(&[op]).expect_err("refused").to_string();
        for (name, value, words) in [
            ("num.partitions", "5", "Cannot update these configs dynamically: [num.partitions]"),
            ("wal.path", "/x", "Cannot update these configs dynamically: [wal.path]"),
            (
                "max.connection.creation.rate",
                "5",
                "Cannot update these configs dynamically: [max.connection.creation.rate]",
            ),
            (
                "log.retention.ms",
                "soon",
                "Invalid value soon for configuration log.retention.ms: Not a number of type LONG",
            ),
            (
                "log.retention.ms",
                "0",
                "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1",
            ),
            (
                "message.max.bytes",
                "-1",
                "Invalid value -1 for configuration message.max.bytes: Value must be at least 0",
            ),
            ("max.connections", "9", "Invalid value 9 for configuration max.connections: Value must be at least 10"),
            (
                "max.connections.per.ip",
                "9",
                "Invalid value 9 for configuration max.connections.per.ip: Value must be at least 10",
            ),
            ("max.connections", "x", "Invalid value x for configuration max.connections: Not a number of type INT"),
            (
                "background.threads",
                "x",
                "Invalid value x for configuration background.threads: Not a number of type INT",
            ),
            (
                "ssl.keystore.password",
                "s",
                "These security configs can be dynamically updated only per-listener using the listener prefix: [ssl.keystore.password]",
            ),
        ] {
            assert_eq!(text(set(name, value)), words);
        }
        assert!(text(set("message.max.bytes", "4194305")).contains("wal.max.group.bytes"));
        let append = edit(&[ConfigOp::Append("log.retention.ms".into(), "5".into())]);
        let words = "Config value append is not allowed for config key: log.retention.ms";
        assert_eq!(append, Err(ControlError::InvalidConfig(words.into())));
        assert_eq!(edit(&[ConfigOp::Delete("num.partitions".into())]), Ok(Values::new()), "nothing is taken away");
        assert!(edit(&[set(&"n".repeat(250), "v")]).is_err());
        assert!(edit(&[set("n", &"v".repeat(40_000))]).is_err());
        let many: Vec<ConfigOp> = (0..=MAX_NAMES).map(|n| set(&format!("x{n}"), "v")).collect();
        assert!(edit(&many).is_err());
    }

    #[test]
    fn one_brokers_value_goes_before_that_of_all() {
        let one = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let altered = Altered {
            broker: [one("log.retention.ms", "5")].into(),
            brokers: [one("log.retention.ms", "6"), one("message.max.bytes", "7"), one("x", "y")].into(),
            ..Altered::default()
        };
        assert_eq!(of_topics(&altered), [one("retention.ms", "5"), one("max.message.bytes", "7")].into());
    }
}
