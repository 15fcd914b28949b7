//! The second half of a produce: the shards' answers, in the order of the request.

use std::{collections::BTreeMap, time::Duration};

use kafka_protocol::{
    ResponseError,
    messages::{
        BrokerId, ProduceResponse,
        produce_response::{LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse},
    },
    protocol::StrBytes,
};
use thalweg_record::{Batch, PartitionId, ShardId};
use thalweg_shards::msg::{Appended, Generation, PartitionError, Reply};

use super::{
    super::{
        Call, Close, ErrorTally, Response, errors,
        gather::{self, Newer},
    },
    refused::Refused,
    resend::{self, Returned},
    send::{Fate, Sent, SentTopic},
};

/// Current leaders and endpoints are answered from this version on (KIP-951).
const LEADERS_SINCE: i16 = 10;

type Results = Vec<Result<Appended, PartitionError>>;

/// What shards answered.
#[derive(Default)]
pub(super) struct Answered {
    /// By the shard that was asked first.
    pub results: BTreeMap<ShardId, Results>,
    /// How long the producer should rest.
    pub pause: Duration,
}

impl Answered {
    /// What became of a batch in the end.
    pub(super) fn set(&mut self, (shard, at): (ShardId, usize), result: Result<Appended, PartitionError>) {
        if let Some(place) = self.results.get_mut(&shard).and_then(|results| results.get_mut(at)) {
            *place = result;
        }
    }
}

/// Waits for every shard asked, and answers.
///
/// # Errors
/// [`Close`] when acks=0 and a partition failed: there is no other way to tell the client.
pub(super) async fn answer(call: Call, sent: Sent) -> Result<Response, Close> {
    let mut answered = Answered::default();
    let mut returned = Vec::new();
    for _ in 0..sent.asked {
        let answer = sent.answers.recv_async().await.map_err(|_| Close::new("the broker is stopping"))?;
        let shard = ShardId(u16::try_from(answer.slot).expect("slots are shard ids here"));
        if let Reply::Append { results: of_shard, throttle, returned: back } = answer.reply {
            answered.results.insert(shard, of_shard);
            answered.pause = answered.pause.max(throttle);
            returned.extend(back.into_iter().map(|(at, batch)| ((shard, at), batch)));
        }
    }
    if !returned.is_empty() {
        resend::again(&call, sent.deadline, with_partitions(&sent.topics, returned), &mut answered).await;
    }
    drop((sent.permits, sent.place));
    let Answered { results, pause } = answered;
    let errors = results.values().flatten().filter_map(|result| result.as_ref().err());
    if let Some(newer) = gather::newest_move(errors) {
        // The shard knew of a deletion before this executor: its snapshot says what became of the topic.
        gather::catch_up(&call.edge, Newer { generation: Generation(0), ..newer }).await;
    }
    let mut leader_asked = false;
    let topics = sent.topics.into_iter().map(|topic| of_topic(&call, topic, &results, &mut leader_asked));
    let mut response = ProduceResponse::default().with_responses(topics.collect());
    if sent.silent {
        return silence(&call, &response, pause);
    }
    response.throttle_time_ms = i32::try_from(pause.as_millis()).unwrap_or(i32::MAX);
    if leader_asked && call.version >= LEADERS_SINCE {
        response = response.with_node_endpoints(vec![endpoint(&call)]);
    }
    Ok(call.respond(&response)?.then_pause(pause))
}

/// Batches that came back, with the partitions they belong to.
fn with_partitions(topics: &[SentTopic], returned: Vec<((ShardId, usize), Batch)>) -> Vec<Returned> {
    let mut batches: BTreeMap<(ShardId, usize), Batch> = returned.into_iter().collect();
    let partitions = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    let returned = partitions.filter_map(|(topic, partition)| {
        let Fate::Asked(shard, at) = partition.fate else { return None };
        let (view, batch) = (topic.view.as_ref()?, batches.remove(&(shard, at))?);
        Some(((shard, at), PartitionId { topic: view.id, index: partition.index }, batch))
    });
    returned.collect()
}

/// What comes of acks=0: nothing is sent, so that errors are counted here.
fn silence(call: &Call, response: &ProduceResponse, pause: Duration) -> Result<Response, Close> {
    call.edge.meters.errors(super::API.key as i16, &ErrorTally::of(response));
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    match partitions.find(|p| p.error_code != errors::NONE) {
        Some(p) => Err(Close::new(format!("acks=0 and partition {} failed with {}", p.index, p.error_code))),
        None => Ok(Response::silent().then_pause(pause)),
    }
}

fn of_topic(
    call: &Call,
    topic: SentTopic,
    results: &BTreeMap<ShardId, Results>,
    leader_asked: &mut bool,
) -> TopicProduceResponse {
    let partitions = topic.partitions.iter().map(|partition| {
        let answer = match &partition.fate {
            Fate::Refused(refused) => refused.answer(),
            // A shard that dropped the request has said nothing of it: it is stopping.
            Fate::Asked(shard, at) => match results.get(shard).and_then(|of_shard| of_shard.get(*at)) {
                Some(Ok(appended)) => succeeded(appended),
                Some(Err(error)) => refusal(call, &topic, partition.index, error).answer(),
                None => Refused::from(ResponseError::NotLeaderOrFollower).answer(),
            },
        };
        let answer = answer.with_index(partition.index);
        if answer.error_code != ResponseError::NotLeaderOrFollower.code() || call.version < LEADERS_SINCE {
            return answer;
        }
        *leader_asked = true;
        let epoch = topic.view.as_ref().map_or(-1, |view| view.leader_epoch.0);
        let node = call.edge.snapshot().broker.node.0;
        answer.with_current_leader(LeaderIdAndEpoch::default().with_leader_id(BrokerId(node)).with_leader_epoch(epoch))
    });
    let partition_responses = partitions.collect();
    let answer = TopicProduceResponse::default().with_name(topic.name.clone()).with_topic_id(topic.id);
    answer.with_partition_responses(partition_responses)
}

fn succeeded(appended: &Appended) -> PartitionProduceResponse {
    PartitionProduceResponse::default()
        .with_base_offset(appended.base_offset.0)
        .with_log_append_time_ms(appended.log_append_time.map_or(-1, |stamp| stamp.0))
        .with_log_start_offset(appended.log_start.0)
}

/// A partition whose topic is gone from the newest snapshot was deleted meanwhile; the shard calls it moved.
fn refusal(call: &Call, topic: &SentTopic, partition: i32, error: &PartitionError) -> Refused {
    let exists = |id| call.edge.snapshot().topics_by_id.contains_key(&id);
    let deleted = topic.view.as_ref().is_some_and(|view| !exists(view.id));
    match error {
        other if other.is_elsewhere() && deleted && !topic.id.is_nil() => ResponseError::UnknownTopicId.into(),
        other if other.is_elsewhere() && deleted => ResponseError::UnknownTopicOrPartition.into(),
        other => Refused::of(other, topic.view.as_ref().map_or("", |view| &view.name), partition),
    }
}

fn endpoint(call: &Call) -> NodeEndpoint {
    let broker = &call.edge.snapshot().broker;
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    NodeEndpoint::default()
        .with_node_id(BrokerId(broker.node.0))
        .with_host(text(&call.caller.advertised_host))
        .with_port(i32::from(call.caller.advertised_port))
        .with_rack(broker.rack.as_deref().map(text))
}
