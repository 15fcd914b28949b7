//! AlterReplicaLogDirs (k34, KIP-113): moves a partition between the log directories of a broker. There is one, so its
//! partitions lie where they are asked to (0), and another directory is not found (57).

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ApiKey,
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    },
};

use super::{Api, Call, Handled, access, errors::NONE, gather, k35_describe_log_dirs::log_dir};

/// How k34 is served.
pub const API: Api = Api::asking(ApiKey::AlterReplicaLogDirs, 1, 2, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: AlterReplicaLogDirsRequest = call.decode(body)?;
        let (snapshot, own) = (call.edge.snapshot(), log_dir(&call));
        let allowed = call.access().check_cluster(access::ALTER_CLUSTER);
        let mut answer = AlterReplicaLogDirsResponse::default();
        for dir in request.dirs {
            let found = dir.path.as_str() == own;
            for topic in dir.topics {
                let one = |index: i32| {
                    let code = match allowed.and_then(|()| gather::locate(&snapshot, &topic.name, index)) {
                        Err(error) if allowed.is_err() => error.code(),
                        _ if !found => ResponseError::LogDirNotFound.code(),
                        Ok(_) => NONE,
                        Err(error) => error.code(),
                    };
                    AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code)
                };
                let partitions = topic.partitions.iter().copied().map(one).collect();
                let told = AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name);
                answer.results.push(told.with_partitions(partitions));
            }
        }
        call.respond(&answer)
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::{
        messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
        protocol::StrBytes,
    };

    use super::*;
    use crate::api::fake::{FakeBroker, topic_name};

    #[test]
    fn partitions_stay_where_they_are_and_other_directories_are_not_found() {
        let fake = FakeBroker::with(&[("data.dir", "/srv/own")], 1, &[("logs", 2)]);
        let topic = |name, parts: &[i32]| {
            AlterReplicaLogDirTopic::default().with_name(topic_name(name)).with_partitions(parts.to_vec())
        };
        let dir =
            |path, topics| AlterReplicaLogDir::default().with_path(StrBytes::from_static_str(path)).with_topics(topics);
        for version in 1..=2 {
            let request = AlterReplicaLogDirsRequest::default().with_dirs(vec![
                dir("/srv/own", vec![topic("logs", &[0, 2]), topic("nope", &[0])]),
                dir("/srv/other", vec![topic("logs", &[1])]),
            ]);
            let answer: AlterReplicaLogDirsResponse = fake.finish(fake.ask(&API, version, &request));
            let parts = answer.results.iter().flat_map(|topic| &topic.partitions);
            let codes: Vec<(i32, i16)> = parts.map(|part| (part.partition_index, part.error_code)).collect();
            assert_eq!(codes, [(0, 0), (2, 3), (0, 3), (1, 57)], "version {version}");
        }
    }
}
