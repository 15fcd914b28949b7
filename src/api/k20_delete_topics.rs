//! DeleteTopics (k20, KIP-516): deletes topics by name, or by id from version 6 on.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DeleteTopicsRequest, DeleteTopicsResponse, TopicName, delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
    protocol::StrBytes,
};
use thalweg_record::TopicId;
use uuid::Uuid;

use super::{
    Api, Call, Handled, Stopping,
    access::{self, Access},
    control,
    errors::ToKafka,
    message,
};
use crate::cluster::{ClusterSnapshot, ControlRequest};

/// How k20 is served.
pub const API: Api = Api::new(ApiKey::DeleteTopics, 1, 6, handle);

/// Why a topic is not deleted.
type Refusal = (ResponseError, String);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DeleteTopicsRequest = call.decode(body)?;
        let answer = delete(&call, request).await?;
        call.respond(&answer)
    })
}

async fn delete(call: &Call, request: DeleteTopicsRequest) -> Result<DeleteTopicsResponse, Stopping> {
    let by_name = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let asked: Vec<DeleteTopicState> = request.topics.into_iter().chain(by_name).collect();
    let found = resolve(call, &asked);
    let ids: Vec<TopicId> = found.iter().filter_map(|id| id.as_ref().ok()).copied().collect();
    let names = names(&call.edge.snapshot(), &ids);
    let mut results = match ids.is_empty() {
        true => Vec::new(),
        false => control::ask(&call.edge, |reply| ControlRequest::DeleteTopics { ids, reply }).await?,
    }
    .into_iter();
    let answers = asked.into_iter().zip(found).map(|(asked, found)| {
        let (id, outcome) = match found {
            Ok(id) => {
                let result = results.next().expect("control answers for each topic");
                (Some(id), result.map_err(|error| (error.to_kafka(), error.to_string())))
            }
            Err(refusal) => (None, Err(refusal)),
        };
        let result = match id {
            Some(id) => {
                DeletableTopicResult::default().with_name(names.get(&id).cloned()).with_topic_id(Uuid::from_bytes(id.0))
            }
            None => DeletableTopicResult::default().with_name(asked.name).with_topic_id(asked.topic_id),
        };
        match outcome {
            Ok(()) => result,
            Err((error, why)) => {
                let message = (call.version >= 5).then(|| message(&why));
                result.with_error_code(error.code()).with_error_message(message)
            }
        }
    });
    Ok(DeleteTopicsResponse::default().with_responses(answers.collect()))
}

fn names(snapshot: &ClusterSnapshot, ids: &[TopicId]) -> BTreeMap<TopicId, TopicName> {
    let view = |id: &TopicId| snapshot.topics_by_id.get(id).map(|view| view.name.to_string());
    ids.iter().filter_map(|id| Some((*id, TopicName(StrBytes::from_string(view(id)?))))).collect()
}

/// The topics that are to be deleted, or why not, in request order.
fn resolve(call: &Call, asked: &[DeleteTopicState]) -> Vec<Result<TopicId, Refusal>> {
    if !call.edge.config.delete_topic_enable {
        let error = if call.version < 3 { ResponseError::InvalidRequest } else { ResponseError::TopicDeletionDisabled };
        return asked.iter().map(|_| refuse(error, "Topic deletion is disabled.")).collect();
    }
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let any = access.allows_cluster(access::DELETE_ANY_TOPIC);
    let find = |topic: &DeleteTopicState| match find(&snapshot, topic) {
        Ok(_) | Err((ResponseError::UnknownTopicOrPartition, _)) if !any => {
            authorized(&snapshot, &access, topic).and_then(|()| find(&snapshot, topic))
        }
        found => found,
    };
    let found: Vec<Result<TopicId, Refusal>> = asked.iter().map(find).collect();
    let mut times: BTreeMap<TopicId, u32> = BTreeMap::new();
    found.iter().flatten().for_each(|id| *times.entry(*id).or_default() += 1);
    let once = |found: Result<TopicId, Refusal>| match found {
        Ok(id) if times[&id] > 1 => refuse(ResponseError::InvalidRequest, "The topic is named more than once."),
        found => found,
    };
    found.into_iter().map(once).collect()
}

fn find(snapshot: &ClusterSnapshot, topic: &DeleteTopicState) -> Result<TopicId, Refusal> {
    let id = TopicId(topic.topic_id.into_bytes());
    match (&topic.name, id) {
        (None, TopicId::ZERO) => refuse(ResponseError::InvalidRequest, "Neither topic name nor id were specified."),
        (Some(name), TopicId::ZERO) => match snapshot.topics.get(name.as_str()) {
            Some(view) => Ok(view.id),
            None => refuse(ResponseError::UnknownTopicOrPartition, "This server does not host this topic."),
        },
        (None, id) if snapshot.topics_by_id.contains_key(&id) => Ok(id),
        (None, _) => refuse(ResponseError::UnknownTopicId, "This server does not host this topic ID."),
        _ => refuse(ResponseError::InvalidRequest, "You may not specify both topic name and topic id."),
    }
}

/// Whether the topic may be deleted by who asks; told before it is told whether a name exists.
fn authorized(snapshot: &ClusterSnapshot, access: &Access, topic: &DeleteTopicState) -> Result<(), Refusal> {
    let by_id = || snapshot.topics_by_id.get(&TopicId(topic.topic_id.into_bytes())).map(|view| &*view.name);
    let name = topic.name.as_ref().map(|name| name.as_str()).or_else(by_id).unwrap_or_default();
    let refused = |error| (error, "Not authorized to delete this topic.".to_owned());
    access.check(access::DELETE_TOPIC, name).map_err(refused)
}

fn refuse<T>(error: ResponseError, why: &str) -> Result<T, Refusal> {
    Err((error, why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::fake::{FakeBroker, topic_id, topic_name},
        cluster::ControlError,
    };

    fn by_id(id: TopicId) -> DeleteTopicState {
        DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_bytes(id.0))
    }

    fn by_name(name: &str) -> DeleteTopicState {
        DeleteTopicState::default().with_name(Some(topic_name(name)))
    }

    fn codes(answer: DeleteTopicsResponse) -> Vec<i16> {
        answer.responses.iter().map(|topic| topic.error_code).collect()
    }

    #[test]
    fn names_and_ids_find_their_topics() {
        let broker = FakeBroker::new(1, &[("a", 1), ("b", 1), ("c", 1)]);
        let both = by_name("a").with_topic_id(Uuid::from_bytes([1; 16]));
        let topics = vec![
            by_name("a"),
            by_name("nope"),
            by_id(topic_id("b")),
            by_id(TopicId([9; 16])),
            DeleteTopicState::default().with_name(None),
            both,
            by_name("c"),
        ];
        let asked = broker.ask(&API, 6, &DeleteTopicsRequest::default().with_topics(topics));
        let ControlRequest::DeleteTopics { ids, reply } = broker.control_request() else { panic!("not a deletion") };
        assert_eq!(ids, ["a", "b", "c"].map(topic_id));
        reply.try_send(vec![Ok(()), Ok(()), Err(ControlError::UnknownTopicId("gone".into()))]).expect("awaited");
        let answer: DeleteTopicsResponse = broker.finish(asked);
        assert_eq!(answer.responses[2].name.as_ref().map(|name| name.as_str()), Some("b"), "an id's name is told");
        assert_eq!(codes(answer), [0, 3, 0, 100, 42, 42, 100]);
    }

    #[test]
    fn a_topic_named_twice_is_not_deleted() {
        let broker = FakeBroker::new(1, &[("a", 1)]);
        let twice = DeleteTopicsRequest::default().with_topics(vec![by_name("a"), by_id(topic_id("a"))]);
        assert_eq!(codes(broker.finish(broker.ask(&API, 6, &twice))), [42, 42]);
        assert!(broker.control.is_empty());
    }

    #[test]
    fn old_versions_delete_by_name_where_deletion_is_enabled() {
        for (version, disabled) in [(1, 42), (3, 73), (5, 73)] {
            let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("a")]);
            let broker = FakeBroker::new(1, &[("a", 1)]);
            let asked = broker.ask(&API, version, &request);
            let ControlRequest::DeleteTopics { reply, .. } = broker.control_request() else { panic!("no") };
            reply.try_send(vec![Ok(())]).expect("awaited");
            assert_eq!(codes(broker.finish(asked)), [0]);
            let broker = FakeBroker::with(&[("delete.topic.enable", "false")], 1, &[("a", 1)]);
            assert_eq!(codes(broker.finish(broker.ask(&API, version, &request))), [disabled]);
        }
    }
}
