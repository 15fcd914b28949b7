//! A member of a consumer group: joins, gets its share, reads from where the group stands and commits how far it came; leaves,
//! or falls silent, and comes back.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
        OffsetFetchRequest, SyncGroupRequest,
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestTopic,
        sync_group_request::SyncGroupRequestAssignment,
    },
    protocol::StrBytes,
};
use thalweg_record::{Offset, PartitionId};
use thalweg_shards::runtime::seeded::Stream;

use super::{
    client::{Client, text},
    reader::{Got, Reader},
    scene::{Scene, Topic},
};

const SESSION_MS: i32 = 3_000;
const REBALANCE_MS: i32 = 5_000;
/// Beyond a join's longest wait.
const PATIENCE: Duration = Duration::from_secs(15);

const MEMBER_ID_REQUIRED: i16 = 79;
const REBALANCE: i16 = 27;
/// Loading, not available, not the coordinator.
const COORDINATOR: [i16; 3] = [14, 15, 16];

/// A member's place in its group.
struct Place {
    generation: i32,
    parts: Vec<PartitionId>,
}

/// One member's task.
pub(crate) struct Member {
    client: Client,
    reader: Reader,
    group: &'static str,
    topic: &'static str,
    id: StrBytes,
}

impl Member {
    /// Starts a member of `group`, which reads `topic`.
    pub(crate) fn start(scene: &Rc<Scene>, group: &'static str, topic: &'static str, mut random: Stream) {
        let reader = Reader(Client::new(scene, "member", Stream::new(random.next(), 1)));
        let client = Client::new(scene, "member", random);
        let member = Member { client, reader, group, topic, id: StrBytes::default() };
        scene.begin(|scene| &scene.working, "member", Box::pin(member.run()));
    }

    async fn run(mut self) {
        let Some(topic) = self.client.scene.topic(self.topic).await else { return };
        while !self.client.scene.stop.get() {
            let Some(place) = self.join(&topic).await else {
                self.client.pause_ms(300).await;
                continue;
            };
            let Some(positions) = self.positions(&topic, &place).await else { continue };
            self.work(&topic, &place, positions).await;
        }
        self.leave().await;
    }

    /// Another identity: what the old one has under way, its group will refuse.
    fn be_somebody_else(&mut self) {
        self.id = StrBytes::default();
        self.client.hang_up();
    }

    fn group(&self) -> kafka_protocol::messages::GroupId {
        text(self.group).into()
    }

    async fn join(&mut self, topic: &Topic) -> Option<Place> {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("simulated")).with_metadata(Bytes::new());
        let request = JoinGroupRequest::default()
            .with_group_instance_id(None)
            .with_group_id(self.group())
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(REBALANCE_MS)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let Some(answer) = self.client.ask(5, &request, PATIENCE).await else {
            self.be_somebody_else();
            return None;
        };
        match answer.error_code {
            0 => self.id = answer.member_id.clone(),
            MEMBER_ID_REQUIRED => {
                self.id = answer.member_id;
                return None;
            }
            code if COORDINATOR.contains(&code) => return None,
            _ => {
                self.be_somebody_else();
                return None;
            }
        }
        self.sync(topic, &answer).await
    }

    async fn sync(&mut self, topic: &Topic, joined: &JoinGroupResponse) -> Option<Place> {
        let mut shares: BTreeMap<&StrBytes, Vec<u8>> = joined.members.iter().map(|m| (&m.member_id, vec![])).collect();
        let members: Vec<&StrBytes> = joined.members.iter().map(|m| &m.member_id).collect();
        for index in (0..topic.partitions).filter(|_| !members.is_empty()) {
            let to = members[index as usize % members.len()];
            shares.entry(to).or_default().push(index as u8);
        }
        let assign = |(member, share): (&StrBytes, Vec<u8>)| {
            SyncGroupRequestAssignment::default().with_member_id(member.clone()).with_assignment(share.into())
        };
        let request = SyncGroupRequest::default()
            .with_group_instance_id(None)
            .with_group_id(self.group())
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone())
            .with_assignments(shares.into_iter().map(assign).collect());
        let Some(answer) = self.client.ask(3, &request, PATIENCE).await else {
            self.be_somebody_else();
            return None;
        };
        if answer.error_code != 0 {
            self.after(answer.error_code);
            return None;
        }
        let parts = answer.assignment.iter().map(|index| PartitionId { topic: topic.id, index: i32::from(*index) });
        Some(Place { generation: joined.generation_id, parts: parts.collect() })
    }

    /// What a refusal means for who we are.
    fn after(&mut self, code: i16) {
        if code != REBALANCE && !COORDINATOR.contains(&code) {
            self.be_somebody_else();
        }
    }

    /// Where the group stands.
    async fn positions(&mut self, topic: &Topic, place: &Place) -> Option<BTreeMap<PartitionId, i64>> {
        let least = self.client.scene.committed.borrow().clone();
        let indexes = place.parts.iter().map(|part| part.index).collect();
        let asked =
            OffsetFetchRequestTopic::default().with_name(text(&topic.name).into()).with_partition_indexes(indexes);
        let request = OffsetFetchRequest::default().with_group_id(self.group()).with_topics(Some(vec![asked]));
        let answer = self.client.ask(7, &request, PATIENCE).await?;
        if answer.error_code != 0 {
            return None;
        }
        let mut positions = BTreeMap::new();
        for part in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if part.error_code != 0 {
                return None;
            }
            let partition = PartitionId { topic: topic.id, index: part.partition_index };
            let least = least.get(&(self.group, partition)).copied().unwrap_or(-1);
            if part.committed_offset < least {
                let why = format!("{}: {partition} stands at {}, after {least}", self.group, part.committed_offset);
                self.client.scene.model.borrow_mut().broken(why);
            }
            positions.insert(partition, part.committed_offset.max(0));
        }
        Some(positions)
    }

    async fn work(&mut self, topic: &Topic, place: &Place, mut positions: BTreeMap<PartitionId, i64>) {
        let rounds = 2 + self.client.random.below(20);
        for _ in 0..rounds {
            if self.client.scene.stop.get() || !self.heartbeat(place).await {
                return;
            }
            for (partition, position) in &mut positions {
                let wait = Duration::from_millis(200);
                match self.reader.fetch(*partition, Offset(*position), 4_000, wait).await {
                    Got::Next(next) => *position = next.0.max(*position),
                    Got::Expired(start) => *position = start.0.max(*position),
                    Got::Again | Got::Gone => {}
                }
            }
            if !positions.is_empty() && !self.commit(topic, place, &positions).await {
                return;
            }
            self.client.pause_ms(400).await;
        }
        match self.client.random.below(3) {
            0 => self.leave().await,
            // Silent: the session runs out.
            1 => self.be_somebody_else(),
            _ => {}
        }
    }

    async fn heartbeat(&mut self, place: &Place) -> bool {
        let request = HeartbeatRequest::default()
            .with_group_instance_id(None)
            .with_group_id(self.group())
            .with_generation_id(place.generation)
            .with_member_id(self.id.clone());
        match self.client.ask(3, &request, PATIENCE).await {
            Some(answer) if answer.error_code == 0 => true,
            Some(answer) => {
                self.after(answer.error_code);
                false
            }
            None => false,
        }
    }

    async fn commit(&mut self, topic: &Topic, place: &Place, positions: &BTreeMap<PartitionId, i64>) -> bool {
        let part = |(partition, position): (&PartitionId, &i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition.index)
                .with_committed_offset(*position)
                .with_committed_leader_epoch(-1)
        };
        let parts = OffsetCommitRequestTopic::default()
            .with_name(text(&topic.name).into())
            .with_partitions(positions.iter().map(part).collect());
        let request = OffsetCommitRequest::default()
            .with_group_instance_id(None)
            .with_group_id(self.group())
            .with_generation_id_or_member_epoch(place.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![parts]);
        let Some(answer) = self.client.ask(7, &request, PATIENCE).await else {
            // It may still be carried out, as somebody's who is in the group no more.
            self.be_somebody_else();
            return false;
        };
        for part in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            if part.error_code != 0 {
                self.be_somebody_else();
                return false;
            }
            let partition = PartitionId { topic: topic.id, index: part.partition_index };
            let Some(position) = positions.get(&partition) else { continue };
            let scene = &self.client.scene;
            let mut committed = scene.committed.borrow_mut();
            let known = committed.entry((self.group, partition)).or_insert(*position);
            *known = (*known).max(*position);
            scene.commits.set(scene.commits.get() + 1);
        }
        true
    }

    async fn leave(&mut self) {
        if self.id.is_empty() {
            return;
        }
        let member = MemberIdentity::default().with_group_instance_id(None).with_member_id(self.id.clone());
        let request = LeaveGroupRequest::default().with_group_id(self.group()).with_members(vec![member]);
        let _left = self.client.ask(3, &request, Duration::from_secs(2)).await;
        self.be_somebody_else();
    }
}
