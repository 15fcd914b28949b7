//! What one request to control changes: checks first, then the ledger and the views, and the changes for the shards.
//!
//! Synchronous and free of I/O but the ledger's; the actor makes a turn's changes durable and brings them in force.

use std::{collections::BTreeSet, time::Duration};

use flume::Sender;
use thalweg_record::{PartitionId, ShardId, TopicId};
use thalweg_shards::msg::{CleanerTuning, PartitionChange, PartitionSettings};

use super::{
    altered::{Altered, ConfigTarget, Values, bytes_of},
    broker_config,
    control_msg::{ConfigOp, ControlError, ControlRequest, CreateTopic, CreatedTopic},
    group_config,
    ids::{self, Random},
    keys,
    ledger::{Fault, Ledger},
    topic_config, topic_name,
    topics::NewTopic,
    views::Views,
};

/// The most partitions a topic may have.
const MAX_TOPIC_PARTITIONS: i32 = 10_000;
/// The most partitions all topics may have together: each costs memory on its shard.
const MAX_PARTITIONS: usize = 200_000;
/// The most that the settings of one broker, of all, or of a group may have, in bytes: names and values. A topic's are fewer.
const MAX_VALUES_BYTES: usize = 256 << 10;
/// Settings that make room: they may be altered on a full disk.
const MAKE_ROOM: [&str; 4] = ["log.retention.bytes", "log.retention.ms", "retention.bytes", "retention.ms"];
/// The most groups that have settings of their own.
const MAX_GROUPS: usize = 10_000;

/// Settings of the broker's own that shards follow, where they change.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Orders {
    /// How long they remember idle producers from now on.
    pub(super) producers_expire: Option<Duration>,
    /// How they clean logs from now on.
    pub(super) cleaner: Option<CleanerTuning>,
}

/// The requests of one turn.
#[derive(Default)]
pub(super) struct Turn {
    /// Why nothing may be created, when that is so.
    pub(super) no_growth: Option<String>,
    pub(super) wrote: bool,
    /// Of the newest change that shards or edges must see.
    pub(super) revision: Option<u64>,
    /// Settings of shards that change.
    pub(super) orders: Orders,
    pub(super) changes: Vec<PartitionChange>,
    /// Rules have changed.
    pub(super) acls: bool,
    /// Credentials have changed.
    pub(super) scram: bool,
    pub(super) answers: Vec<Box<dyn FnOnce()>>,
    /// Partitions to move when all the rest is done, and whom to tell.
    pub(super) moves: Vec<Moves>,
}

/// Partitions to move, each with where to, and whom to tell which have moved.
pub(super) type Moves = (Vec<(PartitionId, ShardId)>, Sender<Vec<PartitionId>>);

/// A check that failed is the client's, a fault the process's.
pub(super) type Outcome<T> = Result<Result<T, ControlError>, Fault>;

impl Turn {
    fn answer<T: 'static>(&mut self, reply: Sender<T>, value: T) {
        self.answers.push(Box::new(move || {
            let _gone = reply.try_send(value);
        }));
    }

    pub(super) fn written(&mut self, revision: u64) {
        self.wrote = true;
        self.revision = Some(revision);
    }

    pub(super) fn may_grow(&self) -> Result<(), ControlError> {
        self.no_growth.clone().map_or(Ok(()), |why| Err(ControlError::DiskFull(why)))
    }

    /// Whether settings may become what they would be.
    fn may_become(&self, before: &Values, after: &Values) -> Result<(), ControlError> {
        let bytes = bytes_of(after);
        if bytes < bytes_of(before) {
            return Ok(());
        }
        if bytes > MAX_VALUES_BYTES {
            let why = format!("All settings of one resource may have {MAX_VALUES_BYTES} bytes.");
            return Err(ControlError::InvalidRequest(why));
        }
        let others = |values: &Values| -> Values {
            let others = values.iter().filter(|(name, _)| !MAKE_ROOM.contains(&name.as_str()));
            others.map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        if self.no_growth.is_none() || others(before) == others(after) { Ok(()) } else { self.may_grow() }
    }

    /// Checks and applies one request; its answer waits for the end of the turn.
    pub(super) fn apply(
        &mut self,
        ledger: &mut Ledger,
        views: &mut Views,
        request: ControlRequest,
        random: &mut Random,
    ) -> Result<(), Fault> {
        match request {
            ControlRequest::CreateTopics { topics, validate_only, reply } => {
                let twice = named_twice(topics.iter().map(|t| &*t.name));
                let mut results = Vec::new();
                for topic in topics {
                    results.push(if twice.contains(&topic.name) {
                        Err(ControlError::InvalidRequest(format!("Topic {} is in the request twice", topic.name)))
                    } else {
                        self.create(ledger, views, topic, validate_only, random)?
                    });
                }
                self.answer(reply, results);
            }
            ControlRequest::DeleteTopics { ids, reply } => {
                let results = ids.into_iter().map(|id| self.delete(ledger, views, id)).collect::<Result<_, _>>()?;
                self.answer(reply, results);
            }
            ControlRequest::CreatePartitions { topics, validate_only, reply } => {
                let twice = named_twice(topics.iter().map(|(name, _)| &**name));
                let mut results = Vec::new();
                for (name, total) in topics {
                    results.push(if twice.contains(&name) {
                        Err(ControlError::InvalidRequest(format!("Topic {name} is in the request twice")))
                    } else {
                        self.extend(ledger, views, &name, total, validate_only)?
                    });
                }
                self.answer(reply, results);
            }
            ControlRequest::AlterConfigs { target, ops, validate_only, reply } => {
                let result = match &target {
                    ConfigTarget::Topic(topic) => self.configure(ledger, views, topic, &ops, validate_only)?,
                    _ => self.alter(ledger, views, &target, &ops, validate_only)?,
                };
                self.answer(reply, result);
            }
            ControlRequest::CreateAcls { rules, reply } => {
                let rules = rules.into_iter().map(|rule| self.create_acl(ledger, rule, random));
                let results = rules.collect::<Result<_, _>>()?;
                self.answer(reply, results);
            }
            ControlRequest::DeleteAcls { filters, reply } => {
                let results = self.delete_acls(ledger, &filters)?;
                self.answer(reply, results);
            }
            ControlRequest::AlterScram { users, reply } => {
                let users = users.into_iter().map(|(user, changes)| self.alter_scram(ledger, &user, changes));
                let results = users.collect::<Result<_, _>>()?;
                self.answer(reply, results);
            }
            ControlRequest::MovePartitions { moves, reply } => self.moves.push((moves, reply)),
            ControlRequest::ReserveProducerIds { count, reply } => {
                let first = ledger.count_up(keys::NEXT_PRODUCER, 0, u64::from(count), |_| Vec::new())?;
                self.wrote = true;
                self.answer(reply, first as i64);
            }
        }
        Ok(())
    }

    fn create(
        &mut self,
        ledger: &mut Ledger,
        views: &mut Views,
        topic: CreateTopic,
        validate_only: bool,
        random: &mut Random,
    ) -> Outcome<CreatedTopic> {
        let mut new = match check_new(ledger, views, topic) {
            Ok(new) => new,
            Err(error) => return Ok(Err(error)),
        };
        let partitions = new.partitions;
        // Without the topic of their offsets no group could go on.
        if let (false, Err(full)) = (new.internal, self.may_grow()) {
            return Ok(Err(full));
        }
        if validate_only {
            return Ok(Ok(CreatedTopic { id: TopicId::ZERO, partitions }));
        }
        new.id = ids::topic_id(random);
        let id = new.id;
        let revision = ledger.create_topic(new)?;
        self.written(revision);
        views.set(id, &ledger.catalog.topics[&id]);
        self.open(ledger, views, id, 0);
        Ok(Ok(CreatedTopic { id, partitions }))
    }

    /// Opens a topic's partitions from `first` on.
    fn open(&mut self, ledger: &Ledger, views: &Views, id: TopicId, first: i32) {
        let topic = &ledger.catalog.topics[&id];
        let settings = views.defaults.effective(&topic.overrides);
        for index in first..topic.partitions.len() as i32 {
            let partition = PartitionId { topic: id, index };
            let spec = ledger.catalog.spec(partition, views.leader_epoch, settings.clone());
            self.changes.push(PartitionChange::Open(Box::new(spec.expect("the topic has this partition"))));
        }
    }

    fn delete(&mut self, ledger: &mut Ledger, views: &mut Views, id: TopicId) -> Outcome<()> {
        if !ledger.catalog.topics.contains_key(&id) {
            return Ok(Err(ControlError::UnknownTopicId("This server does not host this topic ID.".into())));
        }
        let (revision, topic) = ledger.delete_topic(id)?;
        self.written(revision);
        views.remove(id);
        let indexes = 0..topic.partitions.len() as i32;
        self.changes.extend(indexes.map(|index| PartitionChange::Delete(PartitionId { topic: id, index })));
        Ok(Ok(()))
    }

    fn extend(
        &mut self,
        ledger: &mut Ledger,
        views: &mut Views,
        name: &str,
        total: i32,
        validate_only: bool,
    ) -> Outcome<()> {
        let Some(id) = ledger.catalog.names.get(name).copied() else { return Ok(Err(unknown(name))) };
        let topic = &ledger.catalog.topics[&id];
        let current = topic.partitions.len() as i32;
        if total <= current {
            return Ok(Err(ControlError::InvalidPartitions(format!(
                "The topic {name} currently has {current} partition(s); {total} would not be an increase."
            ))));
        }
        if let Err(error) = check_count(ledger, total, current) {
            return Ok(Err(error));
        }
        if let Err(full) = self.may_grow() {
            return Ok(Err(full));
        }
        if !validate_only {
            let overrides = topic.overrides.clone();
            let revision = ledger.change_topic(id, total, overrides)?;
            self.written(revision);
            views.set(id, &ledger.catalog.topics[&id]);
            self.open(ledger, views, id, current);
        }
        Ok(Ok(()))
    }

    fn configure(
        &mut self,
        ledger: &mut Ledger,
        views: &mut Views,
        name: &str,
        ops: &[ConfigOp],
        validate_only: bool,
    ) -> Outcome<()> {
        let Some(id) = ledger.catalog.names.get(name).copied() else { return Ok(Err(unknown(name))) };
        let topic = &ledger.catalog.topics[&id];
        let overrides = match topic_config::edited(&topic.overrides, ops, &views.defaults) {
            Ok(overrides) => overrides,
            Err(why) => return Ok(Err(ControlError::InvalidConfig(why))),
        };
        if overrides == topic.overrides {
            return Ok(Ok(()));
        }
        match self.may_become(&topic.overrides, &overrides) {
            Ok(()) if validate_only => return Ok(Ok(())),
            Ok(()) => {}
            Err(refused) => return Ok(Err(refused)),
        }
        let revision = ledger.change_topic(id, topic.partitions.len() as i32, overrides)?;
        self.written(revision);
        views.set(id, &ledger.catalog.topics[&id]);
        self.put_in_force(ledger, views, id);
        Ok(Ok(()))
    }

    /// Tells the partitions of a topic which settings are in force for them.
    fn put_in_force(&mut self, ledger: &Ledger, views: &Views, id: TopicId) {
        let topic = &ledger.catalog.topics[&id];
        let effective = views.defaults.effective(&topic.overrides);
        let settings = PartitionSettings { version: topic.revision.0, ..effective };
        let indexes = 0..topic.partitions.len() as i32;
        self.changes.extend(
            indexes.map(|index| PartitionChange::Configure(PartitionId { topic: id, index }, settings.clone())),
        );
    }

    /// Alters settings of brokers or of a group.
    fn alter(
        &mut self,
        ledger: &mut Ledger,
        views: &mut Views,
        target: &ConfigTarget,
        ops: &[ConfigOp],
        validate_only: bool,
    ) -> Outcome<()> {
        let altered = ledger.catalog.altered.clone();
        let before = altered.of(target);
        let edited = match target {
            ConfigTarget::Group(_) => group_config::edited(before, ops).map_err(ControlError::InvalidConfig),
            _ => broker_config::edited(before, ops, &views.defaults),
        };
        let values = match edited {
            Ok(values) => values,
            Err(error) => return Ok(Err(error)),
        };
        if before.is_empty() && matches!(target, ConfigTarget::Group(_)) && altered.groups.len() >= MAX_GROUPS {
            let why = format!("{MAX_GROUPS} groups have settings of their own already.");
            return Ok(Err(ControlError::InvalidRequest(why)));
        }
        if values == *before {
            return Ok(Ok(()));
        }
        match self.may_become(before, &values) {
            Ok(()) if validate_only => return Ok(Ok(())),
            Ok(()) => {}
            Err(refused) => return Ok(Err(refused)),
        }
        warn_of_idle(target, before, &values);
        let revision = ledger.alter(target, values)?;
        self.written(revision);
        views.alter(ledger).into_iter().for_each(|id| self.put_in_force(ledger, views, id));
        let remembered = |altered: &Altered| altered.number(broker_config::PRODUCER_ID_EXPIRATION_MS);
        if remembered(&altered) != remembered(&ledger.catalog.altered) {
            let after_ms = remembered(&ledger.catalog.altered).unwrap_or(views.producer_expiration_ms);
            ledger.remember_producers(after_ms);
            self.orders.producers_expire = Some(Duration::from_millis(after_ms));
        }
        let tuning = |altered: &Altered| broker_config::cleaner_tuning(altered, views.cleaner);
        let tuned = tuning(&ledger.catalog.altered);
        if tuned != tuning(&altered) {
            self.orders.cleaner = Some(tuned);
        }
        Ok(Ok(()))
    }
}

/// Says in the log which altered settings of brokers are stored but change nothing here.
fn warn_of_idle(target: &ConfigTarget, before: &Values, after: &Values) {
    if matches!(target, ConfigTarget::Group(_)) {
        return;
    }
    for (name, _) in after.iter().filter(|(name, value)| before.get(*name) != Some(*value)) {
        if !broker_config::acts(name) {
            tracing::warn!(%target, setting = name, "the setting is stored, and changes nothing: this broker does not have it");
        }
    }
}

fn unknown(name: &str) -> ControlError {
    ControlError::UnknownTopic(format!("The topic '{}' does not exist.", name.escape_default()))
}

fn named_twice<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).map(str::to_owned).collect()
}

fn check_new(ledger: &Ledger, views: &Views, topic: CreateTopic) -> Result<NewTopic, ControlError> {
    let CreateTopic { name, partitions, configs, internal } = topic;
    topic_name::check(&name).map_err(ControlError::InvalidTopicName)?;
    let names = &ledger.catalog.names;
    if names.contains_key(&*name) {
        return Err(ControlError::TopicExists(format!("Topic '{name}' already exists.")));
    }
    if let Some(other) = topic_name::collision(&name, names) {
        return Err(ControlError::InvalidTopicName(format!("Topic '{name}' collides with existing topic: {other}")));
    }
    let partitions = partitions.unwrap_or(views.defaults.num_partitions);
    check_count(ledger, partitions, 0)?;
    let overrides = topic_config::check(&configs, &views.defaults).map_err(ControlError::InvalidConfig)?;
    Ok(NewTopic { id: TopicId::ZERO, name, partitions, internal, overrides })
}

fn check_count(ledger: &Ledger, total: i32, current: i32) -> Result<(), ControlError> {
    let refuse = |why: String| Err(ControlError::InvalidPartitions(why));
    if total < 1 {
        return refuse("Number of partitions was set to an invalid non-positive value.".into());
    }
    if total > MAX_TOPIC_PARTITIONS {
        return refuse(format!("A topic may have {MAX_TOPIC_PARTITIONS} partitions, {total} were asked for."));
    }
    let existing: usize = ledger.catalog.topics.values().map(|t| t.partitions.len()).sum();
    if existing + (total - current) as usize > MAX_PARTITIONS {
        return refuse(format!("This broker serves {MAX_PARTITIONS} partitions, and has {existing}."));
    }
    Ok(())
}
