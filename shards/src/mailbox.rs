//! Lanes between actors, and the right to answer.
//!
//! Channels themselves are unbounded; their bound is the permits that senders hold (`net::admit` for connections), so an
//! internal send never waits: two actors that wait for each other's mailbox would deadlock. Receivers are woken under the
//! channel's lock, so a request costs one message per shard, never one per partition.

use flume::{Receiver, Sender};
use thalweg_record::ShardId;

use crate::msg::{Control, Reply, Request};

/// One answer on its way back.
#[derive(Debug)]
pub struct Answer {
    /// What the asker chose to tell its requests apart.
    pub slot: u64,
    /// What came of the request.
    pub reply: Reply,
}

/// The right, and the duty, to answer one request. Dropping it unanswered sends [`Reply::Dropped`].
#[derive(Debug)]
pub struct ReplyTo {
    lane: Option<Sender<Answer>>,
    slot: u64,
}

impl ReplyTo {
    /// An answer will arrive on `lane`, marked with `slot`.
    pub fn new(lane: Sender<Answer>, slot: u64) -> ReplyTo {
        ReplyTo { lane: Some(lane), slot }
    }

    /// Answers. An asker that is gone is no error.
    pub fn send(mut self, reply: Reply) {
        if let Some(lane) = self.lane.take() {
            let _gone = lane.try_send(Answer { slot: self.slot, reply });
        }
    }

    /// Sends one answer and keeps the right to send further ones ([`Reply::Late`], [`Reply::Wake`]).
    pub fn send_more(&self, reply: Reply) {
        if let Some(lane) = &self.lane {
            let _gone = lane.try_send(Answer { slot: self.slot, reply });
        }
    }

    /// Gives the right up without an answer: what follows an earlier `send_more`, or an acks=0 produce.
    pub fn forget(mut self) {
        self.lane = None;
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            let _gone = lane.try_send(Answer { slot: self.slot, reply: Reply::Dropped });
        }
    }
}

/// How to reach a shard from any core.
#[derive(Clone, Debug)]
pub struct ShardLane {
    /// Which shard.
    pub id: ShardId,
    data: Sender<Request>,
    control: Sender<Control>,
}

/// The shard's end of its lanes.
#[derive(Debug)]
pub struct ShardInbox {
    /// Which shard.
    pub id: ShardId,
    /// Requests of connections and coordinators; each sender's arrive in its order.
    pub data: Receiver<Request>,
    /// What the control actor says; served before data.
    pub control: Receiver<Control>,
}

/// Makes the lanes of one shard.
pub fn shard_lanes(id: ShardId) -> (ShardLane, ShardInbox) {
    let (data, data_in) = flume::unbounded();
    let (control, control_in) = flume::unbounded();
    (ShardLane { id, data, control }, ShardInbox { id, data: data_in, control: control_in })
}

impl ShardLane {
    /// Hands a request to the shard. When the shard is gone (the process is stopping) the request is dropped, and its
    /// `ReplyTo` answers [`Reply::Dropped`].
    pub fn send(&self, request: Request) {
        let _gone = self.data.try_send(request);
    }

    /// Requests that wait for the shard.
    pub fn waiting(&self) -> usize {
        self.data.len()
    }

    /// Hands a control message to the shard; as [`ShardLane::send`].
    pub fn control(&self, message: Control) {
        let _gone = self.control.try_send(message);
    }
}
