//! DescribeUserScramCredentials (k50, KIP-554): mechanisms and iterations of users; null and an empty list ask for all who have
//! credentials, and a user who has none is not found (91).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::{CredentialInfo, DescribeUserScramCredentialsResult},
    },
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled,
    access::{self, UNAUTHORIZED},
    group_lane::wire,
    message,
};
use crate::cluster::ScramCredentials;

/// How k50 is served.
pub const API: Api = Api::asking(ApiKey::DescribeUserScramCredentials, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeUserScramCredentialsRequest = call.decode(body)?;
        let answer = DescribeUserScramCredentialsResponse::default().with_error_message(None);
        if let Err(refused) = call.access().check_cluster(access::SEE_CLUSTER) {
            let why = Some(StrBytes::from_static_str(UNAUTHORIZED));
            return call.respond(&answer.with_error_code(refused.code()).with_error_message(why));
        }
        let snapshot = call.edge.snapshot();
        let known = by_user(&snapshot.scram);
        let users = request.users.unwrap_or_default();
        let results = if users.is_empty() {
            known.iter().map(|(user, infos)| found(wire(user), infos)).collect()
        } else {
            let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
            for user in users {
                if !once.insert(user.name.clone()) {
                    twice.insert(user.name);
                }
            }
            once.into_iter().map(|user| told(&known, &twice, user)).collect()
        };
        call.respond(&answer.with_results(results))
    })
}

fn by_user(credentials: &ScramCredentials) -> BTreeMap<&str, Vec<CredentialInfo>> {
    let mut users: BTreeMap<&str, Vec<CredentialInfo>> = BTreeMap::new();
    for ((user, mechanism), credential) in credentials {
        let info = CredentialInfo::default().with_mechanism(mechanism.code()).with_iterations(credential.iterations);
        users.entry(user).or_default().push(info);
    }
    users
}

fn found(user: StrBytes, infos: &[CredentialInfo]) -> DescribeUserScramCredentialsResult {
    let result = DescribeUserScramCredentialsResult::default().with_user(user).with_error_message(None);
    result.with_credential_infos(infos.to_vec())
}

fn told(
    known: &BTreeMap<&str, Vec<CredentialInfo>>,
    twice: &BTreeSet<StrBytes>,
    user: StrBytes,
) -> DescribeUserScramCredentialsResult {
    let (error, why) = if twice.contains(&user) {
        let why = format!("Cannot describe SCRAM credentials for the same user twice in a single request: {user}");
        (ResponseError::DuplicateResource, why)
    } else if let Some(infos) = known.get(user.as_str()) {
        return found(user, infos);
    } else {
        let why = format!("Attempt to describe a user credential that does not exist: {user}");
        (ResponseError::ResourceNotFound, why)
    };
    DescribeUserScramCredentialsResult::default()
        .with_user(user)
        .with_error_code(error.code())
        .with_error_message(Some(message(&why)))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;

    use super::*;
    use crate::{
        api::fake::{AUTHORIZED, FakeBroker, snapshot},
        auth::scram::{Mechanism, ScramCredential},
    };

    #[test]
    fn nobody_has_credentials() {
        let fake = FakeBroker::new(1, &[]);
        let ask = |users: Option<&[&'static str]>| -> Vec<(String, i16)> {
            let user = |name: &&'static str| UserName::default().with_name(StrBytes::from_static_str(name));
            let users = users.map(|names| names.iter().map(user).collect());
            let request = DescribeUserScramCredentialsRequest::default().with_users(users);
            let answer: DescribeUserScramCredentialsResponse = fake.finish(fake.ask(&API, 0, &request));
            assert_eq!(answer.error_code, 0);
            answer.results.into_iter().map(|result| (result.user.to_string(), result.error_code)).collect()
        };
        assert!(ask(None).is_empty() && ask(Some(&[])).is_empty());
        let own = |name: &str, code| (name.to_owned(), code);
        assert_eq!(ask(Some(&["b", "a", "b"])), [own("a", 91), own("b", 92)]);
    }
    #[test]
    fn mechanisms_and_iterations_are_told_and_nothing_else() {
        let fake = FakeBroker::new(1, &[]);
        let mut newer = snapshot(2, 1, &[]);
        let credential = |mechanism, iterations| ScramCredential::new(mechanism, b"s", b"p", iterations);
        let of = |user: &str, mechanism, iterations| ((user.to_owned(), mechanism), credential(mechanism, iterations));
        let all =
            [of("a", Mechanism::Sha256, 4096), of("a", Mechanism::Sha512, 8192), of("b", Mechanism::Sha512, 5000)];
        std::sync::Arc::get_mut(&mut newer).expect("nobody else holds it yet").scram =
            std::sync::Arc::new(all.into_iter().collect());
        fake.edge.publish(newer);
        let request = DescribeUserScramCredentialsRequest::default().with_users(None);
        let answer: DescribeUserScramCredentialsResponse = fake.finish(fake.ask(&API, 0, &request));
        let told: Vec<(String, Vec<(i8, i32)>)> = (answer.results.into_iter())
            .map(|r| (r.user.to_string(), r.credential_infos.iter().map(|i| (i.mechanism, i.iterations)).collect()))
            .collect();
        assert_eq!(told, [("a".to_owned(), vec![(1, 4096), (2, 8192)]), ("b".to_owned(), vec![(2, 5000)])]);
    }

    #[test]
    fn who_may_not_see_the_cluster_sees_no_users() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        let request = DescribeUserScramCredentialsRequest::default();
        let answer: DescribeUserScramCredentialsResponse = fake.finish(fake.ask(&API, 0, &request));
        assert_eq!((answer.error_code, answer.results.len()), (31, 0));
    }
}
