//! DescribeClientQuotas (k48, KIP-546): no quota can be set, so none is told; a filter that is none is refused as in Kafka.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        describe_client_quotas_request::ComponentData,
    },
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    message,
};

/// How k48 is served.
pub const API: Api = Api::asking(ApiKey::DescribeClientQuotas, 0, 1, handle);

/// What quotas are for.
const ENTITIES: &[&str] = &["user", "client-id", "ip"];
/// The match type that names one entity; the others, default (1) and any (2), name none.
const EXACT: i8 = 0;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeClientQuotasRequest = call.decode(body)?;
        let answer = DescribeClientQuotasResponse::default();
        let allowed = call.access().check_cluster(access::SEE_CLUSTER_CONFIGS);
        let refused = allowed.err().map(|error| (error, UNAUTHORIZED.to_owned()));
        call.respond(&match refused.or_else(|| refusal(&request.components)) {
            None => answer.with_error_message(None).with_entries(Some(Vec::new())),
            Some((error, why)) => {
                answer.with_error_code(error.code()).with_error_message(Some(message(&why))).with_entries(None)
            }
        })
    })
}

fn refusal(components: &[ComponentData]) -> Option<(ResponseError, String)> {
    let mut seen = BTreeSet::new();
    for component in components {
        let entity = component.entity_type.as_str();
        let invalid = |why: &str| Some((ResponseError::InvalidRequest, format!("{entity:?}: {why}")));
        if entity.is_empty() {
            return invalid("there is no entity without a type");
        }
        if !seen.insert(entity) {
            return invalid("an entity type may stand in a filter once");
        }
        if !ENTITIES.contains(&entity) {
            return Some((ResponseError::UnsupportedVersion, format!("Unsupported entity type {entity}")));
        }
        match (component.match_type, &component._match) {
            (EXACT, Some(_)) | (1 | 2, None) => {}
            (EXACT, None) => return invalid("an exact match needs a name"),
            (1 | 2, Some(_)) => return invalid("only an exact match has a name"),
            (other, _) => return invalid(&format!("unknown match type {other}")),
        }
    }
    (seen.contains("ip") && seen.len() > 1)
        .then(|| (ResponseError::InvalidRequest, "ip goes with no other entity type".to_owned()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::api::fake::FakeBroker;

    type Asked<'a> = &'a [(&'static str, i8, Option<&'static str>)];

    #[test]
    fn there_are_no_quotas_and_bad_filters_are_refused() {
        let fake = FakeBroker::new(1, &[]);
        let cases: [(Asked, i16); 9] = [
            (&[], 0),
            (&[("user", 0, Some("a")), ("client-id", 1, None)], 0),
            (&[("ip", 2, None)], 0),
            (&[("ip", 2, None), ("user", 2, None)], 42),
            (&[("user", 0, None)], 42),
            (&[("user", 1, Some("a"))], 42),
            (&[("user", 3, None)], 42),
            (&[("user", 1, None), ("user", 2, None)], 42),
            (&[("group", 2, None)], 35),
        ];
        for (asked, code) in cases {
            let component = |(entity, match_type, name): &(&'static str, i8, Option<&'static str>)| {
                ComponentData::default()
                    .with_entity_type(StrBytes::from_static_str(entity))
                    .with_match_type(*match_type)
                    .with_match(name.map(StrBytes::from_static_str))
            };
            let components = asked.iter().map(component).collect();
            let request = DescribeClientQuotasRequest::default().with_components(components);
            for version in 0..=1 {
                let answer: DescribeClientQuotasResponse = fake.finish(fake.ask(&API, version, &request));
                let entries = answer.entries.map(|entries| entries.len());
                assert_eq!((answer.error_code, entries), (code, (code == 0).then_some(0)), "{asked:?}");
            }
        }
    }
}
