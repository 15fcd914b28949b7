//! A classic group (KIP-62, KIP-345, KIP-394, KIP-814) as a state machine: events and `now` in, actions out.
//!
//! Lives in the coordinator actor of one core; has no clock, no I/O, no randomness of its own. This file holds the state
//! and the events' entry points; the transitions are in `join`, `rebalance`, `sync`, `liveness` and `offsets`.
//!
//! Invariants: a ticket is answered exactly once; what a client was told survives a crash, for commits and assignments
//! are answered after their append only; the metadata of a generation is written by its leader's sync, so that a crash in
//! the middle of a rebalance brings the last stable generation back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use thalweg_record::{Mono, Wall};

use super::{
    GroupConfig, GroupError,
    liveness::JoinTimer,
    member::Member,
    offsets::{Committing, Forgetting, Offsets},
    records::{GroupMetadata, GroupRecord},
    request::{DescribedGroup, GroupAnswer, GroupEvent, GroupResult, ListedGroup},
};

/// The states of a classic group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    /// No members; offsets may be kept.
    Empty,
    /// Members are called to join a new generation.
    PreparingRebalance,
    /// The generation is formed, and its leader assigns.
    CompletingRebalance,
    /// All members have their assignment.
    Stable,
    /// Being deleted.
    Dead,
}

impl GroupState {
    /// All of them, in the order of their numbers.
    pub const ALL: [GroupState; 5] = [
        GroupState::Empty,
        GroupState::PreparingRebalance,
        GroupState::CompletingRebalance,
        GroupState::Stable,
        GroupState::Dead,
    ];

    /// Kafka's name of the state, as its tools compare it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

/// A request that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticket(pub u64);

/// An append that a group waits for; unique within the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct AppendId(pub u64);

/// What a group wants done.
#[derive(Debug)]
pub enum Action {
    /// Answer a request.
    Answer(Ticket, GroupResult),
    /// Append these records as one batch, then tell the group by [`Group::appended`].
    Append {
        /// The group.
        group: Arc<str>,
        /// What to say when it is done.
        id: AppendId,
        /// The records, in order.
        records: Vec<GroupRecord>,
    },
}

/// One turn of the actor: the clocks sampled once, and what came of it.
#[derive(Debug)]
pub struct Turn<'a> {
    /// The monotonic clock.
    pub now: Mono,
    /// The wall clock.
    pub wall: Wall,
    /// The settings.
    pub config: &'a GroupConfig,
    /// In order.
    pub actions: Vec<Action>,
    /// Generations formed.
    pub rebalances: u64,
    /// Offsets that became durable.
    pub commits: u64,
}

impl<'a> Turn<'a> {
    /// A turn at that moment.
    pub fn new(now: Mono, wall: Wall, config: &'a GroupConfig) -> Turn<'a> {
        Turn { now, wall, config, actions: Vec::new(), rebalances: 0, commits: 0 }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, result: GroupResult) {
        self.actions.push(Action::Answer(ticket, result));
    }
}

/// What to do when an append is durable, or has failed.
#[derive(Debug)]
pub(super) enum InFlight {
    /// The leader's assignment of a generation.
    Sync { generation: i32, assignments: BTreeMap<Arc<str>, Bytes> },
    /// A static member came back under a new id while the group was stable.
    StaticSwap(Box<super::join::StaticSwap>),
    /// The group has become empty; nobody waits.
    Emptied,
    /// A commit of offsets.
    Commit(Committing),
    /// Some offsets are forgotten.
    Forget(Forgetting),
    /// The whole group is deleted.
    Delete(Option<Ticket>),
}

/// A group and its committed offsets.
#[derive(Debug)]
pub struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: GroupState,
    /// When the state was entered; unknown for groups loaded from old records.
    pub(super) state_since: Option<Wall>,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    /// Static members: instance id to member id.
    pub(super) instances: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids that were handed out with MEMBER_ID_REQUIRED, until when they are waited for.
    pub(super) pending_joins: BTreeMap<Arc<str>, Mono>,
    /// Members of the current generation that did not sync yet.
    pub(super) awaiting_sync: BTreeSet<Arc<str>>,
    /// Set while preparing a rebalance.
    pub(super) join_timer: Option<JoinTimer>,
    /// Until when every member must have synced.
    pub(super) sync_deadline: Option<Mono>,
    /// Somebody joined since the initial delay was last extended.
    pub(super) new_member_added: bool,
    pub(super) offsets: Offsets,
    /// When an offset was last committed.
    pub(super) last_commit: Option<Wall>,
    /// Whether a metadata record of the group lies in the log.
    pub(super) stored: bool,
    in_flight: BTreeMap<AppendId, InFlight>,
    next_append: u64,
    wake_at: Option<Mono>,
}

impl Group {
    /// A group without members and offsets.
    pub fn new(id: Arc<str>) -> Group {
        Group {
            id,
            state: GroupState::Empty,
            state_since: None,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending_joins: BTreeMap::new(),
            awaiting_sync: BTreeSet::new(),
            join_timer: None,
            sync_deadline: None,
            new_member_added: false,
            offsets: Offsets::default(),
            last_commit: None,
            stored: false,
            in_flight: BTreeMap::new(),
            next_append: 0,
            wake_at: None,
        }
    }

    /// Handles a request; its answer comes now or in a later turn, under `ticket`.
    pub fn event(&mut self, turn: &mut Turn<'_>, ticket: Ticket, event: GroupEvent) {
        match event {
            GroupEvent::Join(request) => self.join(turn, ticket, request),
            GroupEvent::Sync(request) => self.sync(turn, ticket, request),
            GroupEvent::Heartbeat(member) => {
                let result = self.heartbeat(turn, &member).map(|()| GroupAnswer::Done);
                turn.answer(ticket, result);
            }
            GroupEvent::Leave(members) => self.leave(turn, ticket, &members),
            GroupEvent::Commit(request) => self.commit(turn, ticket, request),
            GroupEvent::Fetch(wanted) => {
                let found = self.offsets.fetch(wanted);
                turn.answer(ticket, Ok(GroupAnswer::Offsets(found)));
            }
            GroupEvent::Describe => {
                let described = self.describe();
                turn.answer(ticket, Ok(GroupAnswer::Described(Box::new(described))));
            }
            GroupEvent::Delete => self.delete(turn, ticket),
            GroupEvent::DeleteOffsets(partitions) => self.delete_offsets(turn, ticket, partitions),
        }
    }

    /// An append has become durable, or has failed; in the order of the log.
    pub fn appended(&mut self, turn: &mut Turn<'_>, id: AppendId, result: Result<(), GroupError>) {
        let Some(waiting) = self.in_flight.remove(&id) else { return };
        match waiting {
            InFlight::Sync { generation, assignments } => self.sync_appended(turn, generation, assignments, result),
            InFlight::StaticSwap(swap) => self.static_swap_appended(turn, *swap, result),
            InFlight::Emptied => {
                if let Err(why) = result {
                    tracing::warn!(group = %self.id, %why, "an empty generation was not stored");
                }
            }
            InFlight::Commit(commit) => self.commit_appended(turn, commit, result),
            InFlight::Forget(forget) => self.forget_appended(turn, forget, result),
            InFlight::Delete(ticket) => self.delete_appended(turn, ticket, result),
        }
    }

    /// When [`Group::tick`] is due next.
    pub fn wake_at(&self) -> Option<Mono> {
        self.wake_at
    }

    /// The partition moves away: every request that waits is answered so, and the group must be dropped.
    pub fn unload(&mut self, turn: &mut Turn<'_>) {
        let mut tickets = BTreeSet::new();
        for member in self.members.values_mut() {
            tickets.extend(member.parked_join.take());
            tickets.extend(member.parked_sync.take());
        }
        for waiting in std::mem::take(&mut self.in_flight).into_values() {
            tickets.extend(match waiting {
                InFlight::Sync { .. } | InFlight::Emptied => None,
                InFlight::StaticSwap(swap) => Some(swap.ticket),
                InFlight::Commit(commit) => Some(commit.ticket),
                InFlight::Forget(forget) => forget.ticket(),
                InFlight::Delete(ticket) => ticket,
            });
        }
        for ticket in tickets {
            turn.answer(ticket, Err(GroupError::NotCoordinator));
        }
    }

    /// Nothing would be lost if the group were dropped from memory: it has nothing in the log, and nobody waits.
    pub fn is_vacant(&self) -> bool {
        matches!(self.state, GroupState::Empty | GroupState::Dead)
            && !self.stored
            && self.offsets.is_empty()
            && self.pending_joins.is_empty()
            && self.in_flight.is_empty()
    }

    /// The group as ListGroups shows it.
    pub fn list(&self) -> ListedGroup {
        ListedGroup {
            group: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state,
        }
    }

    fn describe(&self) -> DescribedGroup {
        let protocol = self.protocol.as_deref().filter(|_| self.state == GroupState::Stable);
        DescribedGroup {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.map(Arc::from).unwrap_or_default(),
            members: self.members.values().map(|m| m.describe(protocol)).collect(),
        }
    }

    pub(super) fn enter(&mut self, turn: &Turn<'_>, state: GroupState) {
        self.state = state;
        self.state_since = Some(turn.wall);
    }

    /// Emits an append; `then` is done when it is durable or has failed.
    pub(super) fn append(&mut self, turn: &mut Turn<'_>, records: Vec<GroupRecord>, then: InFlight) {
        let id = AppendId(self.next_append);
        self.next_append += 1;
        if records.iter().any(|r| matches!(r, GroupRecord::Metadata(Some(_)))) {
            self.stored = true;
        }
        self.in_flight.insert(id, then);
        turn.actions.push(Action::Append { group: self.id.clone(), id, records });
    }

    /// Commits on their way to the log.
    pub(super) fn commits_in_flight(&self) -> impl Iterator<Item = &Committing> {
        self.in_flight.values().filter_map(|waiting| match waiting {
            InFlight::Commit(commit) => Some(commit),
            _ => None,
        })
    }

    /// Makes sure that [`Group::tick`] comes at `at` at the latest.
    pub(super) fn arm(&mut self, at: Mono) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn disarm(&mut self) {
        self.wake_at = None;
    }

    /// The longest time any member asks for to rejoin.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|m| m.rebalance_timeout).max().unwrap_or_default()
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The group as its metadata record says it, with `assignments` in place of those in force.
    pub(super) fn metadata(&self, assignments: Option<&BTreeMap<Arc<str>, Bytes>>) -> GroupMetadata {
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_since: self.state_since,
            members: self.members.values().map(|m| self.stored_member(m, assignments)).collect(),
        }
    }
}
