//! ListConfigResources (k74, KIP-1000, KIP-1142): what has settings: topics, this broker and its loggers, and groups whose
//! settings were altered. Subscriptions of client metrics are not served.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
    },
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled, access,
    k32_describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC},
};
use crate::cluster::ClusterSnapshot;

/// How k74 is served. Version 0 lists client metrics only.
pub const API: Api = Api::asking(ApiKey::ListConfigResources, 0, 1, handle);

/// Every type that is listed when none is named.
const TYPES: &[i8] = &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: ListConfigResourcesRequest = call.decode(body)?;
        let asked = request.resource_types;
        let answer = ListConfigResourcesResponse::default();
        if let Err(refused) = call.access().check_cluster(access::SEE_CLUSTER_CONFIGS) {
            return call.respond(&answer.with_error_code(refused.code()));
        }
        if asked.iter().any(|kind| !TYPES.contains(kind)) {
            return call.respond(&answer.with_error_code(ResponseError::UnsupportedVersion.code()));
        }
        let wanted = |kind: &&i8| match call.version {
            0 => **kind == CLIENT_METRICS,
            _ => asked.is_empty() || asked.contains(kind),
        };
        let snapshot = call.edge.snapshot();
        // Type by type, each once: named again and again, one would make a giant answer to a small request.
        let found = TYPES.iter().filter(wanted).flat_map(|kind| resources(&snapshot, *kind));
        call.respond(&answer.with_config_resources(found.collect()))
    })
}

fn resources(snapshot: &ClusterSnapshot, kind: i8) -> Vec<ConfigResource> {
    let names = match kind {
        TOPIC => snapshot.topics.keys().map(|name| name.to_string()).collect(),
        GROUP => snapshot.altered.groups.keys().cloned().collect(),
        BROKER | BROKER_LOGGER => vec![snapshot.broker.node.to_string()],
        _ => Vec::new(),
    };
    let one = |name| ConfigResource::default().with_resource_name(StrBytes::from_string(name)).with_resource_type(kind);
    names.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::FakeBroker;

    fn list(fake: &FakeBroker, version: i16, kinds: &[i8]) -> (i16, Vec<(i8, String)>) {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let answer: ListConfigResourcesResponse = fake.finish(fake.ask(&API, version, &request));
        let found = answer.config_resources.into_iter().map(|r| (r.resource_type, r.resource_name.to_string()));
        (answer.error_code, found.collect())
    }

    #[test]
    fn each_type_has_its_names() {
        let fake = FakeBroker::new(1, &[("a", 1), ("b", 1)]);
        let own = |kind, name: &str| (kind, name.to_owned());
        let topics = vec![own(TOPIC, "a"), own(TOPIC, "b")];
        assert_eq!(list(&fake, 1, &[TOPIC]), (0, topics.clone()));
        assert_eq!(list(&fake, 1, &[TOPIC, TOPIC]), (0, topics.clone()), "once");
        assert_eq!(list(&fake, 1, &[GROUP, CLIENT_METRICS]), (0, Vec::new()));
        let all = [topics, vec![own(BROKER, "1"), own(BROKER_LOGGER, "1")]].concat();
        assert_eq!(list(&fake, 1, &[]), (0, all));
        assert_eq!(list(&fake, 1, &[TOPIC, 3]), (35, Vec::new()));
        assert_eq!(list(&fake, 0, &[]), (0, Vec::new()), "client metrics only");
    }
}
