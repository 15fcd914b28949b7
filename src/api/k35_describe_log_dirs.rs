//! DescribeLogDirs (k35, KIP-113, KIP-827): how many bytes each partition holds, and how full the disk is.
//!
//! There is one log directory, `data.dir`. A partition's size is that of its batches, in the log and in objects alike, so the sum
//! may be more than the file system under the directory holds. As in Kafka, null asks for all partitions, and what does not exist
//! is left out.

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        ApiKey, DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName,
        describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic},
    },
    protocol::StrBytes,
};
use thalweg_record::PartitionId;
use thalweg_shards::msg::{DescribeRequest, Reply, Request};

use super::{Api, Call, Handled, access, gather};
use crate::{cluster::ClusterSnapshot, config::host};

/// How k35 is served.
pub const API: Api = Api::asking(ApiKey::DescribeLogDirs, 1, 4, handle);

/// Partitions that a shard is asked for at once: each costs it as many steps as it has objects.
const AT_ONCE: usize = 500;

/// What KIP-827 says when the size of the disk is not known.
const UNKNOWN_BYTES: i64 = -1;

/// A topic that exists, and those of its partitions that are asked for.
type Wanted = (TopicName, Vec<(PartitionId, ())>);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeLogDirsRequest = call.decode(body)?;
        if let Err(refused) = call.access().check_cluster(access::SEE_CLUSTER) {
            return call.respond(&DescribeLogDirsResponse::default().with_error_code(refused.code()));
        }
        let mut topics = Vec::new();
        for (name, parts) in wanted(&call.edge.snapshot(), request) {
            let partitions = sizes(&call, &parts).await;
            if !partitions.is_empty() {
                topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
            }
        }
        let room = host::room(&call.edge.config.data_dir);
        let (total, usable) = room.map_or((UNKNOWN_BYTES, UNKNOWN_BYTES), |room| (room.total_bytes, room.usable_bytes));
        let dir = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(log_dir(&call)))
            .with_topics(topics)
            .with_total_bytes(total)
            .with_usable_bytes(usable);
        call.respond(&DescribeLogDirsResponse::default().with_results(vec![dir]))
    })
}

/// The one log directory, as it is told.
pub(super) fn log_dir(call: &Call) -> String {
    let dir = &call.edge.config.data_dir;
    std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display().to_string()
}

fn wanted(snapshot: &ClusterSnapshot, request: DescribeLogDirsRequest) -> Vec<Wanted> {
    let Some(topics) = request.topics else {
        let all = |view: &crate::cluster::TopicView| {
            let part = |index| (PartitionId { topic: view.id, index }, ());
            (TopicName(StrBytes::from_string(view.name.to_string())), (0..view.partitions).map(part).collect())
        };
        return snapshot.topics.values().map(|view| all(view)).collect();
    };
    let known = topics.into_iter().map(|mut topic| {
        // Twice the same is told once, as in Kafka.
        topic.partitions.sort_unstable();
        topic.partitions.dedup();
        let located = topic.partitions.iter().filter_map(|index| gather::locate(snapshot, &topic.topic, *index).ok());
        let parts = located.map(|partition| (partition, ())).collect();
        (topic.topic, parts)
    });
    known.collect()
}

async fn sizes(call: &Call, parts: &[(PartitionId, ())]) -> Vec<DescribeLogDirsPartition> {
    let message = |parts: Vec<(PartitionId, ())>, reply| {
        let partitions = parts.into_iter().map(|(partition, ())| partition).collect();
        Request::Describe(Box::new(DescribeRequest { partitions, reply }))
    };
    let open = |reply| match reply {
        Reply::Describe(views) => Some(views),
        _ => None,
    };
    let mut told = Vec::with_capacity(parts.len());
    for some in parts.chunks(AT_ONCE) {
        // A partition that was deleted meanwhile is left out like one that never was.
        let views = gather::ask(&call.edge, some, message, open).await.into_iter().flatten();
        told.extend(views.map(|view| {
            DescribeLogDirsPartition::default()
                .with_partition_index(view.partition.index)
                .with_partition_size(i64::try_from(view.size_bytes).unwrap_or(i64::MAX))
        }));
    }
    told
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
    use thalweg_record::{LeaderEpoch, Offset};
    use thalweg_shards::msg::{PartitionError, PartitionView};

    use super::*;
    use crate::api::fake::{Asked, FakeBroker, topic_name};

    fn view(partition: PartitionId) -> PartitionView {
        PartitionView {
            partition,
            leader_epoch: LeaderEpoch(2),
            log_start: Offset(0),
            committed_end: Offset(0),
            high_watermark: Offset(5),
            last_stable: Offset(5),
            size_bytes: 100 + partition.index as u64,
            watches: 0,
        }
    }

    /// Answers as the only shard; partition 1 is gone.
    fn serve(fake: &FakeBroker) {
        let Request::Describe(describe) = fake.request(0) else { panic!("not a look at partitions") };
        let answer = |id: &PartitionId| if id.index == 1 { Err(PartitionError::Unavailable) } else { Ok(view(*id)) };
        describe.reply.send(Reply::Describe(describe.partitions.iter().map(answer).collect()));
    }

    fn told(fake: &FakeBroker, asked: Asked) -> (DescribeLogDirsResult, Vec<(String, i32, i64)>) {
        let mut answer: DescribeLogDirsResponse = fake.finish(asked);
        assert_eq!((answer.error_code, answer.results.len()), (0, 1));
        let dir = answer.results.remove(0);
        let parts = dir.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|part| (topic.name.to_string(), part.partition_index, part.partition_size))
        });
        let parts = parts.collect();
        (dir, parts)
    }

    #[test]
    fn null_is_everything_and_what_is_gone_is_left_out() {
        let fake = FakeBroker::with(&[("data.dir", "/tmp")], 1, &[("a", 1), ("b", 3)]);
        for version in 1..=4 {
            let asked = fake.ask(&API, version, &DescribeLogDirsRequest::default().with_topics(None));
            serve(&fake);
            serve(&fake);
            let (dir, parts) = told(&fake, asked);
            let own = |name: &str, index, size| (name.to_owned(), index, size);
            assert_eq!(parts, [own("a", 0, 100), own("b", 0, 100), own("b", 2, 102)], "version {version}");
            assert_eq!(dir.log_dir.as_str(), "/tmp");
            if version >= 4 {
                assert!(dir.total_bytes >= dir.usable_bytes && dir.usable_bytes >= 0 && dir.total_bytes > 0);
            }
        }
    }

    #[test]
    fn only_what_is_asked_for_and_exists_is_told_once() {
        let fake = FakeBroker::with(&[("data.dir", "/no/such/place")], 1, &[("a", 1), ("b", 3)]);
        let topic = |name, parts: &[i32]| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(parts.to_vec())
        };
        let wanted = vec![topic("b", &[2, 9, 2, -1]), topic("nope", &[0])];
        let asked = fake.ask(&API, 4, &DescribeLogDirsRequest::default().with_topics(Some(wanted)));
        serve(&fake);
        let (dir, parts) = told(&fake, asked);
        assert_eq!(parts, [("b".to_owned(), 2, 102)]);
        assert_eq!((dir.total_bytes, dir.usable_bytes), (-1, -1), "nobody knows");
        let none = fake.ask(&API, 4, &DescribeLogDirsRequest::default().with_topics(Some(Vec::new())));
        assert!(told(&fake, none).1.is_empty());
    }
}
