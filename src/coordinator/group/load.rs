//! From the records of a partition back to its groups.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    member::{Member, millis},
    offsets::Offsets,
    partition::GroupPartition,
    records::{self, GroupMetadata, GroupRecord, StoredMember},
    state::{Group, GroupState, Turn},
};

/// What a partition's log says so far; the last word on each key holds.
#[derive(Default, Debug)]
pub struct Replay {
    groups: BTreeMap<Arc<str>, Stored>,
}

#[derive(Default, Debug)]
struct Stored {
    metadata: Option<GroupMetadata>,
    offsets: Offsets,
}

impl Replay {
    /// Takes the next record of the log in. One that cannot be read is passed over with a warning: a later one may
    /// replace it, and the other groups of the partition must not suffer.
    pub fn apply(&mut self, key: &[u8], value: Option<&[u8]>) {
        match records::decode(key, value) {
            Ok(Some((group, record))) => self.take(group, record),
            Ok(None) => {}
            Err(why) => tracing::warn!(%why, "a record of the group coordinator was passed over"),
        }
    }

    fn take(&mut self, group: Arc<str>, record: GroupRecord) {
        let stored = self.groups.entry(group).or_default();
        match record {
            GroupRecord::Metadata(metadata) => stored.metadata = metadata,
            GroupRecord::Offset { topic, partition, value: Some(value) } => {
                stored.offsets.insert(topic, partition, value);
            }
            GroupRecord::Offset { topic, partition, value: None } => stored.offsets.remove(&topic, partition),
        }
    }

    /// The groups at the end of the log. The sessions of their members begin now.
    pub fn finish(self, turn: &mut Turn<'_>) -> GroupPartition {
        let mut partition = GroupPartition::default();
        for (id, stored) in self.groups {
            if stored.metadata.is_some() || !stored.offsets.is_empty() {
                let group = Group::loaded(turn, id, stored.metadata, stored.offsets);
                partition.insert(turn, group);
            }
        }
        partition
    }
}

impl Group {
    fn loaded(turn: &mut Turn<'_>, id: Arc<str>, metadata: Option<GroupMetadata>, offsets: Offsets) -> Group {
        let mut group = Group::new(id);
        group.last_commit = offsets.newest_commit();
        group.offsets = offsets;
        let Some(metadata) = metadata else { return group };
        group.stored = true;
        group.generation = metadata.generation;
        group.protocol_type = Some(metadata.protocol_type).filter(|kind| !kind.is_empty());
        group.state_since = metadata.state_since;
        group.leader = metadata.leader;
        group.protocol = metadata.protocol;
        for member in metadata.members {
            group.restore_member(member);
        }
        let ids: Vec<Arc<str>> = group.members.keys().cloned().collect();
        ids.iter().for_each(|id| group.touch(turn, id));
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
        }
        // The limit may have been lowered since: whoever rejoins in time stays.
        if group.members.len() > turn.config.max_size {
            group.rebalance(turn);
        }
        group
    }

    fn restore_member(&mut self, stored: StoredMember) {
        let protocol = self.protocol.clone().unwrap_or_default();
        if let Some(instance) = &stored.instance {
            self.instances.insert(instance.clone(), stored.id.clone());
        }
        let member = Member {
            id: stored.id.clone(),
            instance: stored.instance,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout: millis(stored.session_timeout_ms),
            rebalance_timeout: millis(stored.rebalance_timeout_ms),
            protocols: vec![(protocol, stored.subscription)],
            assignment: stored.assignment,
            alive_until: Default::default(),
            is_new: false,
            parked_join: None,
            parked_sync: None,
        };
        self.members.insert(stored.id, member);
    }
}
