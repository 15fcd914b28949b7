//! What connections ask of the coordinator of a core, and what it answers.
//!
//! A request crosses cores once in each direction. Texts and metadata in it own their memory: a group may keep them for
//! days, and must not keep a receive buffer alive.

use std::sync::Arc;

use bytes::Bytes;
use flume::Sender;
use thalweg_record::PartitionId;

use crate::{
    cluster::ClusterSnapshot,
    coordinator::group::{CommittedOffset, GroupError, GroupState, Positions},
};

/// What comes back for a [`GroupEvent`].
pub type GroupResult = Result<GroupAnswer, GroupError>;

/// A topic with what is committed for some of its partitions; `None` where nothing is.
pub type TopicOffsets = (Arc<str>, Vec<(i32, Option<CommittedOffset>)>);

/// A message to the group coordinator of one core.
#[derive(Debug)]
pub enum GroupRequest {
    /// Something for one group.
    Group(Box<GroupCall>),
    /// Every group of this core; while some partition still loads the answer is [`GroupError::LoadInProgress`].
    List(Sender<Result<Vec<ListedGroup>, GroupError>>),
    /// Where groups that are in use stand: at most this many positions.
    Positions(usize, Sender<Positions>),
    /// A newer view of the cluster: offsets of topics that are gone are forgotten.
    Published(Arc<ClusterSnapshot>),
}

/// A request for one group.
#[derive(Debug)]
pub struct GroupCall {
    /// The partition of `__consumer_offsets` that holds the group.
    pub partition: PartitionId,
    /// The group id.
    pub group: Arc<str>,
    /// What is asked.
    pub event: GroupEvent,
    /// Where the answer goes; it may take as long as a rebalance.
    pub reply: Sender<GroupResult>,
}

/// What is asked of a group.
#[derive(Clone, Debug)]
pub enum GroupEvent {
    /// JoinGroup; answered by [`GroupAnswer::Joined`] when the rebalance ends.
    Join(JoinRequest),
    /// SyncGroup; answered by [`GroupAnswer::Synced`] when the leader's assignment is durable.
    Sync(SyncRequest),
    /// Heartbeat; answered by [`GroupAnswer::Done`].
    Heartbeat(MemberRef),
    /// LeaveGroup; answered by [`GroupAnswer::Left`].
    Leave(Vec<LeavingMember>),
    /// OffsetCommit; answered by [`GroupAnswer::Committed`] when durable.
    Commit(CommitRequest),
    /// OffsetFetch of the partitions given by topic, or of all; answered by [`GroupAnswer::Offsets`].
    Fetch(Option<Vec<(Arc<str>, Vec<i32>)>>),
    /// DescribeGroups; answered by [`GroupAnswer::Described`].
    Describe,
    /// DeleteGroups; answered by [`GroupAnswer::Done`] when durable.
    Delete,
    /// OffsetDelete (KIP-496); answered by [`GroupAnswer::OffsetsDeleted`] when durable.
    DeleteOffsets(Vec<(Arc<str>, i32)>),
}

/// What a group answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupAnswer {
    /// To [`GroupEvent::Join`].
    Joined(Box<Joined>),
    /// To [`GroupEvent::Sync`].
    Synced(Synced),
    /// To [`GroupEvent::Leave`]: one result per member, in request order.
    Left(Vec<Result<(), GroupError>>),
    /// To [`GroupEvent::Commit`]: one result per partition, in request order.
    Committed(Vec<Result<(), GroupError>>),
    /// To [`GroupEvent::Fetch`]: by topic and partition, in request order, or sorted when all were asked for.
    Offsets(Vec<TopicOffsets>),
    /// To [`GroupEvent::Describe`].
    Described(Box<DescribedGroup>),
    /// To [`GroupEvent::DeleteOffsets`]: one result per partition, in request order.
    OffsetsDeleted(Vec<Result<(), GroupError>>),
    /// It is done, and there is nothing to say.
    Done,
}

/// A JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// The member id, empty for a member that has none yet.
    pub member_id: Arc<str>,
    /// The id it gets if it has none: client id (or instance id), dash, random UUID.
    pub new_member_id: Arc<str>,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<Arc<str>>,
    /// Client id of the connection.
    pub client_id: Arc<str>,
    /// Address of the client, as Kafka prints it (`/10.0.0.1`).
    pub client_host: Arc<str>,
    /// Session timeout in milliseconds, as sent.
    pub session_timeout_ms: i32,
    /// Rebalance timeout in milliseconds, as sent (the session timeout in version 0).
    pub rebalance_timeout_ms: i32,
    /// Kind of the group: `consumer`, `connect`, ...
    pub protocol_type: Arc<str>,
    /// Protocols by preference, with the member's metadata for each.
    pub protocols: Vec<(Arc<str>, Bytes)>,
    /// Whether a new dynamic member must join again with its id first (version 4, KIP-394).
    pub must_know_id: bool,
    /// Whether the client understands that a leader need not assign (version 9, KIP-814).
    pub can_skip_assignment: bool,
}

/// A member's place in a new generation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// Kind of the group.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen by vote.
    pub protocol: Option<Arc<str>>,
    /// The leader's member id.
    pub leader: Arc<str>,
    /// The member's own id.
    pub member_id: Arc<str>,
    /// All members with their metadata, for the leader; empty for the others.
    pub members: Vec<JoinedMember>,
    /// The leader keeps the assignment as it is (KIP-814).
    pub skip_assignment: bool,
}

/// A member as the leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Member id.
    pub id: Arc<str>,
    /// Group instance id.
    pub instance: Option<Arc<str>>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// A SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// Who.
    pub member: MemberRef,
    /// The client's idea of the kind of the group (version 5).
    pub protocol_type: Option<Arc<str>>,
    /// The client's idea of the protocol (version 5).
    pub protocol: Option<Arc<str>>,
    /// From the leader: who gets what. Empty from the others.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// A member's assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    /// Kind of the group.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol in use.
    pub protocol: Option<Arc<str>>,
    /// What the leader assigned; opaque.
    pub assignment: Bytes,
}

/// A member that speaks within a generation.
#[derive(Clone, Debug)]
pub struct MemberRef {
    /// Member id.
    pub id: Arc<str>,
    /// Group instance id.
    pub instance: Option<Arc<str>>,
    /// Generation; negative for none.
    pub generation: i32,
}

/// One member of a LeaveGroup.
#[derive(Clone, Debug)]
pub struct LeavingMember {
    /// Member id; empty removes by instance id alone.
    pub id: Arc<str>,
    /// Group instance id.
    pub instance: Option<Arc<str>>,
}

/// An OffsetCommit, without the partitions that the edge refused.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// Who; no member id and a negative generation from a consumer that does not use group membership.
    pub member: MemberRef,
    /// Topic, partition, and what to commit.
    pub offsets: Vec<(Arc<str>, i32, NewOffset)>,
    /// `retention_time_ms` of versions 2-4; `None` for the broker's own.
    pub retention_ms: Option<i64>,
    /// Whether the client knows GROUP_ID_NOT_FOUND here (version 9); else a missing group is ILLEGAL_GENERATION.
    pub knows_missing_group: bool,
}

/// An offset to commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewOffset {
    /// The next offset to consume.
    pub offset: i64,
    /// Leader epoch of the last record consumed, or -1.
    pub leader_epoch: i32,
    /// Whatever the client wants to keep; null is empty.
    pub metadata: Arc<str>,
}

/// A group in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// Group id.
    pub group: Arc<str>,
    /// Kind of the group; empty when it never had members.
    pub protocol_type: Arc<str>,
    /// Its state.
    pub state: GroupState,
}

/// A group with its members.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    /// Its state.
    pub state: GroupState,
    /// Kind of the group; empty when it never had members.
    pub protocol_type: Arc<str>,
    /// The protocol in use; empty unless stable.
    pub protocol: Arc<str>,
    /// The members, by id.
    pub members: Vec<DescribedMember>,
}

/// A member of a described group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    /// Member id.
    pub id: Arc<str>,
    /// Group instance id.
    pub instance: Option<Arc<str>>,
    /// Client id.
    pub client_id: Arc<str>,
    /// Client address.
    pub client_host: Arc<str>,
    /// Its metadata for the protocol in use; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment, the last one while the group rebalances.
    pub assignment: Bytes,
}
