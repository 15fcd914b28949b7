use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::{
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable},
};
use thalweg_record::{BatchHead, HEAD_LEN, Offset, PartitionId, ShardId};
use thalweg_shards::{
    msg::{AppendRequest, Appended, Generation, PartitionError, Reply, Request},
    runtime::Queue,
};

use super::*;
use crate::api::fake::{FakeBroker, topic_name};

/// The client's end of a connection whose other end is served.
#[derive(Default)]
struct Wire {
    to_broker: VecDeque<u8>,
    closed: bool,
    from_broker: VecDeque<u8>,
    /// Bytes that fit on the way to the client.
    window: usize,
    wakers: Vec<Waker>,
}

struct BrokerEnd(Rc<RefCell<Wire>>);

impl AsyncRead for BrokerEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        if wire.to_broker.is_empty() && !wire.closed {
            wire.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        let count = buf.len().min(wire.to_broker.len());
        wire.to_broker.drain(..count).zip(buf).for_each(|(from, to)| *to = from);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for BrokerEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.0.borrow_mut();
        let count = buf.len().min(wire.window - wire.from_broker.len());
        if count == 0 {
            wire.wakers.push(cx.waker().clone());
            return Poll::Pending;
        }
        wire.from_broker.extend(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A served connection, and the broker around it.
struct Client {
    broker: FakeBroker,
    wire: Rc<RefCell<Wire>>,
    ended: Rc<RefCell<Option<Ended>>>,
}

const POLLS: u64 = 100_000;

impl Client {
    fn new(change: impl FnOnce(&mut crate::net::EdgeLimits)) -> Client {
        Client::with(|edge| change(&mut edge.limits))
    }

    fn with(change: impl FnOnce(&mut Edge)) -> Client {
        let mut broker = FakeBroker::new(2, &[("t", 4)]);
        change(Rc::get_mut(&mut broker.edge).expect("nobody else holds it yet"));
        let wire = Rc::new(RefCell::new(Wire { window: 1 << 20, ..Wire::default() }));
        let ended = Rc::new(RefCell::new(None));
        let (edge, caller) = (Rc::clone(&broker.edge), Rc::clone(&broker.caller));
        let (end, outcome) = (BrokerEnd(Rc::clone(&wire)), Rc::clone(&ended));
        let serving = async move { *outcome.borrow_mut() = Some(serve(end, edge, caller, ChunkPool::default()).await) };
        broker.edge.runtime.spawn(Queue::Hot, "connection", Box::pin(serving));
        Client { broker, wire, ended }
    }

    fn send_bytes(&self, bytes: &[u8]) {
        let mut wire = self.wire.borrow_mut();
        wire.to_broker.extend(bytes);
        wire.wakers.drain(..).for_each(Waker::wake);
    }

    fn close(&self) {
        let mut wire = self.wire.borrow_mut();
        wire.closed = true;
        wire.wakers.drain(..).for_each(Waker::wake);
    }

    fn send(&self, key: ApiKey, version: i16, correlation: i32, request: &impl Encodable) {
        self.send_bytes(&frame(key, version, correlation, request));
    }

    /// Runs for a little virtual time, which nothing but a wait can spend.
    fn settle(&self) {
        let until = self.broker.world.mono().plus(Duration::from_millis(1));
        self.run_to(until);
    }

    fn run_to(&self, until: Mono) {
        let runtime = Rc::clone(&self.broker.edge.runtime);
        self.broker.edge.runtime.spawn(Queue::Hot, "clock", Box::pin(async move { runtime.sleep_until(until).await }));
        self.broker.world.run_until(POLLS, || self.broker.world.mono() >= until);
    }

    /// Correlation ids and bodies of the answers that came.
    fn answers(&self) -> Vec<(i32, Bytes)> {
        self.settle();
        let mut bytes: Bytes = self.wire.borrow_mut().from_broker.drain(..).collect();
        let mut answers = Vec::new();
        while bytes.has_remaining() {
            let length = bytes.get_i32() as usize;
            let mut answer = bytes.split_to(length);
            let header = ResponseHeader::decode(&mut answer, 0).expect("a header");
            answers.push((header.correlation_id, answer));
        }
        answers
    }

    fn correlations(&self) -> Vec<i32> {
        self.answers().into_iter().map(|(correlation, _)| correlation).collect()
    }

    fn append(&self, shard: usize) -> AppendRequest {
        let Request::Append(append) = self.broker.request(shard) else { panic!("an append") };
        *append
    }

    fn waiting(&self, shard: usize) -> usize {
        self.settle();
        self.broker.inboxes[shard].data.len()
    }

    fn ended(&self) -> Option<Ended> {
        self.settle();
        self.ended.borrow_mut().take()
    }
}

fn frame(key: ApiKey, version: i16, correlation: i32, request: &impl Encodable) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation);
    let mut body = BytesMut::new();
    header.encode(&mut body, key.request_header_version(version)).expect("encodable");
    request.encode(&mut body, version).expect("encodable");
    let mut frame = BytesMut::new();
    frame.put_i32(body.len() as i32);
    frame.put_slice(&body);
    frame.to_vec()
}

/// A produce of version 8 (response header 0) to one partition.
fn produce(acks: i16, partition: i32, size: usize) -> ProduceRequest {
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + size) as i32);
    head.set_record_count(1);
    head.set_producer_id(-1);
    let records = [&head.0[..], &vec![0; size]].concat();
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records.into()));
    let topic = TopicProduceData::default().with_name(topic_name("t")).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn done(append: AppendRequest) {
    let appended = Appended { base_offset: Offset(1), log_append_time: None, log_start: Offset(0) };
    append.reply.send(Reply::Append { results: vec![Ok(appended)], throttle: Duration::ZERO, returned: Vec::new() });
}

/// The shards that own two neighbouring partitions of the topic differ.
fn shards_of(client: &Client) -> (usize, usize) {
    let snapshot = client.broker.edge.snapshot();
    let owner = |index| snapshot.owner(thalweg_record::PartitionId { topic: snapshot.topics["t"].id, index }).0.into();
    (owner(0), owner(1))
}

#[test]
fn answers_leave_in_the_order_of_the_requests_across_shards() {
    let client = Client::new(|_| ());
    let (first, second) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    client.send(ApiKey::Produce, 8, 2, &produce(-1, 1, 10));
    let slow = client.append(first);
    done(client.append(second));
    assert!(client.correlations().is_empty(), "the second is done, and waits for the first");
    done(slow);
    assert_eq!(client.correlations(), [1, 2]);
}

#[test]
fn only_produce_may_overtake_the_answers_of_produce() {
    let client = Client::new(|_| ());
    let (shard, _) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    client.send(ApiKey::Produce, 8, 2, &produce(-1, 0, 10));
    client.send(ApiKey::ApiVersions, 0, 3, &ApiVersionsRequest::default());
    client.send(ApiKey::Produce, 8, 4, &produce(-1, 0, 10));
    assert_eq!(client.waiting(shard), 2, "two at once, the third behind a request that runs alone");
    done(client.append(shard));
    assert_eq!(client.correlations(), [1]);
    done(client.append(shard));
    assert_eq!(client.correlations(), [2, 3]);
    done(client.append(shard));
    assert_eq!(client.correlations(), [4]);
}

#[test]
fn a_close_drops_what_is_parked_and_tells_every_shard() {
    let client = Client::new(|_| ());
    let (shard, _) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    client.send(ApiKey::ApiVersions, 0, 2, &ApiVersionsRequest::default());
    drop(client.append(shard).reply);
    client.close();
    assert!(matches!(client.ended(), Some(Ended::Eof)));
    for shard in 0..2 {
        let gone = client.broker.request(shard);
        assert!(matches!(gone, Request::ConnGone(conn) if conn == client.broker.caller.conn));
    }
}

#[test]
fn acks_0_reaches_the_shard_though_the_client_closed() {
    let client = Client::new(|_| ());
    let (shard, _) = shards_of(&client);
    for _ in 0..3 {
        client.send(ApiKey::Produce, 8, 1, &produce(0, 0, 10));
    }
    client.close();
    assert!(matches!(client.ended(), Some(Ended::Eof)));
    for _ in 0..3 {
        client.append(shard);
    }
}

#[test]
fn what_is_not_served_or_does_not_decode_closes() {
    let not_served = |version| frame(ApiKey::Produce, 3, 1, &produce(-1, 0, 1)).tap(|f| f[7] = version);
    for bytes in [not_served(2), not_served(14), frame(ApiKey::ApiVersions, 3, 1, &ApiVersionsRequest::default())] {
        let client = Client::new(|_| ());
        let cut = bytes.len() - 3;
        let mut bytes = bytes;
        bytes.truncate(cut);
        bytes[..4].copy_from_slice(&(cut as u32 - 4).to_be_bytes());
        client.send_bytes(&bytes);
        let ended = client.ended();
        assert!(matches!(ended, Some(Ended::NotServed(0, _) | Ended::Undecodable(_))), "{ended:?}");
    }
    let client = Client::new(|limits| limits.request_max_bytes = 1000);
    client.send_bytes(&[0, 0, 4, 0]);
    assert!(matches!(client.ended(), Some(Ended::Frame(FrameError::Length(1024, 1000)))));
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Vec<u8> {}

#[test]
fn api_versions_of_an_unknown_version_is_answered_in_version_0() {
    let client = Client::new(|_| ());
    let mut bytes = frame(ApiKey::ApiVersions, 4, 9, &ApiVersionsRequest::default());
    bytes[7] = 77;
    client.send_bytes(&bytes);
    let (correlation, mut body) = client.answers().remove(0);
    let answer = ApiVersionsResponse::decode(&mut body, 0).expect("a v0 body");
    assert_eq!((correlation, answer.error_code, answer.api_keys.len()), (9, 35, table::TABLE.len()));
    assert!(body.is_empty() && client.ended().is_none());
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let idle = |limits: &mut crate::net::EdgeLimits| limits.idle = Duration::from_secs(100);
    let client = Client::new(idle);
    for round in 1..=3 {
        client.run_to(Mono(0).plus(Duration::from_secs(60 * round)));
        assert!(client.ended().is_none());
        client.send(ApiKey::ApiVersions, 0, 2, &ApiVersionsRequest::default());
        assert_eq!(client.correlations(), [2]);
    }
    client.run_to(Mono(0).plus(Duration::from_secs(300)));
    assert!(matches!(client.ended(), Some(Ended::Idle)));
}

#[test]
fn a_half_sent_frame_and_an_unread_answer_close_their_connections() {
    let stall = |limits: &mut crate::net::EdgeLimits| limits.stall = Duration::from_secs(10);
    let client = Client::new(stall);
    client.send_bytes(&frame(ApiKey::Produce, 8, 1, &produce(-1, 0, 1000))[..500]);
    client.run_to(Mono(0).plus(Duration::from_secs(20)));
    assert!(matches!(client.ended(), Some(Ended::Slow)));
    let client = Client::new(stall);
    client.wire.borrow_mut().window = 10;
    client.send(ApiKey::ApiVersions, 0, 2, &ApiVersionsRequest::default());
    client.run_to(Mono(0).plus(Duration::from_secs(20)));
    assert!(matches!(client.ended(), Some(Ended::Stalled)));
}

#[test]
fn reading_stops_at_the_limit_of_bytes_in_flight() {
    let client = Client::new(|limits| limits.connection_bytes = 300 << 10);
    let (shard, _) = shards_of(&client);
    for correlation in 0..5 {
        client.send(ApiKey::Produce, 8, correlation, &produce(-1, 0, 100 << 10));
    }
    assert_eq!(client.waiting(shard), 2, "the third would exceed the limit");
    assert!(client.wire.borrow().to_broker.len() > 200 << 10, "the rest is not read");
    for _ in 0..5 {
        done(client.append(shard));
    }
    assert_eq!(client.correlations(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_stopping_broker_answers_what_is_in_flight_and_closes() {
    let client = Client::new(|_| ());
    let (shard, _) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    let append = client.append(shard);
    client.broker.edge.stop();
    assert!(client.ended().is_none());
    done(append);
    assert_eq!(client.correlations(), [1]);
    assert!(matches!(client.ended(), Some(Ended::Stopping)));
}

#[test]
fn a_client_that_is_to_pause_is_answered_and_then_not_read() {
    let client = Client::new(|_| ());
    let (shard, _) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    let appended = Appended { base_offset: Offset(1), log_append_time: None, log_start: Offset(0) };
    let throttle = Duration::from_millis(500);
    client.append(shard).reply.send(Reply::Append { results: vec![Ok(appended)], throttle, returned: Vec::new() });
    let muted = client.broker.world.mono();
    let answers = client.answers();
    assert_eq!(answers.len(), 1, "the answer does not wait");
    let mut body = answers[0].1.clone();
    assert_eq!(ProduceResponse::decode(&mut body, 8).expect("an answer").throttle_time_ms, 500);
    client.send(ApiKey::Produce, 8, 2, &produce(-1, 0, 10));
    client.run_to(muted.plus(Duration::from_millis(490)));
    assert_eq!(client.waiting(shard), 0, "still muted");
    client.run_to(muted.plus(Duration::from_millis(510)));
    assert_eq!(client.waiting(shard), 1);
}

/// Refuses an append because its partition moves, and gives the batch back.
fn moves_away(append: AppendRequest, to_come: u64) {
    let error = PartitionError::Moving(Generation(to_come));
    let returned = append.batches.into_iter().enumerate().map(|(at, (_, batch))| (at, batch)).collect();
    append.reply.send(Reply::Append { results: vec![Err(error)], throttle: Duration::ZERO, returned });
}

#[test]
fn what_comes_back_is_sent_again_although_a_later_one_holds_the_only_permit() {
    let client = Client::with(|edge| {
        edge.limits.shard_messages = 1;
        edge.admission = crate::net::Admission::new(&edge.limits, 2, Rc::clone(&edge.runtime));
    });
    let (first, second) = shards_of(&client);
    client.send(ApiKey::Produce, 8, 1, &produce(-1, 0, 10));
    client.send(ApiKey::Produce, 8, 2, &produce(-1, 1, 10));
    moves_away(client.append(first), 1);
    let snapshot = client.broker.edge.snapshot();
    let partition = PartitionId { topic: snapshot.topics["t"].id, index: 0 };
    assert_eq!(client.waiting(second), 1, "nobody knows yet where to");
    client.broker.relocate(partition, ShardId(second as u16));
    assert_eq!(client.waiting(second), 2, "the second request holds the permit, and is not answered before the first");
    let (later, again) = (client.append(second), client.append(second));
    assert_eq!((later.generation, later.batches[0].0.index), (Generation(0), 1));
    assert_eq!((again.generation, again.batches[0].0), (Generation(1), partition));
    done(later);
    done(again);
    assert_eq!(client.correlations(), [1, 2]);
}

#[test]
fn nothing_overtakes_a_batch_that_comes_back() {
    let client = Client::new(|_| ());
    let (first, second) = shards_of(&client);
    let sizes = |client: &Client, shard| client.append(shard).batches[0].1.body.len();
    (1..=3).for_each(|n| client.send(ApiKey::Produce, 8, n, &produce(-1, 0, 10 * n as usize)));
    done(client.append(first));
    let (two, three) = (client.append(first), client.append(first));
    moves_away(three, 1);
    let snapshot = client.broker.edge.snapshot();
    let partition = PartitionId { topic: snapshot.topics["t"].id, index: 0 };
    client.broker.relocate(partition, ShardId(second as u16));
    client.send(ApiKey::Produce, 8, 4, &produce(-1, 0, 40));
    assert_eq!(client.waiting(second), 0, "the second may come back too, and goes before the third and the fourth");
    moves_away(two, 1);
    assert_eq!(client.waiting(second), 1);
    let again = client.append(second);
    assert_eq!(again.batches[0].1.body.len(), 20);
    assert_eq!(client.waiting(second), 0);
    done(again);
    assert_eq!(client.waiting(second), 1);
    let again = client.append(second);
    assert_eq!((again.batches[0].1.body.len(), again.generation), (30, Generation(1)));
    done(again);
    assert_eq!(sizes(&client, second), 40, "the fourth was held until all before it were answered");
}
