//! The committed offsets of a group: commit, fetch, delete, expire.
//!
//! A commit becomes visible, and is answered, when its records are durable; until then it is in flight and shown to nobody.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_record::{Wall, failpoint};

use super::{
    GroupError,
    records::GroupRecord,
    request::{CommitRequest, GroupAnswer, NewOffset, TopicOffsets},
    state::{Group, GroupState, InFlight, Ticket, Turn},
    subscription::subscribed_topics,
};

/// The protocol type of consumers, the only one whose metadata the broker reads.
const CONSUMER: &str = "consumer";

/// What was committed for one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    /// The next offset to consume.
    pub offset: i64,
    /// Leader epoch of the last record consumed, or -1.
    pub leader_epoch: i32,
    /// What the client wanted to keep.
    pub metadata: Arc<str>,
    /// When it was committed.
    pub committed_at: Wall,
    /// When it expires, if the client itself said so (versions 2-4).
    pub expires_at: Option<Wall>,
}

/// Offsets by topic and partition.
#[derive(Default, Debug)]
pub(super) struct Offsets {
    by_topic: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(super) fn insert(&mut self, topic: Arc<str>, partition: i32, offset: CommittedOffset) {
        self.by_topic.entry(topic).or_default().insert(partition, offset);
    }

    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        let Some(partitions) = self.by_topic.get_mut(topic) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
    }

    /// By topic and partition.
    pub(super) fn by_topic(&self) -> &BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>> {
        &self.by_topic
    }

    /// When the newest of them was committed.
    pub(super) fn newest_commit(&self) -> Option<Wall> {
        self.by_topic.values().flat_map(BTreeMap::values).map(|offset| offset.committed_at).max()
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.by_topic.get(topic)?.get(&partition)
    }

    /// The partitions asked for, or all that there are.
    pub(super) fn fetch(&self, wanted: Option<Vec<(Arc<str>, Vec<i32>)>>) -> Vec<TopicOffsets> {
        let Some(wanted) = wanted else {
            let all = |(p, offset): (&i32, &CommittedOffset)| (*p, Some(offset.clone()));
            return self.by_topic.iter().map(|(t, found)| (t.clone(), found.iter().map(all).collect())).collect();
        };
        let of_topic = |(topic, partitions): (Arc<str>, Vec<i32>)| {
            let told = |p| {
                let found = self.get(&topic, p).cloned()?;
                // One that was committed before, as if the last commits were lost.
                let back = found.offset > 0 && failpoint::lies("offset-fetched");
                Some(if back { CommittedOffset { offset: 0, ..found } } else { found })
            };
            let found = partitions.into_iter().map(|p| (p, told(p))).collect();
            (topic, found)
        };
        wanted.into_iter().map(of_topic).collect()
    }

    fn keys_where(&self, mut keep: impl FnMut(&Arc<str>, &CommittedOffset) -> bool) -> Vec<(Arc<str>, i32)> {
        let mut keys = Vec::new();
        for (topic, partitions) in &self.by_topic {
            keys.extend(partitions.iter().filter(|(_, o)| keep(topic, o)).map(|(p, _)| (topic.clone(), *p)));
        }
        keys
    }
}

/// A commit on its way to the log.
#[derive(Debug)]
pub(super) struct Committing {
    pub(super) ticket: Ticket,
    offsets: Vec<(Arc<str>, i32, CommittedOffset)>,
    results: Vec<Result<(), GroupError>>,
}

/// Tombstones on their way to the log.
#[derive(Debug)]
pub(super) struct Forgetting {
    keys: Vec<(Arc<str>, i32)>,
    answer: Option<(Ticket, Vec<Result<(), GroupError>>)>,
}

impl Forgetting {
    pub(super) fn ticket(&self) -> Option<Ticket> {
        self.answer.as_ref().map(|(ticket, _)| *ticket)
    }
}

fn tombstones(keys: &[(Arc<str>, i32)]) -> Vec<GroupRecord> {
    keys.iter().map(|(t, p)| GroupRecord::Offset { topic: t.clone(), partition: *p, value: None }).collect()
}

impl Group {
    pub(super) fn commit(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: CommitRequest) {
        if let Err(why) = self.validate_commit(&request) {
            return turn.answer(ticket, Err(why));
        }
        if self.members.contains_key(&request.member.id) {
            self.touch(turn, &request.member.id);
        }
        let expires_at = request.retention_ms.map(|ms| Wall(turn.wall.0.saturating_add(ms)));
        let mut commit = Committing { ticket, offsets: Vec::new(), results: Vec::new() };
        for (topic, partition, NewOffset { offset, leader_epoch, metadata }) in request.offsets {
            if metadata.len() > turn.config.offset_metadata_max_bytes {
                commit.results.push(Err(GroupError::OffsetMetadataTooLarge));
                continue;
            }
            commit.results.push(Ok(()));
            let value = CommittedOffset { offset, leader_epoch, metadata, committed_at: turn.wall, expires_at };
            commit.offsets.push((topic, partition, value));
        }
        if commit.offsets.is_empty() {
            return turn.answer(ticket, Ok(GroupAnswer::Committed(commit.results)));
        }
        let record = |(topic, partition, value): &(Arc<str>, i32, CommittedOffset)| GroupRecord::Offset {
            topic: topic.clone(),
            partition: *partition,
            value: Some(value.clone()),
        };
        let records = commit.offsets.iter().map(record).collect();
        self.append(turn, records, InFlight::Commit(commit));
    }

    fn validate_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        let member = &request.member;
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        // Admin clients, and consumers that do not use group membership, commit without a generation.
        if member.generation < 0 && self.state == GroupState::Empty {
            return Ok(());
        }
        if member.generation < 0 && member.id.is_empty() && member.instance.is_none() {
            return Err(GroupError::UnknownMember);
        }
        self.validate_member(&member.id, member.instance.as_deref())?;
        if member.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    pub(super) fn commit_appended(&mut self, turn: &mut Turn<'_>, commit: Committing, result: Result<(), GroupError>) {
        let answer = result.map(|()| {
            turn.commits += commit.offsets.len() as u64;
            self.last_commit = self.last_commit.max(Some(turn.wall));
            for (topic, partition, value) in commit.offsets {
                self.offsets.insert(topic, partition, value);
            }
            GroupAnswer::Committed(commit.results)
        });
        turn.answer(commit.ticket, answer);
    }

    pub(super) fn delete_offsets(&mut self, turn: &mut Turn<'_>, ticket: Ticket, partitions: Vec<(Arc<str>, i32)>) {
        let subscribed = match self.state {
            GroupState::Dead => return turn.answer(ticket, Err(GroupError::GroupIdNotFound)),
            GroupState::Empty => BTreeSet::new(),
            _ => match self.subscriptions() {
                Some(topics) => topics,
                None => return turn.answer(ticket, Err(GroupError::NonEmptyGroup)),
            },
        };
        let allowed = |topic: &Arc<str>| match subscribed.contains(topic) {
            true => Err(GroupError::GroupSubscribedToTopic),
            false => Ok(()),
        };
        let results: Vec<Result<(), GroupError>> = partitions.iter().map(|(topic, _)| allowed(topic)).collect();
        let mut keys = partitions;
        keys.retain(|(topic, p)| allowed(topic).is_ok() && self.offsets.get(topic, *p).is_some());
        if keys.is_empty() {
            return turn.answer(ticket, Ok(GroupAnswer::OffsetsDeleted(results)));
        }
        let records = tombstones(&keys);
        self.append(turn, records, InFlight::Forget(Forgetting { keys, answer: Some((ticket, results)) }));
    }

    pub(super) fn forget_appended(&mut self, turn: &mut Turn<'_>, forget: Forgetting, result: Result<(), GroupError>) {
        if result.is_ok() {
            forget.keys.iter().for_each(|(topic, partition)| self.offsets.remove(topic, *partition));
        }
        if let Some((ticket, results)) = forget.answer {
            turn.answer(ticket, result.map(|()| GroupAnswer::OffsetsDeleted(results)));
        }
    }

    pub(super) fn delete(&mut self, turn: &mut Turn<'_>, ticket: Ticket) {
        match self.state {
            GroupState::Empty => self.delete_all(turn, Some(ticket)),
            GroupState::Dead => turn.answer(ticket, Err(GroupError::GroupIdNotFound)),
            _ => turn.answer(ticket, Err(GroupError::NonEmptyGroup)),
        }
    }

    fn delete_all(&mut self, turn: &mut Turn<'_>, ticket: Option<Ticket>) {
        let mut keys: BTreeSet<(Arc<str>, i32)> = self.offsets.keys_where(|_, _| true).into_iter().collect();
        // A commit on its way lies before the tombstones in the log, and must not come back either.
        for commit in self.commits_in_flight() {
            keys.extend(commit.offsets.iter().map(|(topic, partition, _)| (topic.clone(), *partition)));
        }
        let mut records = tombstones(&keys.into_iter().collect::<Vec<_>>());
        records.push(GroupRecord::Metadata(None));
        self.pending_joins.clear();
        self.enter(turn, GroupState::Dead);
        self.append(turn, records, InFlight::Delete(ticket));
    }

    pub(super) fn delete_appended(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Option<Ticket>,
        result: Result<(), GroupError>,
    ) {
        match &result {
            Ok(()) => {
                self.offsets = Offsets::default();
                self.stored = false;
            }
            Err(_) => self.enter(turn, GroupState::Empty),
        }
        if let Some(ticket) = ticket {
            turn.answer(ticket, result.map(|()| GroupAnswer::Done));
        }
    }

    /// Forgets offsets of topics that are gone. An offset on its way to the log stays until the next sweep.
    pub fn forget_topics(&mut self, turn: &mut Turn<'_>, is_gone: &dyn Fn(&str) -> bool) {
        if self.state == GroupState::Dead {
            return;
        }
        let keys = self.offsets.keys_where(|topic, _| is_gone(topic));
        self.forget(turn, keys);
    }

    fn forget(&mut self, turn: &mut Turn<'_>, keys: Vec<(Arc<str>, i32)>) {
        if !keys.is_empty() {
            let records = tombstones(&keys);
            self.append(turn, records, InFlight::Forget(Forgetting { keys, answer: None }));
        }
    }

    /// Forgets what has expired; a group that is left with nothing is deleted.
    pub fn sweep(&mut self, turn: &mut Turn<'_>) {
        if self.state == GroupState::Dead || self.commits_in_flight().next().is_some() {
            return;
        }
        let expired = self.expired_offsets(turn);
        let is_last = self.offsets.keys_where(|_, _| true).len() == expired.len();
        let idle = self.state == GroupState::Empty && self.pending_joins.is_empty();
        if idle && is_last && (self.stored || !expired.is_empty()) {
            self.delete_all(turn, None);
        } else {
            self.forget(turn, expired);
        }
    }

    fn expired_offsets(&self, turn: &Turn<'_>) -> Vec<(Arc<str>, i32)> {
        let retention_ms = i64::try_from(turn.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let empty_since = self.state_since.filter(|_| self.protocol_type.is_some());
        let subscribed = match (self.state, &self.protocol_type) {
            (GroupState::Empty, _) => BTreeSet::new(),
            (GroupState::Stable, Some(_)) => match self.subscriptions() {
                Some(topics) => topics,
                None => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        self.offsets.keys_where(|topic, offset| {
            let base = empty_since.filter(|_| self.state == GroupState::Empty).unwrap_or(offset.committed_at);
            let until = offset.expires_at.unwrap_or(Wall(base.0.saturating_add(retention_ms)));
            turn.wall >= until && !subscribed.contains(topic)
        })
    }

    /// The topics that the members of a consumer group subscribe to; `None` when that cannot be known.
    fn subscriptions(&self) -> Option<BTreeSet<Arc<str>>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}
