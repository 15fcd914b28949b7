//! Settings as DescribeConfigs and CreateTopics tell them: value, type, where it comes from, and what it overrides.

use std::collections::BTreeMap;

use crate::{
    cluster::topic_config::{TOPIC_CONFIGS, TopicConfig},
    config::{Config, Entry, Kind, Origin},
};

/// Where a value comes from, in Kafka's codes.
const TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

/// Settings of the broker whose default Kafka keeps under a coarser name (log.retention.hours, log.roll.hours): they are no
/// synonym before somebody sets them.
const WITHOUT_DEFAULT: &[&str] = &["log.flush.interval.ms", "log.retention.ms", "log.roll.jitter.ms", "log.roll.ms"];

/// One setting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// The value in force.
    pub value: String,
    /// Kafka's ConfigSource.
    pub source: i8,
    /// Kafka's ConfigType (KIP-569).
    pub config_type: i8,
    /// What it does; empty where it only has to be known.
    pub documentation: String,
    /// Everything that gives it a value, the one in force first: name, value, source.
    pub synonyms: Vec<(String, String, i8)>,
}

/// All settings of a topic that overrides some of them, by name.
pub fn topic(config: &Config, overrides: &BTreeMap<String, String>) -> Vec<Described> {
    let one = |setting: &TopicConfig| {
        let entry = setting.synonym.and_then(|name| config.entry(name));
        let mut synonyms = match entry {
            Some(entry) => of_broker(entry),
            None => {
                let name = setting.synonym.unwrap_or(setting.name);
                vec![(name.to_owned(), setting.default.to_owned(), DEFAULT)]
            }
        };
        if let Some(value) = overrides.get(setting.name) {
            synonyms.insert(0, (setting.name.to_owned(), value.clone(), TOPIC));
        }
        let documentation = entry.map_or("", |entry| entry.setting.doc);
        let mut told = described(setting.name, setting.kind, documentation, synonyms);
        if setting.synonym.is_none_or(|name| WITHOUT_DEFAULT.contains(&name)) {
            told.synonyms.retain(|(_, _, source)| *source != DEFAULT);
        }
        told
    };
    TOPIC_CONFIGS.iter().map(one).collect()
}

/// All settings of this broker, by name.
pub fn broker(config: &Config) -> Vec<Described> {
    let mut all: Vec<Described> =
        config.entries().map(|e| described(e.setting.key, e.setting.kind, e.setting.doc, of_broker(e))).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn described(name: &str, kind: Kind, documentation: &str, synonyms: Vec<(String, String, i8)>) -> Described {
    let (_, value, source) = synonyms.first().expect("a setting has a default at least").clone();
    Described {
        name: name.to_owned(),
        value,
        source,
        config_type: kind.kafka_type(),
        documentation: documentation.to_owned(),
        synonyms,
    }
}

fn of_broker(entry: &Entry) -> Vec<(String, String, i8)> {
    let key = || entry.setting.key.to_owned();
    // A computed default is a text like `<data.dir>/wal`: what it came to says more.
    let default =
        if entry.setting.computed && entry.origin == Origin::Default { &entry.value } else { entry.setting.default };
    let mut synonyms = vec![(key(), default.to_owned(), DEFAULT)];
    if entry.origin != Origin::Default {
        synonyms.insert(0, (key(), entry.value.clone(), STATIC_BROKER));
    }
    synonyms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SETTINGS;

    fn find<'a>(all: &'a [Described], name: &str) -> &'a Described {
        all.iter().find(|setting| setting.name == name).expect("described")
    }

    #[test]
    fn a_topics_setting_overrides_the_brokers_which_overrides_the_default() {
        let config = Config::with(&[("log.retention.ms", "9000")]).expect("right");
        let own = topic(&config, &BTreeMap::from([("retention.ms".to_owned(), "5000".to_owned())]));
        let retention = find(&own, "retention.ms");
        assert_eq!((retention.value.as_str(), retention.source, retention.config_type), ("5000", TOPIC, 5));
        let chain: Vec<_> =
            retention.synonyms.iter().map(|(name, value, source)| (&**name, &**value, *source)).collect();
        assert_eq!(chain, [("retention.ms", "5000", TOPIC), ("log.retention.ms", "9000", STATIC_BROKER)]);
        let inherited = find(&topic(&config, &BTreeMap::new()), "retention.ms").clone();
        assert_eq!((inherited.value.as_str(), inherited.source), ("9000", STATIC_BROKER));
        let size = find(&own, "max.message.bytes").clone();
        assert_eq!((size.value.as_str(), size.source), ("1048588", DEFAULT));
        assert_eq!(size.synonyms, [("message.max.bytes".to_owned(), "1048588".to_owned(), DEFAULT)]);
        let throttled = find(&own, "leader.replication.throttled.replicas").clone();
        assert_eq!((throttled.source, throttled.synonyms), (DEFAULT, vec![]), "the broker has no such setting");
        let policy = find(&own, "cleanup.policy").clone();
        assert_eq!((policy.value.as_str(), policy.source, policy.config_type), ("delete", DEFAULT, 7));
        assert_eq!(own.len(), TOPIC_CONFIGS.len());
    }

    #[test]
    fn every_setting_of_the_broker_is_told_sorted() {
        let config = Config::with(&[("num.partitions", "3")]).expect("right");
        let all = broker(&config);
        assert_eq!(all.len(), SETTINGS.len());
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(
            (find(&all, "num.partitions").value.as_str(), find(&all, "num.partitions").source),
            ("3", STATIC_BROKER)
        );
        assert!(all.iter().all(|setting| !setting.documentation.is_empty()));
    }
}
