//! OffsetForLeaderEpoch (k23, KIP-101, KIP-320): where leader epochs end, by which consumers notice truncation.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_request::OffsetForLeaderPartition,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};
use thalweg_record::{LeaderEpoch, PartitionId};
use thalweg_shards::msg::{EpochEnd, EpochEndsRequest, Reply, Request};

use super::{Api, Call, Handled, access, errors, gather};

/// How k23 is served.
pub const API: Api = Api::new(ApiKey::OffsetForLeaderEpoch, 2, 4, handle);

type Ask = (LeaderEpoch, Option<LeaderEpoch>);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: OffsetForLeaderEpochRequest = call.decode(body)?;
        let answer = ends(&call, request).await;
        call.respond(&answer)
    })
}

async fn ends(call: &Call, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let (snapshot, access) = (call.edge.snapshot(), call.access());
    let sees_all = access.allows_cluster(access::ACT_IN_CLUSTER);
    let resolve = |topic: &str, part: &OffsetForLeaderPartition| -> Result<(PartitionId, Ask), ResponseError> {
        if !sees_all {
            access.check(access::SEE_TOPIC, topic)?;
        }
        let partition = gather::locate(&snapshot, topic, part.partition)?;
        Ok((partition, (LeaderEpoch(part.leader_epoch), gather::leader_epoch(part.current_leader_epoch))))
    };
    let wanted: Vec<_> = (request.topics.iter())
        .flat_map(|topic| topic.partitions.iter().map(|part| resolve(&topic.topic, part)))
        .collect();
    let parts: Vec<(PartitionId, Ask)> = wanted.iter().filter_map(|part| part.as_ref().ok()).copied().collect();
    let message = |parts: Vec<(PartitionId, Ask)>, reply| {
        let parts = parts.into_iter().map(|(partition, (epoch, current))| (partition, epoch, current)).collect();
        Request::EpochEnds(Box::new(EpochEndsRequest { parts, reply }))
    };
    let open = |reply| match reply {
        Reply::EpochEnds(results) => Some(results),
        _ => None,
    };
    let results = gather::ask(&call.edge, &parts, message, open).await;

    let snapshot = call.edge.snapshot();
    let mut results = (parts.iter().zip(results))
        .map(|((partition, _), result)| result.map_err(|error| gather::code(&snapshot, *partition, &error)));
    let mut wanted = wanted.into_iter();
    let mut end = |asked: &OffsetForLeaderPartition| {
        let result = match wanted.next().expect("one for each partition of the request") {
            Ok(_) => results.next().expect("one for each partition asked"),
            Err(error) => Err(error.code()),
        };
        let answer =
            EpochEndOffset::default().with_partition(asked.partition).with_leader_epoch(-1).with_end_offset(-1);
        match result {
            Err(code) => answer.with_error_code(code),
            Ok(EpochEnd(None)) => answer.with_error_code(errors::NONE),
            Ok(EpochEnd(Some((epoch, end)))) => answer.with_leader_epoch(epoch.0).with_end_offset(end.0),
        }
    };
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(&mut end).collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic;
    use thalweg_record::Offset;
    use thalweg_shards::msg::PartitionError;

    use super::*;
    use crate::api::fake::{AUTHORIZED, FakeBroker, topic_name};

    #[test]
    fn ends_and_errors_stand_at_their_partitions() {
        let broker = FakeBroker::new(1, &[("logs", 3)]);
        let part = |index| {
            OffsetForLeaderPartition::default().with_partition(index).with_leader_epoch(7).with_current_leader_epoch(2)
        };
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name("logs"))
            .with_partitions([0, 5, 1, 2].map(part).to_vec());
        let asked = broker.ask(&API, 4, &OffsetForLeaderEpochRequest::default().with_topics(vec![topic]));
        let Request::EpochEnds(ends) = broker.request(0) else { panic!("not epoch ends") };
        assert!(ends.parts.iter().all(|part| (part.1, part.2) == (LeaderEpoch(7), Some(LeaderEpoch(2)))));
        ends.reply.send(Reply::EpochEnds(vec![
            Ok(EpochEnd(Some((LeaderEpoch(6), Offset(90))))),
            Ok(EpochEnd(None)),
            Err(PartitionError::FencedLeaderEpoch),
        ]));
        let answer: OffsetForLeaderEpochResponse = broker.finish(asked);
        let parts = answer.topics[0].partitions.iter();
        let got: Vec<_> = parts.map(|p| (p.partition, p.error_code, p.leader_epoch, p.end_offset)).collect();
        assert_eq!(got, [(0, 0, 6, 90), (5, 3, -1, -1), (1, 0, -1, -1), (2, 74, -1, -1)]);
    }

    #[test]
    fn who_sees_the_topic_or_acts_as_a_broker_is_told() {
        for (rule, code) in [
            ("topic literal other User:ANONYMOUS * describe allow", 29),
            ("topic literal logs User:ANONYMOUS * describe allow", 3),
            ("cluster literal kafka-cluster User:ANONYMOUS * cluster_action allow", 3),
        ] {
            let broker = FakeBroker::with(AUTHORIZED, 1, &[("logs", 1)]);
            broker.rules(&[rule]);
            let part = OffsetForLeaderPartition::default().with_partition(9);
            let topic = OffsetForLeaderTopic::default().with_topic(topic_name("logs")).with_partitions(vec![part]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let answer: OffsetForLeaderEpochResponse = broker.finish(broker.ask(&API, 4, &request));
            assert_eq!(answer.topics[0].partitions[0].error_code, code, "{rule}");
        }
    }
}
