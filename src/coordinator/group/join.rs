//! JoinGroup: how members come in, come back, and are told apart.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    GroupError,
    member::{Member, millis},
    records::GroupRecord,
    request::{GroupAnswer, JoinRequest, Joined},
    state::{Group, GroupState, InFlight, Ticket, Turn},
};

/// A static member's change of member id, until it is durable.
#[derive(Debug)]
pub(super) struct StaticSwap {
    pub(super) ticket: Ticket,
    instance: Arc<str>,
    old_id: Arc<str>,
    new_id: Arc<str>,
    old_leader: Option<Arc<str>>,
    old_protocols: Vec<(Arc<str>, Bytes)>,
    old_session_timeout: Duration,
    old_rebalance_timeout: Duration,
    can_skip_assignment: bool,
}

impl Group {
    pub(super) fn join(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: JoinRequest) {
        if let Err(why) = self.admit(turn, &request) {
            return turn.answer(ticket, Err(why));
        }
        if !request.member_id.is_empty() {
            self.join_again(turn, ticket, request);
        } else if let Some(instance) = request.instance.clone() {
            match self.instances.get(&instance).cloned() {
                Some(old_id) => self.replace_static(turn, ticket, instance, old_id, request),
                None => self.add_member(turn, ticket, request.new_member_id.clone(), request),
            }
        } else if request.must_know_id {
            let until = turn.now.plus(millis(request.session_timeout_ms));
            self.pending_joins.insert(request.new_member_id.clone(), until);
            self.arm(until);
            turn.answer(ticket, Err(GroupError::MemberIdRequired(request.new_member_id)));
        } else {
            self.add_member(turn, ticket, request.new_member_id.clone(), request);
        }
    }

    /// The checks that come before any change.
    fn admit(&mut self, turn: &Turn<'_>, request: &JoinRequest) -> Result<(), GroupError> {
        let limits = turn.config.min_session_timeout_ms..=turn.config.max_session_timeout_ms;
        if !limits.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.is_full(turn, &request.member_id) {
            self.pending_joins.remove(&request.member_id);
            return Err(GroupError::GroupMaxSizeReached);
        }
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(GroupError::InconsistentProtocol);
        }
        Ok(())
    }

    /// While members rejoin, those that wait already count; a smaller limit thus pushes the last ones out.
    fn is_full(&self, turn: &Turn<'_>, member_id: &str) -> bool {
        let max = turn.config.max_size;
        let member = self.members.get(member_id);
        match self.state {
            GroupState::Empty | GroupState::Dead => false,
            GroupState::PreparingRebalance => {
                !member.is_some_and(Member::is_awaiting_join)
                    && self.members.values().filter(|m| m.is_awaiting_join()).count() >= max
            }
            GroupState::CompletingRebalance | GroupState::Stable => member.is_none() && self.members.len() >= max,
        }
    }

    /// Whether at least one protocol would be common to all.
    fn supports(&self, protocol_type: &str, protocols: &[(Arc<str>, Bytes)]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.members.values().all(|m| m.supports(name)))
    }

    fn add_member(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: Arc<str>, request: JoinRequest) {
        if self.is_initial_rebalance() {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.pending_joins.remove(&id);
        let mut member = Member::new(id.clone(), request);
        member.parked_join = Some(ticket);
        member.alive_until = turn.now.plus(turn.config.new_member_join_timeout);
        self.arm(member.alive_until);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id, member);
        self.rebalance(turn);
    }

    /// Takes over what the member says now, parks its join, and rebalances.
    fn update_member(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: JoinRequest) {
        self.take_over(turn, ticket, &request.member_id.clone(), request);
        self.rebalance(turn);
    }

    fn take_over(&mut self, turn: &mut Turn<'_>, ticket: Ticket, id: &str, request: JoinRequest) {
        let member = self.members.get_mut(id).expect("the caller has looked the member up");
        member.protocols = request.protocols;
        member.session_timeout = millis(request.session_timeout_ms);
        member.rebalance_timeout = millis(request.rebalance_timeout_ms);
        // A client that asks again has given its first request up.
        if let Some(earlier) = member.parked_join.replace(ticket) {
            turn.answer(earlier, Err(GroupError::RebalanceInProgress));
        }
    }

    fn join_again(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: JoinRequest) {
        let id = request.member_id.clone();
        if self.pending_joins.contains_key(&id) && request.instance.is_none() {
            return self.add_member(turn, ticket, id, request);
        }
        if let Err(why) = self.validate_member(&id, request.instance.as_deref()) {
            return turn.answer(ticket, Err(why));
        }
        let unchanged = self.members.get(&id).is_some_and(|m| m.protocols == request.protocols);
        match self.state {
            GroupState::PreparingRebalance => self.update_member(turn, ticket, request),
            // The first answer may have been lost: the same question gets the same answer.
            GroupState::CompletingRebalance if unchanged => {
                let members = self.members_for_leader(&id);
                self.answer_joined(turn, ticket, &id, members, false);
            }
            // A leader that joins again wants to assign anew; topics may have changed.
            GroupState::Stable if unchanged && !self.is_leader(&id) => {
                self.answer_joined(turn, ticket, &id, Vec::new(), false);
            }
            GroupState::CompletingRebalance | GroupState::Stable => self.update_member(turn, ticket, request),
            GroupState::Empty | GroupState::Dead => turn.answer(ticket, Err(GroupError::UnknownMember)),
        }
    }

    /// A member whose instance id belongs to another member id is fenced.
    pub(super) fn validate_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(current) if &**current != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    pub(super) fn members_for_leader(&self, id: &str) -> Vec<super::request::JoinedMember> {
        match self.protocol.as_deref().filter(|_| self.is_leader(id)) {
            Some(protocol) => self.members.values().map(|m| m.joined(protocol)).collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn answer_joined(
        &self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        id: &Arc<str>,
        members: Vec<super::request::JoinedMember>,
        skip_assignment: bool,
    ) {
        let joined = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.clone(),
            members,
            skip_assignment,
        };
        turn.answer(ticket, Ok(GroupAnswer::Joined(Box::new(joined))));
    }

    /// A static member is back without its member id: it gets a new one, and whoever holds the old one is fenced.
    fn replace_static(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        instance: Arc<str>,
        old_id: Arc<str>,
        request: JoinRequest,
    ) {
        let new_id = request.new_member_id.clone();
        let old_leader = self.leader.clone();
        self.swap_id(turn, &instance, &old_id, &new_id);
        let member = self.members.get_mut(&new_id).expect("the swap has put it there");
        member.client_id = request.client_id.clone();
        member.client_host = request.client_host.clone();
        let swap = StaticSwap {
            ticket,
            instance,
            old_id,
            new_id: new_id.clone(),
            old_leader,
            old_protocols: member.protocols.clone(),
            old_session_timeout: member.session_timeout,
            old_rebalance_timeout: member.rebalance_timeout,
            can_skip_assignment: request.can_skip_assignment,
        };
        self.take_over(turn, ticket, &new_id, request);
        self.touch(turn, &new_id);
        match self.state {
            GroupState::Stable if self.protocol == Some(self.select_protocol()) => {
                let record = GroupRecord::Metadata(Some(self.metadata(None)));
                self.append(turn, vec![record], InFlight::StaticSwap(Box::new(swap)));
            }
            // Elsewhere the leader may be assigning to the old id already, which would leave the new one with nothing.
            _ => self.rebalance(turn),
        }
    }

    fn swap_id(&mut self, turn: &mut Turn<'_>, instance: &Arc<str>, from: &str, to: &Arc<str>) {
        let mut member = self.members.remove(from).expect("instances point to members");
        for ticket in [member.parked_join.take(), member.parked_sync.take()].into_iter().flatten() {
            turn.answer(ticket, Err(GroupError::FencedInstanceId));
        }
        member.id = to.clone();
        self.members.insert(to.clone(), member);
        self.instances.insert(instance.clone(), to.clone());
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
        if self.awaiting_sync.remove(from) {
            self.awaiting_sync.insert(to.clone());
        }
    }

    pub(super) fn static_swap_appended(
        &mut self,
        turn: &mut Turn<'_>,
        swap: StaticSwap,
        result: Result<(), GroupError>,
    ) {
        // Answered meanwhile (a rebalance ended, or the member was replaced again): nothing is left to say.
        let waits = self.members.get(&swap.new_id).is_some_and(|m| m.parked_join == Some(swap.ticket));
        if !waits {
            return;
        }
        let member = self.members.get_mut(&swap.new_id).expect("it was just looked up");
        member.parked_join = None;
        if let Err(why) = result {
            member.protocols = swap.old_protocols;
            member.session_timeout = swap.old_session_timeout;
            member.rebalance_timeout = swap.old_rebalance_timeout;
            self.swap_id(turn, &swap.instance, &swap.new_id, &swap.old_id);
            self.touch(turn, &swap.old_id);
            return turn.answer(swap.ticket, Err(why.for_metadata()));
        }
        self.touch(turn, &swap.new_id);
        if let Some(member) = self.members.get_mut(&swap.new_id) {
            member.is_new = false;
        }
        if swap.can_skip_assignment {
            let members = self.members_for_leader(&swap.new_id);
            let is_leader = self.is_leader(&swap.new_id);
            return self.answer_joined(turn, swap.ticket, &swap.new_id, members, is_leader);
        }
        // Older clients must not take themselves for the leader: they would assign while the others do not rejoin.
        let current = std::mem::replace(&mut self.leader, swap.old_leader);
        self.answer_joined(turn, swap.ticket, &swap.new_id, Vec::new(), false);
        self.leader = current;
    }
}
