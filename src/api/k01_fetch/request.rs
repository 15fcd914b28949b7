//! From a Fetch request to parts, and the answer put together from their results.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{FetchRequest, TopicName},
    protocol::StrBytes,
};
use thalweg_record::{Offset, PartitionId, TopicId};
use thalweg_shards::msg::{FetchFrom, Isolation};

use super::{
    TOPIC_IDS,
    answer::part_answer,
    encode::{Endpoint, PartAnswer, TopicAnswer, encode},
    session::{Asked, Begun, NO_SESSION, PartKey, Sessions, Told, TopicKey, Wish},
    wait::{Fetch, Terms},
};
use crate::{
    api::{
        Call, Handled, Response,
        access::{self, Access},
        errors, gather,
    },
    cluster::ClusterSnapshot,
    net::Permit,
};

/// Serves one Fetch.
pub(super) fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: FetchRequest = call.decode(body)?;
        // There are no followers.
        if request.replica_id.0.max(request.replica_state.replica_id.0) >= 0 {
            return Ok(refuse(&call, &request, ResponseError::InvalidRequest));
        }
        let (asked, now) = (asked(&call, &request), call.edge.runtime.mono());
        let begun = match with_sessions(&call, |sessions| sessions.begin(asked, now)) {
            Ok(begun) => begun,
            // It stands alone: nobody knows which partitions were meant.
            Err(error) => return Ok(encode(call.version, error.code(), NO_SESSION, Vec::new(), None)),
        };
        let (parts, permit) = fetch(&call, &request, &begun).await;
        Ok(answer(&call, &begun, parts).holding(permit))
    })
}

/// The error stands at each partition too, for clients before v7 see only those.
fn refuse(call: &Call, request: &FetchRequest, error: ResponseError) -> Response {
    let topics = request.topics.iter().map(|topic| TopicAnswer {
        name: topic.topic.clone(),
        id: TopicId(topic.topic_id.into_bytes()),
        parts: topic.partitions.iter().map(|p| PartAnswer::refused(p.partition, error.code())).collect(),
    });
    encode(call.version, error.code(), NO_SESSION, topics.collect(), None)
}

/// Does something with this executor's sessions, and shows how many there are.
fn with_sessions<R>(call: &Call, act: impl FnOnce(&mut Sessions) -> R) -> R {
    let mut sessions = call.edge.fetch_sessions.borrow_mut();
    let result = act(&mut sessions);
    call.edge.meters.sessions.show(sessions.figures(), sessions.take_evictions());
    result
}

/// What the request says to the sessions.
fn asked(call: &Call, request: &FetchRequest) -> Asked {
    let (snapshot, by_id) = (call.edge.snapshot(), call.version >= TOPIC_IDS);
    let key = |name: &TopicName, id: TopicId| match snapshot.topics.get(name.as_str()) {
        _ if by_id => TopicKey::Id(id),
        Some(view) => TopicKey::Name(Arc::clone(&view.name)),
        // A copy: what a session remembers must not keep a receive buffer alive.
        None => TopicKey::Name(name.as_str().into()),
    };
    let mut parts = Vec::with_capacity(request.topics.iter().map(|topic| topic.partitions.len()).sum());
    for topic in &request.topics {
        let topic_key = key(&topic.topic, TopicId(topic.topic_id.into_bytes()));
        parts.extend(topic.partitions.iter().map(|p| {
            let part = PartKey { topic: topic_key.clone(), index: p.partition };
            let (offset, max_bytes) = (p.fetch_offset, p.partition_max_bytes);
            (part, Wish { offset, max_bytes, leader_epoch: p.current_leader_epoch })
        }));
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_key = key(&topic.topic, TopicId(topic.topic_id.into_bytes()));
        forgotten.extend(topic.partitions.iter().map(|index| PartKey { topic: topic_key.clone(), index: *index }));
    }
    Asked { id: request.session_id, epoch: request.session_epoch, by_id, parts, forgotten }
}

/// Fetches the parts: their answers in order, and room for the records in them.
async fn fetch(call: &Call, request: &FetchRequest, begun: &Begun) -> (Vec<PartAnswer>, Permit) {
    let wanted = resolve(&call.edge.snapshot(), &call.access(), call.version, &begun.parts);
    let parts: Vec<FetchFrom> = wanted.iter().filter_map(|part| part.as_ref().ok()).copied().collect();
    let all_known = wanted.iter().all(Result::is_ok);
    let terms = terms(call, request, all_known && !parts.is_empty());
    call.edge.cold_room.resume(call.caller.conn);
    let stash = call.caller.stash.take().unwrap_or_default();
    let fetched = Fetch::new(&call.edge, call.caller.conn, terms, &parts, *stash).run().await;
    let kept_bytes = fetched.stash.bytes();
    call.caller.stash.replace(Some(Box::new(fetched.stash)));
    call.edge.cold_room.keep(call.caller.conn, kept_bytes, &call.caller.stash);

    let snapshot = call.edge.snapshot();
    let mut results = parts.iter().zip(fetched.parts);
    let answers = begun.parts.iter().zip(wanted).map(|((key, _), wanted)| match wanted {
        Err(error) => PartAnswer::refused(key.index, error.code()),
        Ok(_) => {
            let (from, result) = results.next().expect("one result per known partition");
            part_answer(call, &snapshot, terms.isolation, from.partition, result)
        }
    });
    (answers.collect(), fetched.permit)
}

/// The answer: of a session's fetch, what has changed.
fn answer(call: &Call, begun: &Begun, parts: Vec<PartAnswer>) -> Response {
    let told: Vec<Told> = parts.iter().map(PartAnswer::told).collect();
    let (now, random) = (call.edge.runtime.mono(), call.edge.runtime.random());
    let finished = match with_sessions(call, |sessions| sessions.finish(begun, &told, now, random)) {
        Ok(finished) => finished,
        Err((error, session)) => return encode(call.version, error.code(), session, Vec::new(), None),
    };
    let changed = finished.changed.as_deref();
    let mut topics: Vec<TopicAnswer> = Vec::new();
    let mut topic: Option<&TopicKey> = None;
    for (place, ((key, _), part)) in begun.parts.iter().zip(parts).enumerate() {
        if changed.is_some_and(|changed| !changed[place]) {
            continue;
        }
        if topic.replace(&key.topic) != Some(&key.topic) {
            topics.push(topic_answer(&key.topic));
        }
        topics.last_mut().expect("just pushed").parts.push(part);
    }
    let snapshot = call.edge.snapshot();
    let endpoint = Endpoint {
        node: snapshot.broker.node.0,
        host: Arc::clone(&call.caller.advertised_host),
        port: call.caller.advertised_port,
    };
    encode(call.version, errors::NONE, finished.session, topics, Some(&endpoint))
}

fn topic_answer(key: &TopicKey) -> TopicAnswer {
    let (name, id) = match key {
        TopicKey::Id(id) => (StrBytes::default(), *id),
        TopicKey::Name(name) => (StrBytes::from_string(name.to_string()), TopicId([0; 16])),
    };
    TopicAnswer { name: TopicName(name), id, parts: Vec::new() }
}

/// Per part: what to ask of its shard, or why it is unknown.
fn resolve(
    snapshot: &ClusterSnapshot,
    access: &Access,
    version: i16,
    parts: &[(PartKey, Wish)],
) -> Vec<Result<FetchFrom, ResponseError>> {
    let unknown_topic = match version >= TOPIC_IDS {
        true => ResponseError::UnknownTopicId,
        false => ResponseError::UnknownTopicOrPartition,
    };
    // Before anything is said of a topic, its existence included, its reader must be allowed to read it.
    let find = |topic: &TopicKey| {
        let (view, name) = match topic {
            TopicKey::Id(id) => {
                let view = snapshot.topics_by_id.get(id).ok_or(unknown_topic)?;
                (Some(view), &view.name)
            }
            TopicKey::Name(name) => (snapshot.topics.get(name), name),
        };
        access.check(access::FETCH, name)?;
        view.ok_or(unknown_topic)
    };
    // Parts of a topic mostly stand together: each run of them is looked up once.
    let mut last = None;
    let resolved = parts.iter().map(|(key, wish)| {
        let view = match last {
            Some((topic, view)) if topic == &key.topic => view,
            _ => find(&key.topic),
        };
        last = Some((&key.topic, view));
        let view = view?;
        if !(0..view.partitions).contains(&key.index) {
            return Err(ResponseError::UnknownTopicOrPartition);
        }
        Ok(FetchFrom {
            partition: PartitionId { topic: view.id, index: key.index },
            offset: Offset(wish.offset),
            max_bytes: u32::try_from(wish.max_bytes).unwrap_or(0),
            current_leader_epoch: gather::leader_epoch(wish.leader_epoch),
        })
    });
    resolved.collect()
}

fn terms(call: &Call, request: &FetchRequest, may_wait: bool) -> Terms {
    let not_negative = |value: i32| u64::try_from(value).unwrap_or(0);
    let max_bytes = not_negative(request.max_bytes).min(u64::from(call.edge.config.fetch_max_bytes));
    let max_wait_ms = not_negative(request.max_wait_ms);
    // More than fits into the answer will never come together.
    let min_bytes = not_negative(request.min_bytes).min(max_bytes);
    Terms {
        isolation: if request.isolation_level == 1 { Isolation::Committed } else { Isolation::Uncommitted },
        min_bytes,
        max_bytes,
        deadline: call.edge.runtime.mono().plus(Duration::from_millis(max_wait_ms)),
        may_park: may_wait && max_wait_ms > 0 && min_bytes > 0,
    }
}
