//! Settings as DescribeConfigs and CreateTopics tell them: value, type, where it comes from, and what it overrides.

use std::collections::BTreeMap;

use crate::config::{Config, Entry, Origin, SETTINGS};

/// Where a value comes from, in Kafka's codes.
const TOPIC: i8 = 1;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;

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
    /// What it does.
    pub documentation: String,
    /// Everything that gives it a value, the one in force first: name, value, source.
    pub synonyms: Vec<(String, String, i8)>,
}

/// All settings of a topic that overrides some of them, by name.
pub fn topic(config: &Config, overrides: &BTreeMap<String, String>) -> Vec<Described> {
    let inherited = SETTINGS.iter().filter(|setting| !setting.topic_key.is_empty());
    let mut all: Vec<Described> = inherited
        .filter_map(|setting| config.entry(setting.key))
        .map(|entry| {
            let mut synonyms = of_broker(entry);
            if let Some(value) = overrides.get(entry.setting.topic_key) {
                synonyms.insert(0, (entry.setting.topic_key.to_owned(), value.clone(), TOPIC));
            }
            described(entry.setting.topic_key, entry, synonyms)
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// All settings of this broker, by name.
pub fn broker(config: &Config) -> Vec<Described> {
    let mut all: Vec<Described> =
        config.entries().map(|entry| described(entry.setting.key, entry, of_broker(entry))).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn described(name: &str, entry: &Entry, synonyms: Vec<(String, String, i8)>) -> Described {
    let (_, value, source) = synonyms.first().expect("a setting has a default at least").clone();
    Described {
        name: name.to_owned(),
        value,
        source,
        config_type: entry.setting.kind.kafka_type(),
        documentation: entry.setting.doc.to_owned(),
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
        let expected = [
            ("retention.ms", "5000", TOPIC),
            ("log.retention.ms", "9000", STATIC_BROKER),
            ("log.retention.ms", "604800000", DEFAULT),
        ];
        assert_eq!(chain, expected);
        let inherited = find(&topic(&config, &BTreeMap::new()), "retention.ms").clone();
        assert_eq!((inherited.value.as_str(), inherited.source), ("9000", STATIC_BROKER));
        let size = find(&own, "max.message.bytes").clone();
        assert_eq!((size.value.as_str(), size.source), ("1048588", DEFAULT));
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
