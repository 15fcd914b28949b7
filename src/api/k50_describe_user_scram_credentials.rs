//! DescribeUserScramCredentials (k50, KIP-554): no user has credentials: null and an empty list tell of nobody, and a user
//! who is named is not found (91).

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::{
    ResponseError,
    messages::{
        ApiKey, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
        describe_user_scram_credentials_response::DescribeUserScramCredentialsResult,
    },
    protocol::StrBytes,
};

use super::{Api, Call, Handled, message};

/// How k50 is served.
pub const API: Api = Api::asking(ApiKey::DescribeUserScramCredentials, 0, 0, handle);

fn handle(call: Call, body: Bytes) -> Handled {
    Box::pin(async move {
        let request: DescribeUserScramCredentialsRequest = call.decode(body)?;
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for user in request.users.unwrap_or_default() {
            if !once.insert(user.name.clone()) {
                twice.insert(user.name);
            }
        }
        let results = once.into_iter().map(|user| told(&twice, user)).collect();
        call.respond(&DescribeUserScramCredentialsResponse::default().with_error_message(None).with_results(results))
    })
}

fn told(twice: &BTreeSet<StrBytes>, user: StrBytes) -> DescribeUserScramCredentialsResult {
    let (error, why) = if twice.contains(&user) {
        let why = format!("Cannot describe SCRAM credentials for the same user twice in a single request: {user}");
        (ResponseError::DuplicateResource, why)
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
    use crate::api::fake::FakeBroker;

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
}
