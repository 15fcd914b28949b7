//! Settings of groups (KIP-848, KIP-932, KIP-1071), as they are altered, stored and told. They are of kinds of groups that this
//! broker does not serve yet, so none of them acts: classic groups have their settings from their members.

use super::{
    ConfigOp,
    altered::Values,
    topic_config::{Rule, TopicConfig, apply},
};
use crate::config::Kind;

const I32: f64 = i32::MAX as f64;
/// The longest value: many groups may have one.
const MAX_VALUE_BYTES: usize = 1_000;

const fn int(name: &'static str, default: &'static str, synonym: &'static str, min: f64, max: f64) -> TopicConfig {
    TopicConfig { name, kind: Kind::Int, default, synonym: Some(synonym), rule: Rule::Range(min, max) }
}

const fn text(name: &'static str, default: &'static str, rule: Rule) -> TopicConfig {
    TopicConfig { name, kind: Kind::Text, default, synonym: Some(name), rule }
}

/// All settings of groups, by name: Kafka 4.3's, with the bounds that its brokers have by default.
pub static GROUP_CONFIGS: &[TopicConfig] = &[
    int("consumer.assignment.interval.ms", "1000", "group.consumer.assignment.interval.ms", 0.0, 15_000.0),
    int("consumer.heartbeat.interval.ms", "5000", "group.consumer.heartbeat.interval.ms", 5_000.0, 15_000.0),
    int("consumer.session.timeout.ms", "45000", "group.consumer.session.timeout.ms", 45_000.0, 60_000.0),
    int("share.assignment.interval.ms", "1000", "group.share.assignment.interval.ms", 0.0, 15_000.0),
    text("share.auto.offset.reset", "latest", Rule::Any),
    int("share.delivery.count.limit", "5", "group.share.delivery.count.limit", 2.0, 10.0),
    int("share.heartbeat.interval.ms", "5000", "group.share.heartbeat.interval.ms", 5_000.0, 15_000.0),
    text("share.isolation.level", "read_uncommitted", Rule::Choice(&["read_committed", "read_uncommitted"])),
    int("share.partition.max.record.locks", "2000", "group.share.partition.max.record.locks", 100.0, 4_000.0),
    int("share.record.lock.duration.ms", "30000", "group.share.record.lock.duration.ms", 15_000.0, 60_000.0),
    TopicConfig { kind: Kind::Boolean, ..text("share.renew.acknowledge.enable", "true", Rule::Any) },
    int("share.session.timeout.ms", "45000", "group.share.session.timeout.ms", 45_000.0, 60_000.0),
    int("streams.assignment.interval.ms", "1000", "group.streams.assignment.interval.ms", 0.0, 15_000.0),
    int("streams.heartbeat.interval.ms", "5000", "group.streams.heartbeat.interval.ms", 5_000.0, 15_000.0),
    int("streams.initial.rebalance.delay.ms", "3000", "group.streams.initial.rebalance.delay.ms", 0.0, I32),
    int("streams.num.standby.replicas", "0", "group.streams.num.standby.replicas", 0.0, 2.0),
    int("streams.session.timeout.ms", "45000", "group.streams.session.timeout.ms", 45_000.0, 60_000.0),
];

/// The values of a group after `ops`, in order. The error is for the client (40).
///
/// # Errors
/// An unknown name, a bad value, or adding to what is no list: no setting of a group is one.
pub fn edited(values: &Values, ops: &[ConfigOp]) -> Result<Values, String> {
    apply(values, ops, |name| known(name).map(|_| None), check)
}

fn known(name: &str) -> Result<&'static TopicConfig, String> {
    let found = GROUP_CONFIGS.iter().find(|row| row.name == name);
    found.ok_or_else(|| format!("Unknown group config name: {name}"))
}

fn check(name: &str, value: &str) -> Result<String, String> {
    let row = known(name)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(format!("Invalid value for configuration {name}: more than {MAX_VALUE_BYTES} bytes"));
    }
    let normal = TopicConfig { rule: if row.kind == Kind::Int { Rule::Any } else { row.rule }, ..*row }.check(value)?;
    match (row.rule, normal.parse::<f64>()) {
        (Rule::Range(min, _), Ok(number)) if number < min => Err(beyond(row, "greater", "min")),
        (Rule::Range(_, max), Ok(number)) if number > max => Err(beyond(row, "less", "max")),
        _ if name == "share.auto.offset.reset" && !resets(&normal) => {
            Err(format!("Invalid value {normal} for configuration {name}: latest, earliest or by_duration:<duration>"))
        }
        _ => Ok(normal),
    }
}

fn resets(value: &str) -> bool {
    ["latest", "earliest"].contains(&value) || value.strip_prefix("by_duration:P").is_some_and(|rest| !rest.is_empty())
}

/// Kafka names the setting of the broker that sets the bound.
fn beyond(row: &TopicConfig, than: &str, bound: &str) -> String {
    let (kind, rest) = row.name.split_once('.').unwrap_or(("", row.name));
    format!("{} must be {than} than or equal to group.{kind}.{bound}.{rest}", row.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(GROUP_CONFIGS.is_sorted_by(|a, b| a.name < b.name));
        for row in GROUP_CONFIGS {
            assert_eq!(check(row.name, row.default).as_deref(), Ok(row.default));
        }
    }

    #[test]
    fn values_are_refused_in_kafkas_words() {
        let change =
            |name: &str, value: &str| edited(&Values::new(), &[ConfigOp::Set(name.to_owned(), value.to_owned())]);
        assert!(change("consumer.session.timeout.ms", "50000").is_ok());
        assert!(change("share.auto.offset.reset", "by_duration:PT1H").is_ok());
        for (name, value, words) in [
            (
                "consumer.session.timeout.ms",
                "50",
                "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
            ),
            (
                "consumer.heartbeat.interval.ms",
                "60000",
                "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
            ),
            (
                "consumer.session.timeout.ms",
                "x",
                "Invalid value x for configuration consumer.session.timeout.ms: Not a number of type INT",
            ),
            ("nope", "1", "Unknown group config name: nope"),
        ] {
            assert_eq!(change(name, value), Err(words.to_owned()));
        }
        let long = |bytes: usize| format!("by_duration:P{}", "1".repeat(bytes - 13));
        assert!(change("share.auto.offset.reset", &long(MAX_VALUE_BYTES)).is_ok());
        assert!(change("share.auto.offset.reset", &long(MAX_VALUE_BYTES + 1)).is_err());
        assert!(change("share.auto.offset.reset", "now").is_err());
        assert!(edited(&Values::new(), &[ConfigOp::Append("consumer.session.timeout.ms".into(), "1".into())]).is_err());
        assert_eq!(edited(&Values::new(), &[ConfigOp::Delete("nope".into())]), Ok(Values::new()));
    }
}
