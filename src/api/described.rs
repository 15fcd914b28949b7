//! Settings as DescribeConfigs and CreateTopics tell them: value, type, where it comes from, and what it overrides.

use std::collections::BTreeSet;

use crate::{
    cluster::{
        Altered, Values,
        broker_config::{self, Known},
        group_config::GROUP_CONFIGS,
        topic_config::{TOPIC_CONFIGS, TopicConfig},
    },
    config::{Config, Entry, Origin},
};

/// Where a value comes from, in Kafka's codes.
const TOPIC: i8 = 1;
const DYNAMIC_BROKER: i8 = 2;
const DYNAMIC_DEFAULT: i8 = 3;
const STATIC_BROKER: i8 = 4;
const DEFAULT: i8 = 5;
const GROUP: i8 = 8;

/// Kafka's type of a setting that nobody knows.
const UNKNOWN_TYPE: i8 = 0;

/// Settings of the broker whose default Kafka keeps under a coarser name (log.retention.hours, log.roll.hours): they are no
/// synonym before somebody sets them.
const WITHOUT_DEFAULT: &[&str] = &["log.flush.interval.ms", "log.retention.ms", "log.roll.jitter.ms", "log.roll.ms"];

/// A name, a value and where that comes from.
type Source = (String, String, i8);

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
    /// Whether it cannot be altered while the broker runs.
    pub read_only: bool,
    /// Whether no value of it may be told: it may be a secret.
    pub sensitive: bool,
    /// What it does; empty where it only has to be known.
    pub documentation: String,
    /// Everything that gives it a value, the one in force first: name, value, source.
    pub synonyms: Vec<Source>,
}

/// All settings of a topic that overrides some of them, by name.
pub fn topic(config: &Config, altered: &Altered, overrides: &Values) -> Vec<Described> {
    let one = |setting: &TopicConfig| {
        let entry = setting.synonym.and_then(|name| config.entry(name));
        let mut synonyms = setting.synonym.map_or_else(Vec::new, |name| of_altered(altered, name));
        match entry {
            Some(entry) => synonyms.extend(of_broker(entry)),
            None => {
                let name = setting.synonym.unwrap_or(setting.name);
                synonyms.push((name.to_owned(), setting.default.to_owned(), DEFAULT));
            }
        }
        if let Some(value) = overrides.get(setting.name) {
            synonyms.insert(0, (setting.name.to_owned(), value.clone(), TOPIC));
        }
        let documentation = entry.map_or("", |entry| entry.setting.doc);
        let mut told = described(setting.name, setting.kind.kafka_type(), documentation, synonyms);
        if setting.synonym.is_none_or(|name| WITHOUT_DEFAULT.contains(&name)) {
            told.synonyms.retain(|(_, _, source)| *source != DEFAULT);
        }
        told
    };
    TOPIC_CONFIGS.iter().map(one).collect()
}

/// All settings of this broker, by name: its own, and what else was altered.
pub fn broker(config: &Config, altered: &Altered) -> Vec<Described> {
    let own = |entry: &Entry| {
        let setting = entry.setting;
        let mut synonyms = of_altered(altered, setting.key);
        synonyms.extend(of_broker(entry));
        let read_only = matches!(broker_config::known(setting.key), Known::ReadOnly);
        Described { read_only, ..described(setting.key, setting.kind.kafka_type(), setting.doc, synonyms) }
    };
    let names: BTreeSet<&String> = altered.broker.keys().chain(altered.brokers.keys()).collect();
    let others = names.into_iter().filter(|name| config.entry(name).is_none());
    let others = others.map(|name| of_others(name, of_altered(altered, name)));
    let mut all: Vec<Described> = config.entries().map(own).chain(others).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// What was altered of all brokers, by name.
pub fn brokers(altered: &Altered) -> Vec<Described> {
    let one = |(name, value): (&String, &String)| of_others(name, vec![(name.clone(), value.clone(), DYNAMIC_DEFAULT)]);
    altered.brokers.iter().map(one).collect()
}

/// All settings of a group, by name.
pub fn group(own: &Values) -> Vec<Described> {
    let one = |setting: &TopicConfig| {
        let name = setting.synonym.unwrap_or(setting.name);
        let mut synonyms = vec![(name.to_owned(), setting.default.to_owned(), DEFAULT)];
        if let Some(value) = own.get(setting.name) {
            synonyms.insert(0, (setting.name.to_owned(), value.clone(), GROUP));
        }
        described(setting.name, setting.kind.kafka_type(), "", synonyms)
    };
    GROUP_CONFIGS.iter().map(one).collect()
}

fn described(name: &str, config_type: i8, documentation: &str, synonyms: Vec<Source>) -> Described {
    let (_, value, source) = synonyms.first().expect("a setting has a default at least").clone();
    Described {
        name: name.to_owned(),
        value,
        source,
        config_type,
        read_only: false,
        sensitive: false,
        documentation: documentation.to_owned(),
        synonyms,
    }
}

/// A setting of brokers by its altered values alone. Of what nobody knows Kafka says neither value nor type.
fn of_others(name: &str, mut synonyms: Vec<Source>) -> Described {
    let (config_type, secret) = match broker_config::known(name) {
        Known::OfTopics(topic) => {
            if synonyms.iter().any(|(_, _, source)| *source == DYNAMIC_BROKER) || synonyms.len() > 1 {
                synonyms.push((name.to_owned(), topic.default.to_owned(), DEFAULT));
            }
            (topic.kind.kafka_type(), false)
        }
        Known::Own(own, _) => (own.kind.kafka_type(), false),
        Known::Stored(_, kind) => (kind.kafka_type(), false),
        Known::ReadOnly | Known::Unknown => (UNKNOWN_TYPE, true),
    };
    Described { read_only: secret, sensitive: secret, ..described(name, config_type, "", synonyms) }
}

/// What was altered of a broker's setting, this broker's value first.
fn of_altered(altered: &Altered, name: &str) -> Vec<Source> {
    let of = |values: &Values, source| Some((name.to_owned(), values.get(name)?.clone(), source));
    of(&altered.broker, DYNAMIC_BROKER).into_iter().chain(of(&altered.brokers, DYNAMIC_DEFAULT)).collect()
}

fn of_broker(entry: &Entry) -> Vec<Source> {
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::SETTINGS;

    fn find<'a>(all: &'a [Described], name: &str) -> &'a Described {
        all.iter().find(|setting| setting.name == name).expect("described")
    }

    #[test]
    fn a_topics_setting_overrides_the_brokers_which_overrides_the_default() {
        let config = Config::with(&[("log.retention.ms", "9000")]).expect("right");
        let own =
            topic(&config, &Altered::default(), &BTreeMap::from([("retention.ms".to_owned(), "5000".to_owned())]));
        let retention = find(&own, "retention.ms");
        assert_eq!((retention.value.as_str(), retention.source, retention.config_type), ("5000", TOPIC, 5));
        let chain: Vec<_> =
            retention.synonyms.iter().map(|(name, value, source)| (&**name, &**value, *source)).collect();
        assert_eq!(chain, [("retention.ms", "5000", TOPIC), ("log.retention.ms", "9000", STATIC_BROKER)]);
        let inherited = find(&topic(&config, &Altered::default(), &BTreeMap::new()), "retention.ms").clone();
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
        let all = broker(&config, &Altered::default());
        assert_eq!(all.len(), SETTINGS.len());
        assert!(all.is_sorted_by(|a, b| a.name < b.name));
        assert_eq!(
            (find(&all, "num.partitions").value.as_str(), find(&all, "num.partitions").source),
            ("3", STATIC_BROKER)
        );
        assert!(all.iter().all(|setting| !setting.documentation.is_empty()));
    }

    #[test]
    fn what_was_altered_goes_before_what_was_read() {
        let config = Config::with(&[("log.retention.ms", "9000"), ("max.connections", "30")]).expect("right");
        let one = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let altered = Altered {
            broker: [one("log.retention.ms", "1"), one("a.secret", "s3cret"), one("log.segment.bytes", "2000000")]
                .into(),
            brokers: [one("log.retention.ms", "2"), one("max.connections", "20"), one("background.threads", "9")]
                .into(),
            groups: BTreeMap::new(),
        };
        let chain = |told: &Described| told.synonyms.iter().map(|(_, v, s)| (v.clone(), *s)).collect::<Vec<_>>();
        let all = broker(&config, &altered);
        let retention = find(&all, "log.retention.ms");
        assert_eq!((retention.value.as_str(), retention.source, retention.read_only), ("1", DYNAMIC_BROKER, false));
        let values = [("1", 2), ("2", 3), ("9000", 4), ("604800000", 5)].map(|(v, s)| (v.to_owned(), s));
        assert_eq!(chain(retention), values);
        let told = topic(&config, &altered, &Values::new());
        assert_eq!((find(&told, "retention.ms").value.as_str(), find(&told, "retention.ms").source), ("1", 2));
        assert_eq!((find(&told, "segment.bytes").value.as_str(), find(&told, "segment.bytes").source), ("2000000", 2));
        assert_eq!((find(&all, "max.connections").value.as_str(), find(&all, "max.connections").source), ("20", 3));
        let secret = find(&all, "a.secret");
        assert_eq!((secret.sensitive, secret.read_only, secret.config_type), (true, true, 0));
        assert!(find(&all, "num.partitions").read_only && !find(&all, "background.threads").read_only);
        let names: Vec<String> = brokers(&altered).into_iter().map(|told| told.name).collect();
        assert_eq!(names, ["background.threads", "log.retention.ms", "max.connections"]);
        let own = group(&[one("consumer.session.timeout.ms", "50000")].into());
        let session = find(&own, "consumer.session.timeout.ms");
        assert_eq!((session.value.as_str(), session.source), ("50000", GROUP));
        assert_eq!(session.synonyms[1], ("group.consumer.session.timeout.ms".to_owned(), "45000".to_owned(), DEFAULT));
    }
}
