//! Checking overrides, and applying changes to them.

use std::collections::BTreeMap;

use thalweg_shards::msg::CleaningSettings;

use super::{BrokerDefaults, TopicConfig, topic_config};
use crate::{cluster::ConfigOp, config::Kind};

/// Checks the overrides of a topic to be created, and gives their normal form. The error is for the client (40).
///
/// # Errors
/// An unknown name, a bad value, or a value that this broker cannot put in force.
pub fn check(
    overrides: &BTreeMap<String, String>,
    defaults: &BrokerDefaults,
) -> Result<BTreeMap<String, String>, String> {
    let checked = |(name, value): (&String, &String)| Ok((name.clone(), check_value(known(name)?, value, defaults)?));
    together(overrides.iter().map(checked).collect::<Result<_, String>>()?, defaults)
}

/// What values must not be together, as Kafka says it.
fn together(
    overrides: BTreeMap<String, String>,
    defaults: &BrokerDefaults,
) -> Result<BTreeMap<String, String>, String> {
    let CleaningSettings { min_lag_ms: min, max_lag_ms, .. } = defaults.effective(&overrides).cleaning;
    match max_lag_ms {
        Some(max) if min > max => {
            Err(format!("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})"))
        }
        _ => Ok(overrides),
    }
}

/// The overrides after `ops`, in order.
///
/// # Errors
/// As [`check`]; also adding to or taking from what is no list.
pub fn edited(
    overrides: &BTreeMap<String, String>,
    ops: &[ConfigOp],
    defaults: &BrokerDefaults,
) -> Result<BTreeMap<String, String>, String> {
    let check = |name: &str, value: &str| check_value(known(name)?, value, defaults);
    together(apply(overrides, ops, |name| Ok(list_of(known(name)?)), check)?, defaults)
}

/// The values after `ops`, in order. `list` gives the default of a name that takes a list, and nothing of any other; `check`
/// gives a value's normal form.
///
/// # Errors
/// Those of `list` and `check`; also adding to or taking from what is no list.
pub(in crate::cluster) fn apply(
    values: &BTreeMap<String, String>,
    ops: &[ConfigOp],
    list: impl Fn(&str) -> Result<Option<&'static str>, String>,
    check: impl Fn(&str, &str) -> Result<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut edited = values.clone();
    for op in ops {
        let (name, value, add) = match op {
            // As in Kafka, what is not known can be taken away too.
            ConfigOp::Delete(name) => {
                edited.remove(name);
                continue;
            }
            ConfigOp::Set(name, value) => (name, value, None),
            ConfigOp::Append(name, value) => (name, value, Some(true)),
            ConfigOp::Subtract(name, value) => (name, value, Some(false)),
        };
        let value = match (add, list(name)?) {
            (None, _) => check(name, value)?,
            (Some(add), Some(default)) => {
                let old = edited.get(name).map_or(default, String::as_str);
                check(name, &joined(old, value, add))?
            }
            (Some(add), None) => {
                let verb = if add { "append" } else { "subtract" };
                return Err(format!("Config value {verb} is not allowed for config key: {name}"));
            }
        };
        edited.insert(name.clone(), value);
    }
    Ok(edited)
}

fn known(name: &str) -> Result<&'static TopicConfig, String> {
    topic_config(name).ok_or_else(|| format!("Unknown topic config name: {name}"))
}

/// The default of a row that takes a list.
pub(in crate::cluster) fn list_of(config: &TopicConfig) -> Option<&'static str> {
    (config.kind == Kind::List).then_some(config.default)
}

/// Checks a value and gives its normal form; also of a row under the name that brokers have for it.
pub(in crate::cluster) fn check_value(
    config: &TopicConfig,
    value: &str,
    defaults: &BrokerDefaults,
) -> Result<String, String> {
    let normal = config.check(value)?;
    let limit = defaults.max_group_bytes;
    if config.synonym == Some("message.max.bytes") && normal.parse::<u32>().is_ok_and(|bytes| bytes > limit) {
        return Err(format!(
            "Invalid value {value} for configuration {}: a batch must fit into one write to the log; the broker's \
             wal.max.group.bytes is {limit}",
            config.name
        ));
    }
    Ok(normal)
}

/// A list after adding or taking away; what is there already is not added twice.
fn joined(old: &str, value: &str, add: bool) -> String {
    let split = |text: &str| -> Vec<String> {
        text.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
    };
    let (mut items, change) = (split(old), split(value));
    items.retain(|item| !change.contains(item));
    if add {
        items = split(old);
        let new: Vec<String> = change.into_iter().filter(|item| !items.contains(item)).collect();
        items.extend(new);
    }
    items.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::topic_config::effective::tests::defaults;

    fn map(items: &[(&str, &str)]) -> BTreeMap<String, String> {
        items.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn edit(ops: &[ConfigOp]) -> Result<BTreeMap<String, String>, String> {
        edited(&map(&[("retention.ms", "5"), ("cleanup.policy", "compact")]), ops, &defaults())
    }

    #[test]
    fn unknown_names_and_batches_that_cannot_exist_are_refused() {
        let error = check(&map(&[("rentention.ms", "5")]), &defaults()).expect_err("unknown");
        assert!(error.contains("rentention.ms"), "{error}");
        assert!(check(&map(&[("max.message.bytes", "4194304")]), &defaults()).is_ok());
        let error = check(&map(&[("max.message.bytes", "4194305")]), &defaults()).expect_err("too large");
        assert!(error.contains("wal.max.group.bytes"), "{error}");
    }

    #[test]
    fn operations_apply_in_order() {
        let (set, delete) = (ConfigOp::Set, ConfigOp::Delete);
        let after = edit(&[
            set("retention.ms".into(), "7".into()),
            delete("retention.ms".into()),
            set("segment.ms".into(), "9".into()),
            ConfigOp::Append("cleanup.policy".into(), "delete,compact".into()),
        ]);
        assert_eq!(after, Ok(map(&[("cleanup.policy", "compact,delete"), ("segment.ms", "9")])));
        let throttled = "leader.replication.throttled.replicas".to_owned();
        let after = edit(&[
            ConfigOp::Append(throttled.clone(), "0:1,1:1".into()),
            ConfigOp::Subtract(throttled.clone(), "0:1".into()),
        ]);
        assert_eq!(after.expect("valid")[&throttled], "1:1");
    }

    #[test]
    fn the_least_lag_is_not_above_the_most() {
        let lags = |min, max| map(&[("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)]);
        assert!(check(&lags("9", "9"), &defaults()).is_ok());
        let error = check(&lags("10", "9"), &defaults()).expect_err("a conflict");
        assert_eq!(error, "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (9)");
        let set = ConfigOp::Set("min.compaction.lag.ms".into(), "10".into());
        assert_eq!(edited(&map(&[("max.compaction.lag.ms", "9")]), &[set], &defaults()), Err(error));
    }

    #[test]
    fn a_bad_operation_refuses_all() {
        assert!(edit(&[ConfigOp::Append("retention.ms".into(), "7".into())]).is_err());
        assert!(edit(&[ConfigOp::Subtract("cleanup.policy".into(), "compact".into())]).is_err(), "nothing is left");
        assert_eq!(edit(&[ConfigOp::Delete("no.such".into())]), edit(&[]), "what is not there can be taken away");
        assert!(edit(&[ConfigOp::Set("retention.ms".into(), "x".into())]).is_err());
    }
}
