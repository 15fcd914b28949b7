//! From a Fetch request to parts, and the answer put together from their results.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        FetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
    },
};
use thalweg_record::{Offset, PartitionId, TopicId};
use thalweg_shards::msg::{FetchFrom, Isolation};

use super::{
    TOPIC_IDS,
    answer::part_answer,
    encode::{Endpoint, PartAnswer, TopicAnswer, encode},
    wait::{Fetch, Terms},
};
use crate::{
    api::{Call, Handled, Response, errors, gather},
    cluster::TopicView,
};

/// Serves one Fetch.
pub(super) fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: FetchRequest = call.decode(body)?;
        Ok(match refusal(&request) {
            Some(error) => refuse(&call, &request, error),
            None => fetch(&call, &request).await,
        })
    })
}

/// Why the whole request is refused, if it is: there are no followers, and no sessions but the full fetch.
fn refusal(request: &FetchRequest) -> Option<ResponseError> {
    let replica = request.replica_id.0.max(request.replica_state.replica_id.0);
    match request.session_epoch {
        _ if replica >= 0 => Some(ResponseError::InvalidRequest),
        0 | -1 => None,
        _ => Some(ResponseError::FetchSessionIdNotFound),
    }
}

/// A session's error stands alone; any other stands at each partition too, for clients before v7 see only those.
fn refuse(call: &Call, request: &FetchRequest, error: ResponseError) -> Response {
    let mut topics = Vec::new();
    if error != ResponseError::FetchSessionIdNotFound {
        topics.extend(request.topics.iter().map(|topic| TopicAnswer {
            name: topic.topic.clone(),
            id: TopicId(topic.topic_id.into_bytes()),
            parts: topic.partitions.iter().map(|p| PartAnswer::refused(p.partition, error.code())).collect(),
        }));
    }
    encode(call.version, error.code(), topics, None)
}

async fn fetch(call: &Call, request: &FetchRequest) -> Response {
    let wanted = resolve(call, request);
    let parts: Vec<FetchFrom> = wanted.iter().flatten().filter_map(|part| part.as_ref().ok()).copied().collect();
    let all_known = wanted.iter().flatten().all(Result::is_ok);
    let terms = terms(call, request, all_known && !parts.is_empty());
    let stash = call.caller.stash.take().unwrap_or_default();
    let fetched = Fetch::new(&call.edge, call.caller.conn, terms, &parts, *stash).run().await;
    call.caller.stash.replace(Some(Box::new(fetched.stash)));

    let snapshot = call.edge.snapshot();
    let mut results = parts.iter().zip(fetched.parts);
    let topics = request.topics.iter().zip(wanted).map(|(topic, wanted)| TopicAnswer {
        name: topic.topic.clone(),
        id: TopicId(topic.topic_id.into_bytes()),
        parts: (topic.partitions.iter().zip(wanted))
            .map(|(asked, wanted)| match wanted {
                Err(error) => PartAnswer::refused(asked.partition, error.code()),
                Ok(_) => {
                    let (from, result) = results.next().expect("one result per known partition");
                    part_answer(call, &snapshot, terms.isolation, from.partition, result)
                }
            })
            .collect(),
    });
    let endpoint = Endpoint {
        node: snapshot.broker.node.0,
        host: Arc::clone(&call.caller.advertised_host),
        port: call.caller.advertised_port,
    };
    encode(call.version, errors::NONE, topics.collect(), Some(&endpoint)).holding(fetched.permit)
}

/// Per topic and partition of the request: what to ask of its shard, or why it is unknown.
fn resolve(call: &Call, request: &FetchRequest) -> Vec<Vec<Result<FetchFrom, ResponseError>>> {
    let snapshot = call.edge.snapshot();
    let topic = |topic: &FetchTopic| {
        let view = match call.version >= TOPIC_IDS {
            true => snapshot.topics_by_id.get(&TopicId(topic.topic_id.into_bytes())),
            false => snapshot.topics.get(topic.topic.as_str()),
        };
        topic.partitions.iter().map(|partition| part(call.version, view, partition)).collect()
    };
    request.topics.iter().map(topic).collect()
}

fn part(version: i16, view: Option<&Arc<TopicView>>, asked: &FetchPartition) -> Result<FetchFrom, ResponseError> {
    let Some(view) = view else {
        return Err(match version >= TOPIC_IDS {
            true => ResponseError::UnknownTopicId,
            false => ResponseError::UnknownTopicOrPartition,
        });
    };
    if !(0..view.partitions).contains(&asked.partition) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    Ok(FetchFrom {
        partition: PartitionId { topic: view.id, index: asked.partition },
        offset: Offset(asked.fetch_offset),
        max_bytes: u32::try_from(asked.partition_max_bytes).unwrap_or(0),
        current_leader_epoch: gather::leader_epoch(asked.current_leader_epoch),
    })
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
