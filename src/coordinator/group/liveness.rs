//! Who is alive: heartbeats, leaving, and the timers of a group.

use std::{sync::Arc, time::Duration};

use thalweg_record::Mono;

use super::{
    GroupError,
    request::{GroupAnswer, LeavingMember, MemberRef},
    state::{Group, GroupState, Ticket, Turn},
};

/// How long a rebalance waits for members.
#[derive(Debug)]
pub(super) struct JoinTimer {
    pub(super) at: Mono,
    /// For the first rebalance of an empty group: by how much newcomers may still extend it.
    pub(super) initial: Option<Duration>,
}

impl Group {
    pub(super) fn heartbeat(&mut self, turn: &Turn<'_>, member: &MemberRef) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&member.id, member.instance.as_deref())?;
        if member.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => {
                self.touch(turn, &member.id);
                Err(GroupError::RebalanceInProgress)
            }
            // Clients beat as soon as they have joined, before they have synced.
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.touch(turn, &member.id);
                Ok(())
            }
        }
    }

    /// The member was heard of: its session begins anew.
    pub(super) fn touch(&mut self, turn: &Turn<'_>, id: &str) {
        let member = self.members.get_mut(id).expect("only members are touched");
        member.alive_until = turn.now.plus(member.session_timeout);
        let at = member.alive_until;
        self.arm(at);
    }

    pub(super) fn leave(&mut self, turn: &mut Turn<'_>, ticket: Ticket, members: &[LeavingMember]) {
        if self.state == GroupState::Dead {
            return turn.answer(ticket, Err(GroupError::CoordinatorNotAvailable));
        }
        let results: Vec<Result<(), GroupError>> = members.iter().map(|m| self.leave_one(turn, m)).collect();
        let any_left = results.iter().any(Result::is_ok);
        turn.answer(ticket, Ok(GroupAnswer::Left(results)));
        if any_left {
            self.rebalance_without_gone(turn);
        }
    }

    fn leave_one(&mut self, turn: &mut Turn<'_>, leaving: &LeavingMember) -> Result<(), GroupError> {
        let id = match &leaving.instance {
            // An administrator removes static members by instance id alone.
            Some(instance) if leaving.id.is_empty() => {
                self.instances.get(instance).cloned().ok_or(GroupError::UnknownMember)?
            }
            _ => leaving.id.clone(),
        };
        if self.pending_joins.remove(&id).is_some() {
            return Ok(());
        }
        self.validate_member(&id, leaving.instance.as_deref())?;
        self.expel(turn, &id);
        Ok(())
    }

    /// Removes a member and answers what it waits for, so that a live client joins afresh.
    fn expel(&mut self, turn: &mut Turn<'_>, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            for ticket in [member.parked_join.take(), member.parked_sync.take()].into_iter().flatten() {
                turn.answer(ticket, Err(GroupError::UnknownMember));
            }
        }
        self.forget_member(id);
    }

    pub(super) fn forget_member(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.awaiting_sync.remove(id);
    }

    fn rebalance_without_gone(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.rebalance(turn),
            GroupState::PreparingRebalance => self.maybe_complete_join(turn),
            GroupState::Empty | GroupState::Dead => {}
        }
    }

    /// Lets what is due by `turn.now` happen, and sets the next [`Group::wake_at`].
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        self.disarm();
        let pending = self.pending_joins.len();
        self.pending_joins.retain(|_, until| *until > turn.now);
        let expired = |m: &&super::member::Member| m.can_expire() && m.alive_until <= turn.now;
        let gone: Vec<Arc<str>> = self.members.values().filter(expired).map(|m| m.id.clone()).collect();
        for id in &gone {
            tracing::debug!(group = %self.id, member = %id, "a member's session has ended");
            self.expel(turn, id);
        }
        if !gone.is_empty() || self.pending_joins.len() < pending {
            if gone.is_empty() { self.maybe_complete_join(turn) } else { self.rebalance_without_gone(turn) }
        }
        if self.join_timer.as_ref().is_some_and(|t| t.at <= turn.now) {
            self.join_timer_fired(turn);
        }
        if self.sync_deadline.is_some_and(|at| at <= turn.now) {
            self.sync_deadline_passed(turn);
        }
        self.arm_next();
    }

    /// Members that formed the generation but never asked for their assignment are gone.
    fn sync_deadline_passed(&mut self, turn: &mut Turn<'_>) {
        self.sync_deadline = None;
        let silent = std::mem::take(&mut self.awaiting_sync);
        if silent.is_empty() || !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        tracing::debug!(group = %self.id, members = silent.len(), "members did not sync in time");
        silent.iter().for_each(|id| self.expel(turn, id));
        self.rebalance(turn);
    }

    fn arm_next(&mut self) {
        let sessions = self.members.values().filter(|m| m.can_expire()).map(|m| m.alive_until).min();
        let pending = self.pending_joins.values().copied().min();
        let join = self.join_timer.as_ref().map(|t| t.at);
        if let Some(at) = [sessions, pending, join, self.sync_deadline].into_iter().flatten().min() {
            self.arm(at);
        }
    }
}
