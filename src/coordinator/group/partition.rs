//! All groups of one partition of `__consumer_offsets`, with their timers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_record::Mono;

use super::{
    Census, GroupError,
    offsets::Offsets,
    request::{GroupAnswer, GroupEvent, GroupResult, ListedGroup},
    state::{AppendId, Group, Ticket, Turn},
};

/// The groups of a partition. Every method leaves `wake_at` right.
#[derive(Default, Debug)]
pub struct GroupPartition {
    groups: BTreeMap<Arc<str>, Group>,
    /// When each group is due, both ways.
    timers: BTreeSet<(Mono, Arc<str>)>,
    due: BTreeMap<Arc<str>, Mono>,
    census: Census,
}

impl GroupPartition {
    /// Takes a loaded group in.
    pub(super) fn insert(&mut self, turn: &mut Turn<'_>, group: Group) {
        let id = group.id.clone();
        self.add(group);
        self.change(turn, &id, |_, _| ());
    }

    /// Hands a request to its group, which is created where Kafka creates one.
    pub fn event(&mut self, turn: &mut Turn<'_>, group: &Arc<str>, ticket: Ticket, event: GroupEvent) {
        if !self.groups.contains_key(group) {
            if let Some(result) = answer_without_group(&event) {
                return turn.answer(ticket, result);
            }
            self.add(Group::new(group.clone()));
        }
        self.change(turn, group, |group, turn| group.event(turn, ticket, event));
    }

    /// An append of a group is done.
    pub fn appended(&mut self, turn: &mut Turn<'_>, group: &Arc<str>, id: AppendId, result: Result<(), GroupError>) {
        self.change(turn, group, |group, turn| group.appended(turn, id, result));
    }

    /// Lets what is due happen.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        let due: Vec<Arc<str>> =
            self.timers.iter().take_while(|(at, _)| *at <= turn.now).map(|(_, id)| id.clone()).collect();
        for id in due {
            self.change(turn, &id, |_, _| ());
        }
    }

    /// When [`GroupPartition::tick`] is due next.
    pub fn wake_at(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Forgets what has expired, and offsets of topics that do not exist.
    pub fn sweep(&mut self, turn: &mut Turn<'_>, is_gone: &dyn Fn(&str) -> bool) {
        self.change_all(turn, |group, turn| {
            group.forget_topics(turn, is_gone);
            group.sweep(turn);
        });
    }

    /// Forgets offsets of topics that are gone.
    pub fn forget_topics(&mut self, turn: &mut Turn<'_>, is_gone: &dyn Fn(&str) -> bool) {
        self.change_all(turn, |group, turn| group.forget_topics(turn, is_gone));
    }

    /// The partition moves away: answers everybody who waits.
    pub fn unload(mut self, turn: &mut Turn<'_>) {
        self.groups.values_mut().for_each(|group| group.unload(turn));
    }

    /// How many groups there are, in which states.
    pub fn census(&self) -> Census {
        self.census
    }

    /// The groups, by id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    fn add(&mut self, group: Group) {
        self.census.add(&Census::of(&group));
        self.groups.insert(group.id.clone(), group);
    }

    /// The groups as ListGroups shows them, by id.
    pub fn list(&self) -> impl Iterator<Item = ListedGroup> + '_ {
        self.groups.values().map(Group::list)
    }

    fn change_all(&mut self, turn: &mut Turn<'_>, mut change: impl FnMut(&mut Group, &mut Turn<'_>)) {
        let ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for id in ids {
            self.change(turn, &id, &mut change);
        }
    }

    fn change(&mut self, turn: &mut Turn<'_>, id: &Arc<str>, change: impl FnOnce(&mut Group, &mut Turn<'_>)) {
        if let Some(group) = self.groups.get_mut(id) {
            self.census.take(&Census::of(group));
            change(group, turn);
            self.settle(turn, id);
        }
    }

    /// After a change: what is due at once happens (a rebalance without delay), a group with nothing left goes, and the
    /// timer is set anew.
    fn settle(&mut self, turn: &mut Turn<'_>, id: &Arc<str>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        if group.wake_at().is_some_and(|at| at <= turn.now) {
            group.tick(turn);
        }
        let next = group.wake_at();
        let vacant = group.is_vacant();
        if vacant {
            self.groups.remove(id);
        } else {
            self.census.add(&Census::of(group));
        }
        let next = next.filter(|_| !vacant);
        if self.due.get(id).copied() == next {
            return;
        }
        if let Some(earlier) = self.due.remove(id) {
            self.timers.remove(&(earlier, id.clone()));
        }
        if let Some(at) = next {
            self.due.insert(id.clone(), at);
            self.timers.insert((at, id.clone()));
        }
    }
}

/// What is answered when there is no such group; `None` when one is created.
fn answer_without_group(event: &GroupEvent) -> Option<GroupResult> {
    match event {
        GroupEvent::Join(request) if request.member_id.is_empty() => None,
        GroupEvent::Join(_) | GroupEvent::Sync(_) | GroupEvent::Heartbeat(_) => Some(Err(GroupError::UnknownMember)),
        GroupEvent::Leave(members) => {
            let unknown = members.iter().map(|_| Err(GroupError::UnknownMember)).collect();
            Some(Ok(GroupAnswer::Left(unknown)))
        }
        // A consumer without group membership: a group that only has offsets.
        GroupEvent::Commit(request) if request.member.generation < 0 => None,
        GroupEvent::Commit(request) if request.knows_missing_group => Some(Err(GroupError::GroupIdNotFound)),
        GroupEvent::Commit(_) => Some(Err(GroupError::IllegalGeneration)),
        GroupEvent::Fetch(wanted) => Some(Ok(GroupAnswer::Offsets(Offsets::default().fetch(wanted.clone())))),
        GroupEvent::Describe | GroupEvent::Delete | GroupEvent::DeleteOffsets(_) => {
            Some(Err(GroupError::GroupIdNotFound))
        }
    }
}
