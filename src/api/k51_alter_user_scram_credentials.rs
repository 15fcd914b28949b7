//! AlterUserScramCredentials (k51, KIP-554): sets and deletes credentials, user by user. Of a salted password only what follows from it
//! is kept.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, ApiKey,
        alter_user_scram_credentials_request::ScramCredentialUpsertion,
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
    },
    protocol::StrBytes,
};

use super::{
    Api, Call, Handled, Stopping,
    access::{self, UNAUTHORIZED},
    control,
    errors::ToKafka,
    message,
};
use crate::{
    auth::scram::{ITERATIONS, MAX_USER_BYTES, Mechanism, ScramCredential},
    cluster::{ControlRequest, ScramChange},
};

/// How k51 is served.
pub const API: Api = Api::new(ApiKey::AlterUserScramCredentials, 0, 0, handle);

/// The longest salt, and the longest salted password; a hash has 64 bytes at most.
const MAX_SALT_BYTES: usize = 1024;

/// Why nothing of a user is altered.
type Refusal = (ResponseError, String);
/// What is asked for one user.
type Changes = BTreeMap<Mechanism, ScramChange>;

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: AlterUserScramCredentialsRequest = call.decode(body)?;
        let asked = sort_out(request);
        let results = match call.access().check_cluster(access::ALTER_CLUSTER) {
            Ok(()) => alter(&call, asked).await?,
            Err(error) => asked.into_keys().map(|user| told(user, Err((error, UNAUTHORIZED.to_owned())))).collect(),
        };
        call.respond(&AlterUserScramCredentialsResponse::default().with_results(results))
    })
}

/// By user: the changes, or the first thing that is wrong with them.
fn sort_out(request: AlterUserScramCredentialsRequest) -> BTreeMap<String, Result<Changes, Refusal>> {
    let deletions = request.deletions.into_iter().map(|deletion| {
        let mechanism = checked(&deletion.name, deletion.mechanism);
        (deletion.name, mechanism.map(|mechanism| (mechanism, ScramChange::Delete)))
    });
    let upsertions = request.upsertions.into_iter().map(|upsertion| {
        let set = checked(&upsertion.name, upsertion.mechanism).and_then(|mechanism| set(mechanism, &upsertion));
        (upsertion.name, set)
    });
    let mut users: BTreeMap<String, Result<Changes, Refusal>> = BTreeMap::new();
    for (user, change) in deletions.chain(upsertions) {
        let of_user = users.entry(user.to_string()).or_insert_with(|| Ok(Changes::new()));
        let Ok(changes) = of_user else { continue };
        match change {
            // As Kafka has it: a user is altered once, whatever the mechanism.
            Ok((mechanism, change)) if changes.is_empty() => drop(changes.insert(mechanism, change)),
            Ok(_) => {
                let why = "A user credential cannot be altered twice in the same request";
                *of_user = Err((ResponseError::DuplicateResource, why.to_owned()));
            }
            Err(refusal) => *of_user = Err(refusal),
        }
    }
    users
}

fn checked(user: &StrBytes, mechanism: i8) -> Result<Mechanism, Refusal> {
    let unacceptable = |why: &str| Err((ResponseError::UnacceptableCredential, why.to_owned()));
    match Mechanism::of(mechanism) {
        _ if user.is_empty() => unacceptable("Username must not be empty"),
        _ if user.len() > MAX_USER_BYTES => unacceptable("Username is too long"),
        None => Err((ResponseError::UnsupportedSaslMechanism, "Unknown SCRAM mechanism".to_owned())),
        Some(mechanism) => Ok(mechanism),
    }
}

fn set(mechanism: Mechanism, asked: &ScramCredentialUpsertion) -> Result<(Mechanism, ScramChange), Refusal> {
    let unacceptable = |why: &str| Err((ResponseError::UnacceptableCredential, why.to_owned()));
    match asked.iterations {
        few if few < *ITERATIONS.start() => unacceptable("Too few iterations"),
        many if many > *ITERATIONS.end() => unacceptable("Too many iterations"),
        _ if asked.salt.len().max(asked.salted_password.len()) > MAX_SALT_BYTES => unacceptable("Salt is too long"),
        iterations => {
            let credential = ScramCredential::new(mechanism, &asked.salt, &asked.salted_password, iterations);
            Ok((mechanism, ScramChange::Set(credential)))
        }
    }
}

async fn alter(
    call: &Call,
    asked: BTreeMap<String, Result<Changes, Refusal>>,
) -> Result<Vec<AlterUserScramCredentialsResult>, Stopping> {
    let good = asked.iter().filter_map(|(user, changes)| Some((user.clone(), changes.as_ref().ok()?.clone())));
    let users: Vec<(String, Changes)> = good.collect();
    let mut results = control::ask(&call.edge, |reply| ControlRequest::AlterScram { users, reply }).await?.into_iter();
    let answered = asked.into_iter().map(|(user, changes)| {
        let result = changes.and_then(|_| {
            let result = results.next().expect("control answers for each user");
            result.map_err(|error| (error.to_kafka(), error.to_string()))
        });
        told(user, result)
    });
    Ok(answered.collect())
}

fn told(user: String, result: Result<(), Refusal>) -> AlterUserScramCredentialsResult {
    let answer = AlterUserScramCredentialsResult::default().with_user(StrBytes::from_string(user));
    match result {
        Ok(()) => answer.with_error_message(None),
        Err((error, why)) => answer.with_error_code(error.code()).with_error_message(Some(message(&why))),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialDeletion;

    use super::*;
    use crate::{
        api::fake::{AUTHORIZED, FakeBroker},
        cluster::ControlError,
    };

    fn upsertion(user: &'static str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
        ScramCredentialUpsertion::default()
            .with_name(StrBytes::from_static_str(user))
            .with_mechanism(mechanism)
            .with_iterations(iterations)
            .with_salt(Bytes::from_static(b"salt"))
            .with_salted_password(Bytes::from_static(b"salted password"))
    }

    fn deletion(user: &'static str, mechanism: i8) -> ScramCredentialDeletion {
        ScramCredentialDeletion::default().with_name(StrBytes::from_static_str(user)).with_mechanism(mechanism)
    }

    fn codes(answer: AlterUserScramCredentialsResponse) -> Vec<(String, i16)> {
        answer.results.into_iter().map(|result| (result.user.to_string(), result.error_code)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_by_user_and_the_rest_is_altered() {
        let fake = FakeBroker::new(1, &[]);
        let request = AlterUserScramCredentialsRequest::default()
            .with_deletions(vec![deletion("gone", 1), deletion("twice", 1)])
            .with_upsertions(vec![
                upsertion("good", 1, 4096),
                upsertion("both", 1, 4096),
                upsertion("both", 2, 16384),
                upsertion("few", 1, 4095),
                upsertion("many", 1, 16385),
                upsertion("strange", 3, 4096),
                upsertion("twice", 1, 4096),
                upsertion("", 1, 4096),
            ]);
        let asked = fake.ask(&API, 0, &request);
        let ControlRequest::AlterScram { users, reply } = fake.control_request() else { panic!("not credentials") };
        let names: Vec<(&str, usize)> = users.iter().map(|(user, changes)| (user.as_str(), changes.len())).collect();
        assert_eq!(names, [("gone", 1), ("good", 1)]);
        let unknown = ControlError::UnknownCredential("not there".to_owned());
        reply.try_send(vec![Err(unknown), Ok(())]).expect("awaited");
        let own = |user: &str, code| (user.to_owned(), code);
        let expected = [
            own("", 93),
            own("both", 92),
            own("few", 93),
            own("gone", 91),
            own("good", 0),
            own("many", 93),
            own("strange", 33),
            own("twice", 92),
        ];
        assert_eq!(codes(fake.finish(asked)), expected);
    }

    #[test]
    fn a_user_has_a_name_that_can_be_stored() {
        let named = |bytes: usize| {
            let user = StrBytes::from_string("u".repeat(bytes));
            let upsertion = upsertion("", 1, 4096).with_name(user);
            let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion]);
            sort_out(request).into_values().next().expect("one user").map(drop).map_err(|(error, _)| error)
        };
        assert_eq!(named(MAX_USER_BYTES), Ok(()));
        assert_eq!(named(MAX_USER_BYTES + 1), Err(ResponseError::UnacceptableCredential));
    }

    #[test]
    fn who_may_not_alter_the_cluster_alters_nothing() {
        let fake = FakeBroker::with(AUTHORIZED, 1, &[]);
        let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![upsertion("a", 1, 4096)]);
        assert_eq!(codes(fake.finish(fake.ask(&API, 0, &request))), [("a".to_owned(), 31)]);
        assert!(fake.control.is_empty());
    }
}
