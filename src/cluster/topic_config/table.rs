//! The table.

use crate::config::Kind;

const I32: f64 = i32::MAX as f64;
const MAX: f64 = f64::MAX;

/// What values a setting takes, beyond its type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rule {
    /// Any of the type.
    Any,
    /// A number from the first to the second, both included.
    Range(f64, f64),
    /// A number from the first to the second, but not the third.
    RangeBut(f64, f64, f64),
    /// Exactly one of these texts.
    Choice(&'static [&'static str]),
    /// For a list: one or more of these, each once.
    OneOf(&'static [&'static str]),
    /// Kafka takes these texts, but only the first acts so far; the others are refused.
    OnlyFirst(&'static [&'static str]),
    /// A list of `partition:broker` pairs, or `*`.
    Replicas,
}

/// One topic setting of Kafka's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TopicConfig {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Kafka's default, as text. Where this broker has a setting of the synonym's name, that one's value is in force.
    pub default: &'static str,
    /// The broker setting that gives the default, in Kafka; `None` where Kafka has none.
    pub synonym: Option<&'static str>,
    /// What it takes.
    pub rule: Rule,
}

const fn row(name: &'static str, kind: Kind, default: &'static str, synonym: &'static str, rule: Rule) -> TopicConfig {
    let synonym = if synonym.is_empty() { None } else { Some(synonym) };
    TopicConfig { name, kind, default, synonym, rule }
}

const fn long(name: &'static str, default: &'static str, synonym: &'static str, min: f64) -> TopicConfig {
    row(name, Kind::Long, default, synonym, Rule::Range(min, MAX))
}

const fn int(name: &'static str, default: &'static str, synonym: &'static str, min: f64, max: f64) -> TopicConfig {
    row(name, Kind::Int, default, synonym, Rule::Range(min, max))
}

const fn switch(name: &'static str, synonym: &'static str) -> TopicConfig {
    row(name, Kind::Boolean, "false", synonym, Rule::Any)
}

const FOREVER: &str = "9223372036854775807";

/// All topic settings, by name.
pub static TOPIC_CONFIGS: &[TopicConfig] = &[
    row("cleanup.policy", Kind::List, "delete", "log.cleanup.policy", Rule::OneOf(&["delete", "compact"])),
    row("compression.gzip.level", Kind::Int, "-1", "compression.gzip.level", Rule::RangeBut(-1.0, 9.0, 0.0)),
    int("compression.lz4.level", "9", "compression.lz4.level", 1.0, 17.0),
    row(
        "compression.type",
        Kind::Text,
        "producer",
        "compression.type",
        Rule::Choice(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
    ),
    int("compression.zstd.level", "3", "compression.zstd.level", -131_072.0, 22.0),
    long("delete.retention.ms", "86400000", "log.cleaner.delete.retention.ms", 0.0),
    long("file.delete.delay.ms", "60000", "log.segment.delete.delay.ms", 0.0),
    long("flush.messages", FOREVER, "log.flush.interval.messages", 1.0),
    long("flush.ms", FOREVER, "log.flush.interval.ms", 0.0),
    row("follower.replication.throttled.replicas", Kind::List, "", "", Rule::Replicas),
    int("index.interval.bytes", "4096", "log.index.interval.bytes", 0.0, I32),
    row("leader.replication.throttled.replicas", Kind::List, "", "", Rule::Replicas),
    long("local.retention.bytes", "-2", "log.local.retention.bytes", -2.0),
    long("local.retention.ms", "-2", "log.local.retention.ms", -2.0),
    long("max.compaction.lag.ms", FOREVER, "log.cleaner.max.compaction.lag.ms", 1.0),
    int("max.message.bytes", "1048588", "message.max.bytes", 0.0, I32),
    long("message.timestamp.after.max.ms", "3600000", "log.message.timestamp.after.max.ms", 0.0),
    long("message.timestamp.before.max.ms", FOREVER, "log.message.timestamp.before.max.ms", 0.0),
    row(
        "message.timestamp.type",
        Kind::Text,
        "CreateTime",
        "log.message.timestamp.type",
        Rule::Choice(&["CreateTime", "LogAppendTime"]),
    ),
    row("min.cleanable.dirty.ratio", Kind::Double, "0.5", "log.cleaner.min.cleanable.ratio", Rule::Range(0.0, 1.0)),
    long("min.compaction.lag.ms", "0", "log.cleaner.min.compaction.lag.ms", 0.0),
    int("min.insync.replicas", "1", "min.insync.replicas", 1.0, I32),
    switch("preallocate", "log.preallocate"),
    switch("remote.log.copy.disable", ""),
    switch("remote.log.delete.on.disable", ""),
    row("remote.storage.enable", Kind::Boolean, "false", "", Rule::OnlyFirst(&["false", "true"])),
    long("retention.bytes", "-1", "log.retention.bytes", -1.0),
    long("retention.ms", "604800000", "log.retention.ms", -1.0),
    int("segment.bytes", "1073741824", "log.segment.bytes", 1_048_576.0, I32),
    int("segment.index.bytes", "10485760", "log.index.size.max.bytes", 4.0, I32),
    long("segment.jitter.ms", "0", "log.roll.jitter.ms", 0.0),
    long("segment.ms", "604800000", "log.roll.ms", 1.0),
    switch("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

/// The setting of this name.
pub fn topic_config(name: &str) -> Option<&'static TopicConfig> {
    TOPIC_CONFIGS.binary_search_by(|config| config.name.cmp(name)).ok().map(|at| &TOPIC_CONFIGS[at])
}

impl TopicConfig {
    /// Checks a value and gives its normal form (no blanks around it, lower case for booleans). The error is for the
    /// client.
    pub(in crate::cluster) fn check(&self, value: &str) -> Result<String, String> {
        let wrong = |why: String| format!("Invalid value {value} for configuration {}: {why}", self.name);
        // DescribeConfigs tells it with a length of 16 bits.
        if value.len() > i16::MAX as usize {
            return Err(format!("Invalid value for configuration {}: longer than {} bytes", self.name, i16::MAX));
        }
        let text = match self.kind {
            Kind::Boolean => value.trim().to_ascii_lowercase(),
            Kind::List => value.split(',').map(str::trim).collect::<Vec<_>>().join(","),
            _ => value.trim().to_owned(),
        };
        let number = match self.kind {
            Kind::Boolean if text != "true" && text != "false" => return Err(wrong("Expected true or false".into())),
            Kind::Int => {
                Some(text.parse::<i32>().map(f64::from).map_err(|_| wrong("Not a number of type INT".into()))?)
            }
            Kind::Long => Some(text.parse::<i64>().map_err(|_| wrong("Not a number of type LONG".into()))? as f64),
            Kind::Double => Some(text.parse::<f64>().map_err(|_| wrong("Not a number of type DOUBLE".into()))?),
            Kind::Boolean | Kind::Text | Kind::List => None,
        };
        self.rule.check(&text, number).map_err(wrong)?;
        Ok(text)
    }
}

impl Rule {
    fn check(self, text: &str, number: Option<f64>) -> Result<(), String> {
        match (self, number) {
            (Rule::RangeBut(.., never), Some(n)) if n == never => Err(format!("Value must not be {never}")),
            (Rule::Range(min, _) | Rule::RangeBut(min, ..), Some(n)) if n < min || n.is_nan() => {
                Err(format!("Value must be at least {min}"))
            }
            (Rule::Range(_, max) | Rule::RangeBut(_, max, _), Some(n)) if n > max => {
                Err(format!("Value must be no more than {max}"))
            }
            (Rule::OneOf(known), _) => {
                let items: Vec<&str> = text.split(',').collect();
                let once = items.iter().enumerate().all(|(at, item)| !items[..at].contains(item));
                let valid = once && items.iter().all(|item| known.contains(item));
                if valid { Ok(()) } else { Err(format!("Must be one or more of {}, each once", known.join(", "))) }
            }
            (Rule::Choice(known), _) if known.contains(&text) => Ok(()),
            (Rule::OnlyFirst(known), _) if text == known[0] => Ok(()),
            (Rule::OnlyFirst(known), _) if known.contains(&text) => {
                Err(format!("This broker supports {} only", known[0]))
            }
            (Rule::Choice(known) | Rule::OnlyFirst(known), _) => Err(format!("Must be one of {}", known.join(", "))),
            (Rule::Replicas, _) if !throttled_replicas(text) => {
                Err("Must be * or a list of [partitionId]:[brokerId]".into())
            }
            _ => Ok(()),
        }
    }
}

fn throttled_replicas(text: &str) -> bool {
    let number = |n: &str| n.parse::<u32>().is_ok();
    let pair = |item: &str| item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker));
    text.is_empty() || text == "*" || text == "none" || text.split(',').all(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(TOPIC_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
        for config in TOPIC_CONFIGS {
            assert_eq!(config.check(config.default).as_deref(), Ok(config.default), "{}", config.name);
            assert_eq!(topic_config(config.name), Some(config));
        }
        assert_eq!(topic_config("no.such.thing"), None);
    }

    #[test]
    fn values_are_checked_by_type_and_rule() {
        let check = |name, value| topic_config(name).expect("known").check(value);
        for (name, value, normal) in [
            ("retention.ms", " -1 ", "-1"),
            ("cleanup.policy", "compact, delete", "compact,delete"),
            ("preallocate", "TRUE", "true"),
            ("min.cleanable.dirty.ratio", "0.01", "0.01"),
            ("segment.bytes", "1048576", "1048576"),
            ("leader.replication.throttled.replicas", "0:1,1:1", "0:1,1:1"),
            ("message.timestamp.type", "CreateTime", "CreateTime"),
            ("remote.storage.enable", "false", "false"),
        ] {
            assert_eq!(check(name, value).as_deref(), Ok(normal), "{name}");
        }
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("retention.ms", ""),
            ("max.message.bytes", "3000000000"),
            ("cleanup.policy", "compact,compact"),
            ("cleanup.policy", ""),
            ("cleanup.policy", "shred"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("min.insync.replicas", "0"),
            ("segment.bytes", "1048575"),
            ("preallocate", "yes"),
            ("leader.replication.throttled.replicas", "0-1"),
            ("message.timestamp.type", "Never"),
            ("compression.type", "gzip,lz4"),
            ("compression.gzip.level", "0"),
            ("compression.gzip.level", "10"),
            ("compression.type", "rar"),
            ("remote.storage.enable", "true"),
        ] {
            let error = check(name, value).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }
}
