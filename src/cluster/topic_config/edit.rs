//! Checking overrides, and applying changes to them.

use std::collections::BTreeMap;

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
    overrides.iter().map(checked).collect()
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
    let mut edited = overrides.clone();
    for op in ops {
        let (name, value) = match op {
            // As in Kafka, what is not known can be taken away too.
            ConfigOp::Delete(name) => {
                edited.remove(name);
                continue;
            }
            ConfigOp::Set(name, value) => (name, value.clone()),
            ConfigOp::Append(name, value) => (name, list(known(name)?, &edited, value, true)?),
            ConfigOp::Subtract(name, value) => (name, list(known(name)?, &edited, value, false)?),
        };
        edited.insert(name.clone(), check_value(known(name)?, &value, defaults)?);
    }
    Ok(edited)
}

fn known(name: &str) -> Result<&'static TopicConfig, String> {
    topic_config(name).ok_or_else(|| format!("Unknown topic config name: {name}"))
}

fn check_value(config: &TopicConfig, value: &str, defaults: &BrokerDefaults) -> Result<String, String> {
    let normal = config.check(value)?;
    let limit = defaults.max_group_bytes;
    if config.name == "max.message.bytes" && normal.parse::<u32>().is_ok_and(|bytes| bytes > limit) {
        return Err(format!(
            "Invalid value {value} for configuration {}: a batch must fit into one write to the log; the broker's \
             wal.max.group.bytes is {limit}",
            config.name
        ));
    }
    Ok(normal)
}

/// A list after adding or taking away; what is there already is not added twice.
fn list(config: &TopicConfig, overrides: &BTreeMap<String, String>, value: &str, add: bool) -> Result<String, String> {
    if config.kind != Kind::List {
        let verb = if add { "append" } else { "subtract" };
        return Err(format!("Config value {verb} is not allowed for config key: {}", config.name));
    }
    let old = overrides.get(config.name).map_or(config.default, String::as_str);
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
    Ok(items.join(","))
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
    fn a_bad_operation_refuses_all() {
        assert!(edit(&[ConfigOp::Append("retention.ms".into(), "7".into())]).is_err());
        assert!(edit(&[ConfigOp::Subtract("cleanup.policy".into(), "compact".into())]).is_err(), "nothing is left");
        assert_eq!(edit(&[ConfigOp::Delete("no.such".into())]), edit(&[]), "what is not there can be taken away");
        assert!(edit(&[ConfigOp::Set("retention.ms".into(), "x".into())]).is_err());
    }
}
