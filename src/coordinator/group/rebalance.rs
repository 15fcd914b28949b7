//! From the first call to rejoin to the new generation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    GroupError,
    liveness::JoinTimer,
    records::GroupRecord,
    state::{Group, GroupState, InFlight, Turn},
};

/// How often, at most, a rebalance looks again while all that is left of the group are absent static members.
const ABSENT_RECHECK: Duration = Duration::from_secs(1);

impl Group {
    /// The first rebalance of an empty group, which waits for its delay whoever has joined.
    pub(super) fn is_initial_rebalance(&self) -> bool {
        self.join_timer.as_ref().is_some_and(|t| t.initial.is_some())
    }

    /// Starts a rebalance where one can start, else sees whether the running one is complete.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => self.prepare_rebalance(turn),
            GroupState::PreparingRebalance => self.maybe_complete_join(turn),
            GroupState::Dead => {}
        }
    }

    fn prepare_rebalance(&mut self, turn: &mut Turn<'_>) {
        if self.state == GroupState::CompletingRebalance {
            self.fail_assignment(turn, &GroupError::RebalanceInProgress);
        }
        self.sync_deadline = None;
        let was_empty = self.state == GroupState::Empty;
        self.enter(turn, GroupState::PreparingRebalance);
        if was_empty {
            let delay = turn.config.initial_rebalance_delay;
            let remaining = self.rebalance_timeout().saturating_sub(delay);
            self.set_join_timer(JoinTimer { at: turn.now.plus(delay), initial: Some(remaining) });
        } else if self.have_all_joined() {
            self.complete_join(turn);
        } else {
            self.await_members(turn, Duration::ZERO);
        }
    }

    fn await_members(&mut self, turn: &Turn<'_>, at_least: Duration) {
        let at = turn.now.plus(self.rebalance_timeout().max(at_least));
        self.set_join_timer(JoinTimer { at, initial: None });
    }

    fn set_join_timer(&mut self, timer: JoinTimer) {
        self.arm(timer.at);
        self.join_timer = Some(timer);
    }

    fn have_all_joined(&self) -> bool {
        self.pending_joins.is_empty() && self.members.values().all(|m| m.is_awaiting_join())
    }

    /// Ends the rebalance if everybody is there.
    pub(super) fn maybe_complete_join(&mut self, turn: &mut Turn<'_>) {
        let preparing = self.state == GroupState::PreparingRebalance;
        if preparing && !self.is_initial_rebalance() && self.have_all_joined() {
            self.complete_join(turn);
        }
    }

    /// The join timer has run out: the initial delay may be extended by those who arrived, any other ends the wait.
    pub(super) fn join_timer_fired(&mut self, turn: &mut Turn<'_>) {
        let Some(timer) = self.join_timer.take() else { return };
        match timer.initial {
            Some(remaining) if self.new_member_added && remaining > Duration::ZERO => {
                self.new_member_added = false;
                let delay = turn.config.initial_rebalance_delay.min(remaining);
                let left = remaining.saturating_sub(turn.config.initial_rebalance_delay);
                self.set_join_timer(JoinTimer { at: turn.now.plus(delay), initial: Some(left) });
            }
            _ => self.complete_join(turn),
        }
    }

    /// Forms the new generation of those who are there.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        self.join_timer = None;
        let absent = |m: &&super::member::Member| !m.is_awaiting_join() && m.instance.is_none();
        let gone: Vec<Arc<str>> = self.members.values().filter(absent).map(|m| m.id.clone()).collect();
        gone.iter().for_each(|id| self.forget_member(id));
        if !self.members.is_empty() && !self.elect_leader() {
            // Only static members are left and none is back: wait for them until their sessions end.
            return self.await_members(turn, ABSENT_RECHECK);
        }
        self.generation = self.generation.wrapping_add(1).max(0);
        self.awaiting_sync.clear();
        self.new_member_added = false;
        if self.members.is_empty() {
            self.become_empty(turn);
        } else {
            self.form_generation(turn);
        }
    }

    fn become_empty(&mut self, turn: &mut Turn<'_>) {
        self.protocol = None;
        self.leader = None;
        self.enter(turn, GroupState::Empty);
        let record = GroupRecord::Metadata(Some(self.metadata(None)));
        self.append(turn, vec![record], InFlight::Emptied);
    }

    fn form_generation(&mut self, turn: &mut Turn<'_>) {
        self.protocol = Some(self.select_protocol());
        self.enter(turn, GroupState::CompletingRebalance);
        turn.rebalances += 1;
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("the id was just listed");
            let Some(ticket) = member.parked_join.take() else { continue };
            member.is_new = false;
            self.touch(turn, &id);
            self.awaiting_sync.insert(id.clone());
            let members = self.members_for_leader(&id);
            self.answer_joined(turn, ticket, &id, members, false);
        }
        let deadline = turn.now.plus(self.rebalance_timeout());
        self.sync_deadline = Some(deadline);
        self.arm(deadline);
    }

    /// Keeps the leader if it has rejoined, else takes a member that has. False when nobody has.
    fn elect_leader(&mut self) -> bool {
        let present = self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(|m| m.is_awaiting_join());
        if !present {
            let Some(member) = self.members.values().find(|m| m.is_awaiting_join()) else { return false };
            self.leader = Some(member.id.clone());
        }
        true
    }

    /// Every member votes for its first protocol that all support; ties go to the smaller name.
    pub(super) fn select_protocol(&self) -> Arc<str> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let common = |(name, _): &&(Arc<str>, bytes::Bytes)| self.members.values().all(|m| m.supports(name));
            if let Some((name, _)) = member.protocols.iter().find(common) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let best = votes.values().copied().max();
        let winner = votes.into_iter().find(|(_, count)| Some(*count) == best).map(|(name, _)| name.clone());
        winner.expect("joins without a common protocol are refused")
    }
}
