//! DescribeCluster (k60, KIP-700, KIP-919): the cluster's id, its brokers and controller.

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
        describe_cluster_response::DescribeClusterBroker,
    },
    protocol::StrBytes,
};

use super::{Api, Call, Handled};

/// How k60 is served.
pub const API: Api = Api::asking(ApiKey::DescribeCluster, 0, 2, handle);

/// Endpoint types of the request.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeClusterRequest = call.decode(body)?;
        call.respond(&describe(&call, &request))
    })
}

fn describe(call: &Call, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let refuse = |error: ResponseError, why| {
        DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(why)))
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => return refuse(ResponseError::MismatchedEndpointType, "This is a broker's endpoint."),
        _ => return refuse(ResponseError::UnsupportedEndpointType, "There is no such type of endpoint."),
    }
    let snapshot = call.edge.snapshot();
    let node = BrokerId(snapshot.broker.node.0);
    let broker = DescribeClusterBroker::default()
        .with_broker_id(node)
        .with_host(StrBytes::from_string(call.caller.advertised_host.to_string()))
        .with_port(i32::from(call.caller.advertised_port))
        .with_rack(snapshot.broker.rack.as_ref().map(|rack| StrBytes::from_string(rack.to_string())));
    let operations = match request.include_cluster_authorized_operations {
        true => call.access().cluster_operations(),
        false => i32::MIN,
    };
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(snapshot.cluster_id.to_string()))
        .with_controller_id(node)
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::FakeBroker;

    #[test]
    fn the_broker_is_described_as_its_listener_advertises_it() {
        let fake = FakeBroker::new(1, &[]);
        for version in 0..=2 {
            let answer: DescribeClusterResponse =
                fake.finish(fake.ask(&API, version, &DescribeClusterRequest::default()));
            let broker = &answer.brokers[0];
            assert_eq!((broker.host.as_str(), broker.port, broker.broker_id.0), ("this.example", 9099, 1));
            assert_eq!(broker.rack.as_ref().map(StrBytes::as_str), Some("a"));
            assert_eq!((answer.error_code, answer.controller_id.0), (0, 1));
            assert_eq!((answer.cluster_id.len(), answer.cluster_authorized_operations), (22, i32::MIN));
        }
    }

    #[test]
    fn other_endpoint_types_are_refused() {
        let fake = FakeBroker::new(1, &[]);
        for (endpoint_type, code) in [(2, 114), (3, 115)] {
            let request = DescribeClusterRequest::default()
                .with_endpoint_type(endpoint_type)
                .with_include_cluster_authorized_operations(true);
            let answer: DescribeClusterResponse = fake.finish(fake.ask(&API, 1, &request));
            assert_eq!((answer.error_code, answer.brokers.len()), (code, 0));
        }
        let asked = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let answer: DescribeClusterResponse = fake.finish(fake.ask(&API, 1, &asked));
        assert_eq!(answer.cluster_authorized_operations, 0b1_1111_1010_0000);
    }
}
