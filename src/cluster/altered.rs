//! Settings that were altered while the broker ran (KIP-226, KIP-848): what is stored, by what they are of.
//!
//! Pure. Every holder of a snapshot has them; topics have theirs beside them, in their own records.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

/// Settings by name, as text.
pub type Values = BTreeMap<String, String>;

/// Length of all names and values in bytes.
pub(super) fn bytes_of(values: &Values) -> usize {
    values.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// What settings are of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConfigTarget {
    /// A topic, by name.
    Topic(String),
    /// This broker.
    Broker,
    /// All brokers of the cluster: the default of each.
    Brokers,
    /// A consumer group, by its id; it need not exist.
    Group(String),
}

impl fmt::Display for ConfigTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigTarget::Topic(name) => write!(f, "topic {name}"),
            ConfigTarget::Broker => f.write_str("broker"),
            ConfigTarget::Brokers => f.write_str("all brokers"),
            ConfigTarget::Group(id) => write!(f, "group {id}"),
        }
    }
}

/// Altered settings of everything but topics.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Altered {
    /// Of this broker.
    pub broker: Values,
    /// Of all brokers.
    pub brokers: Values,
    /// Of groups, by id; none without any. A change copies no other group's.
    pub groups: BTreeMap<String, Arc<Values>>,
}

/// Names alone: a value may be a secret.
impl fmt::Debug for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |values: &Values| values.keys().cloned().collect::<Vec<_>>();
        let groups: BTreeMap<&String, Vec<String>> = self.groups.iter().map(|(id, own)| (id, names(own))).collect();
        let mut told = f.debug_struct("Altered");
        told.field("broker", &names(&self.broker)).field("brokers", &names(&self.brokers)).field("groups", &groups);
        told.finish()
    }
}

impl Altered {
    /// Nothing was altered.
    pub fn none() -> Arc<Altered> {
        Arc::default()
    }

    /// The value in force of a broker's setting, if it was altered.
    pub fn of_broker(&self, name: &str) -> Option<&str> {
        self.broker.get(name).or_else(|| self.brokers.get(name)).map(String::as_str)
    }

    /// The same as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.of_broker(name)?.parse().ok()
    }

    /// What is stored for `target`; none for topics, whose records have it.
    pub fn of(&self, target: &ConfigTarget) -> &Values {
        static NONE: LazyLock<Values> = LazyLock::new(Values::new);
        match target {
            ConfigTarget::Topic(_) => &NONE,
            ConfigTarget::Broker => &self.broker,
            ConfigTarget::Brokers => &self.brokers,
            ConfigTarget::Group(id) => self.groups.get(id).map_or(&NONE, |own| own),
        }
    }

    /// Stores `values` for `target` in place of what was there.
    pub(super) fn set(&mut self, target: &ConfigTarget, values: Values) {
        match target {
            ConfigTarget::Topic(name) => unreachable!("settings of topic {name} are in its record"),
            ConfigTarget::Broker => self.broker = values,
            ConfigTarget::Brokers => self.brokers = values,
            ConfigTarget::Group(id) if values.is_empty() => drop(self.groups.remove(id)),
            ConfigTarget::Group(id) => drop(self.groups.insert(id.clone(), Arc::new(values))),
        }
    }
}

#[cfg(test)]
mod tests {
    use thalweg_shards::msg::PartitionChange;

    use super::*;
    use crate::cluster::{
        ConfigOp, ControlError, ControlRequest,
        broker_config::PRODUCER_ID_EXPIRATION_MS,
        tests::{World, run_with},
    };

    fn set(name: &str, value: &str) -> ConfigOp {
        ConfigOp::Set(name.into(), value.into())
    }

    #[test]
    fn all_values_of_one_target_have_a_bound() {
        let mut world = World::new();
        let running = run_with(world.open(), None);
        for target in [ConfigTarget::Broker, ConfigTarget::Brokers] {
            let ops: Vec<ConfigOp> = (0..9).map(|n| set(&format!("n{n}"), &"v".repeat(30_000))).collect();
            let refused = running.alter_of(target.clone(), ops.clone(), false);
            assert!(matches!(refused, Err(ControlError::InvalidRequest(_))), "{refused:?}");
            assert_eq!(running.alter_of(target.clone(), ops[..8].to_vec(), false), Ok(()));
            let one_more = running.alter_of(target, ops[8..].to_vec(), false);
            assert!(matches!(one_more, Err(ControlError::InvalidRequest(_))), "{one_more:?}");
        }
        running.stop();
    }

    #[test]
    fn values_are_not_shown() {
        let mut altered = Altered::default();
        altered.set(&ConfigTarget::Broker, [("a".to_owned(), "secret".to_owned())].into());
        altered.set(&ConfigTarget::Group("g".into()), [("b".to_owned(), "secret".to_owned())].into());
        let op = |op: fn(String, String) -> ConfigOp| op("c".to_owned(), "secret".to_owned());
        let ops =
            vec![op(ConfigOp::Set), op(ConfigOp::Append), op(ConfigOp::Subtract), ConfigOp::Delete("d".to_owned())];
        let (reply, _answer) = flume::bounded(1);
        let request = ControlRequest::AlterConfigs { target: ConfigTarget::Broker, ops, validate_only: true, reply };
        let shown = format!("{altered:?} {request:?}");
        assert!(!shown.contains("secret"), "{shown}");
        for name in ["\"a\"", "\"b\"", "Set(\"c\", ..)", "Append(\"c\", ..)", "Subtract(\"c\", ..)", "Delete(\"d\")"] {
            assert!(shown.contains(name), "{name}: {shown}");
        }
    }

    #[test]
    fn what_is_altered_of_brokers_is_in_force_for_topics_without_a_value_of_their_own() {
        let mut world = World::new();
        let running = run_with(world.open(), None);
        running.create_one("plain", 2);
        running.create_one("own", 1);
        let alter = |target, ops, validate_only| running.alter_of(target, ops, validate_only);
        assert_eq!(alter(ConfigTarget::Topic("own".into()), vec![set("retention.ms", "9")], false), Ok(()));
        running.forget_changes();
        assert_eq!(alter(ConfigTarget::Broker, vec![set("log.retention.ms", "5")], true), Ok(()));
        assert!(running.snapshot().altered.broker.is_empty() && running.forget_changes().is_empty(), "only asked");
        assert_eq!(alter(ConfigTarget::Broker, vec![set("log.retention.ms", "5")], false), Ok(()));
        let changes = running.forget_changes();
        let told: Vec<_> = changes
            .iter()
            .map(|change| match change {
                PartitionChange::Configure(_, settings) => settings.retention_ms,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [Some(5), Some(5)], "both partitions of the one that inherits");
        let retention = |snapshot: &crate::cluster::ClusterSnapshot| {
            ["plain", "own"].map(|name| snapshot.topics[name].settings.effective.retention_ms)
        };
        assert_eq!(retention(&running.snapshot()), [Some(5), Some(9)]);
        assert_eq!(alter(ConfigTarget::Brokers, vec![set("log.retention.ms", "6")], false), Ok(()));
        assert!(running.forget_changes().is_empty(), "this broker's own value goes before");
        assert_eq!(alter(ConfigTarget::Broker, vec![ConfigOp::Delete("log.retention.ms".into())], false), Ok(()));
        assert_eq!(retention(&running.snapshot()), [Some(6), Some(9)]);
        let refused =
            alter(ConfigTarget::Broker, vec![set("message.max.bytes", "7"), set("num.partitions", "5")], false);
        assert!(matches!(refused, Err(ControlError::InvalidRequest(_))), "{refused:?}");
        assert_eq!(
            alter(ConfigTarget::Group("g".into()), vec![set("consumer.session.timeout.ms", "50000")], false),
            Ok(())
        );
        assert_eq!(alter(ConfigTarget::Broker, vec![set(PRODUCER_ID_EXPIRATION_MS, "77")], false), Ok(()));
        let before = running.snapshot();
        drop(running.stop());
        world.store.crash();
        let after = world.open();
        assert_eq!(after.snapshot().altered, before.altered);
        assert_eq!(after.snapshot().altered.number(PRODUCER_ID_EXPIRATION_MS), Some(77));
        assert_eq!(retention(&after.snapshot()), [Some(6), Some(9)]);
        let specs = after.partitions().concat();
        let opened: Vec<_> = specs.iter().map(|spec| (&*spec.topic_name, spec.settings.retention_ms)).collect();
        assert!(opened.contains(&("plain", Some(6))) && opened.contains(&("own", Some(9))), "{opened:?}");
        let running = run_with(after, None);
        let away = vec![ConfigOp::Delete("consumer.session.timeout.ms".into())];
        assert_eq!(running.alter_of(ConfigTarget::Group("g".into()), away, false), Ok(()));
        assert!(running.snapshot().altered.groups.is_empty(), "a group without values is not kept");
    }
}
