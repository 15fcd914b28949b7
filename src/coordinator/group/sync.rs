//! SyncGroup: the leader's assignment becomes durable, then everybody gets a part of it.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    GroupError,
    member::Member,
    records::{GroupRecord, StoredMember},
    request::{GroupAnswer, SyncRequest, Synced},
    state::{Group, GroupState, InFlight, Ticket, Turn},
};

impl Group {
    pub(super) fn sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: SyncRequest) {
        if let Err(why) = self.validate_sync(&request) {
            return turn.answer(ticket, Err(why));
        }
        let id = request.member.id.clone();
        self.awaiting_sync.remove(&id);
        if self.awaiting_sync.is_empty() {
            self.sync_deadline = None;
        }
        if self.state == GroupState::Stable {
            let synced = self.synced(&self.members[&id]);
            return turn.answer(ticket, Ok(GroupAnswer::Synced(synced)));
        }
        let member = self.members.get_mut(&id).expect("validated");
        if let Some(earlier) = member.parked_sync.replace(ticket) {
            turn.answer(earlier, Err(GroupError::RebalanceInProgress));
        }
        if self.is_leader(&id) {
            let mut given: BTreeMap<Arc<str>, Bytes> = request.assignments.into_iter().collect();
            let assignments: BTreeMap<Arc<str>, Bytes> =
                self.members.keys().map(|id| (id.clone(), given.remove(id).unwrap_or_default())).collect();
            let record = GroupRecord::Metadata(Some(self.metadata(Some(&assignments))));
            let then = InFlight::Sync { generation: self.generation, assignments };
            self.append(turn, vec![record], then);
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.validate_member(&request.member.id, request.member.instance.as_deref())?;
        if request.member.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |told: &Option<Arc<str>>, ours: &Option<Arc<str>>| told.is_some() && told != ours;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    pub(super) fn sync_appended(
        &mut self,
        turn: &mut Turn<'_>,
        generation: i32,
        mut assignments: BTreeMap<Arc<str>, Bytes>,
        result: Result<(), GroupError>,
    ) {
        // Somebody may have joined meanwhile; then the assignment is void, and its waiters were told so.
        if self.state != GroupState::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(why) = result {
            self.fail_assignment(turn, &why.for_metadata());
            return self.rebalance(turn);
        }
        for member in self.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        self.enter(turn, GroupState::Stable);
        self.release_syncs(turn, None);
    }

    /// Takes all assignments back and tells everybody who waits for one.
    pub(super) fn fail_assignment(&mut self, turn: &mut Turn<'_>, why: &GroupError) {
        self.members.values_mut().for_each(|m| m.assignment = Bytes::new());
        self.release_syncs(turn, Some(why));
    }

    fn release_syncs(&mut self, turn: &mut Turn<'_>, why: Option<&GroupError>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let member = self.members.get_mut(&id).expect("the id was just listed");
            let Some(ticket) = member.parked_sync.take() else { continue };
            let result = match why {
                Some(why) => Err(why.clone()),
                None => Ok(GroupAnswer::Synced(self.synced(&self.members[&id]))),
            };
            self.touch(turn, &id);
            turn.answer(ticket, result);
        }
    }

    fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    pub(super) fn stored_member(
        &self,
        member: &Member,
        assignments: Option<&BTreeMap<Arc<str>, Bytes>>,
    ) -> StoredMember {
        let assignment = match assignments {
            Some(given) => given.get(&member.id).cloned().unwrap_or_default(),
            None => member.assignment.clone(),
        };
        StoredMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout.as_millis() as i32,
            session_timeout_ms: member.session_timeout.as_millis() as i32,
            subscription: member.metadata(self.protocol.as_deref().unwrap_or_default()),
            assignment,
        }
    }
}
