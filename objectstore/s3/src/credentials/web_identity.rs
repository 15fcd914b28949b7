//! A role by a web identity (EKS, and others that speak OpenID Connect): the token in `AWS_WEB_IDENTITY_TOKEN_FILE`, which
//! its issuer renews, is exchanged for credentials of `AWS_ROLE_ARN` by STS. The request is not signed.

use std::path::Path;

use hyper::Method;
use url::form_urlencoded::Serializer;

use super::{Keys, Looked, Trouble};
use crate::{
    http::{Answer, Asker, Question},
    place::aws_suffix,
    surroundings::Surroundings,
    xml::element_text,
};

pub(super) async fn look(around: &Surroundings, asker: &Asker, region: Option<&str>) -> Result<Looked, Trouble> {
    let Some(file) = around.variable("AWS_WEB_IDENTITY_TOKEN_FILE") else {
        return Ok(Looked::Nothing("AWS_WEB_IDENTITY_TOKEN_FILE is not set".to_owned()));
    };
    let role = around
        .variable("AWS_ROLE_ARN")
        .ok_or_else(|| Trouble::lasting("AWS_WEB_IDENTITY_TOKEN_FILE is set, AWS_ROLE_ARN is not"))?;
    let session = around.variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "thalweg".to_owned());
    let token = around.read(Path::new(&file)).map_err(Trouble::passing)?;
    let form = Serializer::new(String::new())
        .append_pair("Action", "AssumeRoleWithWebIdentity")
        .append_pair("Version", "2011-06-15")
        .append_pair("RoleArn", &role)
        .append_pair("RoleSessionName", &session)
        .append_pair("WebIdentityToken", token.trim())
        .finish();
    let question = Question { method: Method::POST, uri: endpoint(around, region), headers: Vec::new(), body: form }
        .with("content-type", "application/x-www-form-urlencoded");
    let answer = asker.ask(&question).await.map_err(|e| Trouble::passing(e.into_words()))?;
    read(&answer, &format!("STS at {}", question.uri)).map(Looked::Found)
}

/// STS of the region, or the one for all.
fn endpoint(around: &Surroundings, region: Option<&str>) -> String {
    let given = around.variable("AWS_ENDPOINT_URL_STS").or_else(|| around.variable("AWS_ENDPOINT_URL"));
    let host = given.unwrap_or_else(|| match region {
        Some(region) => format!("https://sts.{region}.{}", aws_suffix(region)),
        None => "https://sts.amazonaws.com".to_owned(),
    });
    format!("{}/", host.trim_end_matches('/'))
}

fn read(answer: &Answer, whose: &str) -> Result<Keys, Trouble> {
    let text = |element: &str| element_text(&answer.body, element);
    if answer.status != 200 {
        // Of the answer only the code is told: the message may quote the request.
        let code = text("Code").filter(|c| c.len() < 100 && c.bytes().all(|b| b.is_ascii_alphanumeric()));
        let code = code.unwrap_or_default();
        let why = format!("{whose} answered HTTP {} {code}", answer.status);
        // The token is renewed by its issuer; the provider behind STS may be down.
        let renewed = ["ExpiredTokenException", "ExpiredToken", "IDPCommunicationError", "Throttling"];
        let passing = answer.status == 429 || answer.status >= 500 || renewed.contains(&code.as_str());
        return Err(Trouble { passing, why: why.trim_end().to_owned() });
    }
    let keys = serde_json::json!({
        "AccessKeyId": text("AccessKeyId"),
        "SecretAccessKey": text("SecretAccessKey"),
        "SessionToken": text("SessionToken"),
        "Expiration": text("Expiration"),
    });
    Keys::from_json(&keys, whose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sts_is_the_regions_own() {
        let nothing = Surroundings::made_up(|_| None, || std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(endpoint(&nothing, Some("eu-north-1")), "https://sts.eu-north-1.amazonaws.com/");
        assert_eq!(endpoint(&nothing, Some("cn-north-1")), "https://sts.cn-north-1.amazonaws.com.cn/");
        assert_eq!(endpoint(&nothing, None), "https://sts.amazonaws.com/");
    }
}
