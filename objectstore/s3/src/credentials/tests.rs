//! Every source against a stand-in of its service, the chain, the cache, and that nothing secret is ever shown.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::testing::{
    ear::Ear,
    stub::{Asked, Hand, Instance, NOW_S, Reply, serve, surroundings, time_text},
};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// The chain as a connection makes it.
fn chain(around: Surroundings) -> Chain {
    let near = near(7);
    let imds = Arc::new(Imds::new(around.clone(), near.clone()));
    Chain::new(around, near, imds, Some("eu-west-1".to_owned()), 7)
}

/// Without a file, an instance, or any variable but these.
fn only(mut variables: Vec<(&'static str, String)>) -> Surroundings {
    variables.push(("AWS_EC2_METADATA_DISABLED", "true".to_owned()));
    surroundings(variables, &Hand::new())
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> String {
    file.path().to_str().expect("text").to_owned()
}

fn parts(keys: &Keys) -> (&str, &str, Option<&str>) {
    (&keys.id, &keys.secret, keys.token.as_deref())
}

#[test]
fn an_instance_is_asked_by_version_2_only_and_its_token_is_kept() {
    let instance = Instance::start();
    let chain = chain(instance.surroundings(vec![]));
    run(async {
        let keys = chain.look().await.expect("credentials");
        assert_eq!(parts(&keys), ("AKID1", "SECRET-key-1", Some("SECRET-session-1")));
        assert_eq!(keys.ends_at_s, Some(NOW_S + 3600));
        assert_eq!(chain.imds.region().await.as_deref(), Ok("eu-north-1"));
        let (token, role) = ("PUT /latest/api/token", "GET /latest/meta-data/iam/security-credentials/");
        let region = "GET /latest/meta-data/placement/region";
        assert_eq!(instance.lines(), [token, role, &format!("{role}my-role"), region]);
        // Lost there: one 401, and another is asked for.
        instance.forgets.store(true, Ordering::SeqCst);
        assert_eq!(chain.imds.region().await.as_deref(), Ok("eu-north-1"));
        assert_eq!(instance.lines()[4..], [region, token, region]);
        // Ended by the clock: not even tried.
        instance.hand.set(21_600);
        assert_eq!(chain.imds.region().await.as_deref(), Ok("eu-north-1"));
        assert_eq!(instance.lines()[7..], [token, region]);
    });
    for asked in instance.seen.lock().expect("a lock").iter() {
        assert!(asked.line.starts_with("PUT") || asked.header("x-aws-ec2-metadata-token").is_some(), "{asked:?}");
    }
}

#[test]
fn an_instance_without_version_2_is_not_asked_otherwise() {
    let (endpoint, seen) = serve(|_, _| Some(Reply::of(403, "")));
    let around = surroundings(vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)], &Hand::new());
    let trouble = run(chain(around).look()).expect_err("no token");
    assert!(!trouble.passing && trouble.why.contains("gives no token: HTTP 403"), "{trouble:?}");
    assert_eq!(seen.lock().expect("a lock").len(), 1);
}

const ROLE: &str = "arn:aws:iam::1:role/r";

fn web_identity(sts: String, token: &tempfile::NamedTempFile) -> Surroundings {
    only(vec![
        ("AWS_WEB_IDENTITY_TOKEN_FILE", path(token)),
        ("AWS_ROLE_ARN", ROLE.to_owned()),
        ("AWS_ROLE_SESSION_NAME", "broker 1".to_owned()),
        ("AWS_ENDPOINT_URL_STS", sts),
    ])
}

#[test]
fn a_web_identity_is_exchanged_for_a_role() {
    let token = file("SECRET+web/token=\n");
    let answer = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>SECRET-s</SessionToken>\
         <SecretAccessKey>SECRET-k</SecretAccessKey><Expiration>{}</Expiration><AccessKeyId>ASIA</AccessKeyId>\
         </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        time_text(NOW_S + 900)
    );
    let (sts, seen) = serve(move |_, _| Some(Reply::of(200, answer.clone())));
    let keys = run(chain(web_identity(sts, &token)).look()).expect("credentials");
    assert_eq!(parts(&keys), ("ASIA", "SECRET-k", Some("SECRET-s")));
    assert_eq!(keys.ends_at_s, Some(NOW_S + 900));
    let asked = seen.lock().expect("a lock")[0].clone();
    assert_eq!(asked.line, "POST /");
    assert_eq!(asked.header("authorization"), None);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        form,
        [
            pair("Action", "AssumeRoleWithWebIdentity"),
            pair("Version", "2011-06-15"),
            pair("RoleArn", ROLE),
            pair("RoleSessionName", "broker 1"),
            pair("WebIdentityToken", "SECRET+web/token="),
        ]
    );
}

#[test]
fn a_container_is_answered_with_its_token() {
    let token = file("SECRET-pod\n");
    let answer = format!(
        "{{\"AccessKeyId\":\"ASIA\",\"SecretAccessKey\":\"SECRET-k\",\"Token\":\"SECRET-s\",\"Expiration\":\"{}\"}}",
        time_text(NOW_S + 900)
    );
    let (endpoint, seen) = serve(move |asked: &Asked, _| {
        let known = asked.header("authorization").as_deref() == Some("SECRET-pod");
        Some(if known { Reply::of(200, answer.clone()) } else { Reply::of(401, "") })
    });
    let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{endpoint}/v1/credentials"));
    let with = |variable, value| only(vec![full.clone(), (variable, value)]);
    let from_file = run(chain(with("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path(&token))).look());
    assert_eq!(parts(&from_file.expect("credentials")), ("ASIA", "SECRET-k", Some("SECRET-s")));
    let from_variable = run(chain(with("AWS_CONTAINER_AUTHORIZATION_TOKEN", "SECRET-pod".to_owned())).look());
    assert!(from_variable.is_ok());
    let wrong = run(chain(with("AWS_CONTAINER_AUTHORIZATION_TOKEN", "SECRET-other".to_owned())).look());
    assert!(wrong.expect_err("refused").why.contains("HTTP 401"));
    assert!(seen.lock().expect("a lock").iter().all(|asked| asked.line == "GET /v1/credentials"));
}

#[test]
fn a_profile_has_keys_in_either_file_and_names_its_region() {
    let keys = file("[default]\naws_access_key_id = AKIA\naws_secret_access_key = SECRET-d\n");
    let config = file(
        "[profile other]\nregion = eu-south-1\naws_access_key_id = AKIO\naws_secret_access_key = SECRET-o\n\
         aws_session_token = SECRET-t\n[profile role]\nrole_arn = arn:x\n",
    );
    let around = |profile: &str| {
        only(vec![
            ("AWS_SHARED_CREDENTIALS_FILE", path(&keys)),
            ("AWS_CONFIG_FILE", path(&config)),
            ("AWS_PROFILE", profile.to_owned()),
        ])
    };
    let look = |profile: &str| run(chain(around(profile)).look());
    assert_eq!(parts(&look("default").expect("credentials")), ("AKIA", "SECRET-d", None));
    assert_eq!(parts(&look("other").expect("credentials")), ("AKIO", "SECRET-o", Some("SECRET-t")));
    assert_eq!(Profile::read(&around("other")).region().as_deref(), Some("eu-south-1"));
    assert!(look("role").expect_err("not supported").why.contains("role_arn"));
    assert!(look("nobody").expect_err("nowhere").why.contains("no profile nobody"));
}

#[test]
fn the_first_that_is_set_up_decides_even_when_it_fails() {
    let instance = Instance::start();
    let keys = vec![
        ("AWS_ACCESS_KEY_ID", "AKIA".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "SECRET-e".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere/token".to_owned()),
        ("AWS_ROLE_ARN", ROLE.to_owned()),
    ];
    let found = run(chain(instance.surroundings(keys.clone())).look()).expect("credentials");
    assert_eq!(parts(&found), ("AKIA", "SECRET-e", None));
    let broken = run(chain(instance.surroundings(keys[2..].to_vec())).look()).expect_err("no token");
    assert!(broken.passing && broken.why.contains("/nowhere/token"), "{broken:?}");
    let half = run(chain(instance.surroundings(keys[..1].to_vec())).look()).expect_err("no secret");
    assert!(!half.passing && half.why.contains("AWS_SECRET_ACCESS_KEY is not"), "{half:?}");
    assert!(instance.lines().is_empty(), "another role than the one that was meant");
}

/// Turns of the runtime until `holds`; what it waits for has been started already.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "never {what}");
        tokio::task::yield_now().await;
    }
}

#[test]
fn credentials_are_renewed_ahead_by_one_flight_and_kept_while_renewing_fails() {
    let (hand, flights, failing) = (Hand::new(), Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(false)));
    let (clock, count, fails) = (hand.clone(), flights.clone(), failing.clone());
    let cache = Cache::new(surroundings(vec![], &hand), move || {
        let (clock, count, fails) = (clock.clone(), count.clone(), fails.clone());
        async move {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            if *fails.lock().expect("a lock") {
                return Err(Trouble::lasting("down"));
            }
            let keys = serde_json::json!({"AccessKeyId": format!("AKID{n}"), "SecretAccessKey": "SECRET",
                "Expiration": time_text(clock.now_s() + 3600)});
            Keys::from_json(&keys, "the test")
        }
        .boxed()
    });
    let flown = || flights.load(Ordering::SeqCst);
    run(async {
        // Nothing at hand: all wait for the same flight.
        let all = futures_util::future::join_all((0..50).map(|_| cache.keys())).await;
        assert!(all.iter().all(|keys| keys.as_ref().is_ok_and(|k| k.id == "AKID1")));
        assert_eq!(flown(), 1);
        hand.set(3299);
        assert!(cache.keys().await.is_ok());
        assert_eq!(flown(), 1, "not yet");
        // Five minutes ahead: nobody waits, one flight.
        hand.set(3300);
        *failing.lock().expect("a lock") = true;
        for _ in 0..50 {
            assert_eq!(cache.keys().await.expect("still good").id, "AKID1");
        }
        until("flown", || flown() == 2).await;
        // It fails: what is there is kept, and after a rest it is tried again.
        until("landed", || cache.is_resting()).await;
        assert_eq!(cache.keys().await.expect("still good").id, "AKID1");
        assert_eq!(flown(), 2);
        hand.set(3316);
        assert!(cache.keys().await.is_ok());
        until("flown again", || flown() == 3).await;
        // At the end it is an error, a passing one, for it has worked before.
        hand.set(3590);
        assert!(cache.keys().await.expect_err("over").passing);
        // Mended.
        *failing.lock().expect("a lock") = false;
        hand.set(3600);
        let mended = cache.keys().await.expect("mended");
        assert_eq!(mended.id, format!("AKID{}", flown()));
    });
}

#[test]
fn what_was_never_there_is_not_a_passing_fault() {
    let cache = Cache::new(only(vec![]), || async { Err(Trouble::lasting("nowhere")) }.boxed());
    assert_eq!(run(cache.keys()).expect_err("nowhere"), Trouble::lasting("nowhere"));
}

/// All ways to get credentials, good and bad, and a request that is signed with them.
async fn everything_with_secrets(ear: &Ear) {
    let token = file("SECRET-web");
    let echo = |status| {
        serve(move |asked: &Asked, _| {
            let said = asked.body.replace('&', " ");
            let body = format!("<Error><Code>InvalidIdentityToken</Code><Message>{said}</Message></Error>");
            Some(Reply::of(status, body))
        })
        .0
    };
    let profile =
        file("[default]\naws_access_key_id = AKIA\naws_secret_access_key = SECRET-p\n[other]\nx = SECRET-x\n");
    let instance = Instance::start();
    let failing = Instance::start();
    failing.fails.store(true, Ordering::SeqCst);
    let pod = |body: &'static str| {
        let uri = serve(move |_, _| Some(Reply::of(200, body))).0;
        let token = "SECRET-pod".to_owned();
        only(vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", token)])
    };
    let all = [
        web_identity(echo(403), &token),
        web_identity(echo(200), &token),
        web_identity("no URL".to_owned(), &token),
        only(vec![("AWS_SHARED_CREDENTIALS_FILE", path(&profile))]),
        only(vec![("AWS_SHARED_CREDENTIALS_FILE", path(&profile)), ("AWS_PROFILE", "other".to_owned())]),
        pod("{\"AccessKeyId\":7,\"SecretAccessKey\":\"SECRET-7\",\"Token\":\"SECRET-8\"}"),
        pod("{\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"SECRET-7\",\"Expiration\":\"SECRET-9\"}"),
        pod("SECRET"),
        failing.surroundings(vec![]),
        instance.surroundings(vec![]),
    ];
    let (mut good, count) = (0, all.len());
    for around in all {
        let chain = chain(around.clone());
        ear.hear(format_args!("{around:?} {chain:?}"));
        let looked = chain.look().await;
        good += usize::from(looked.is_ok());
        // The secret's own type hides it; the error has none.
        ear.hear(format_args!("{looked:?}"));
        ear.hear(looked.err().map(|t| t.why).unwrap_or_default());
    }
    assert_eq!((good, count), (2, 10));
}

#[test]
fn nothing_secret_is_logged_or_shown() {
    Ear::alone(|ear| run(everything_with_secrets(ear)));
}

#[test]
fn a_process_prints_credentials() {
    let around = |command: &str| {
        let config = file(&format!("[default]\ncredential_process = {command}\n"));
        let found = run(chain(only(vec![("AWS_CONFIG_FILE", path(&config))])).look());
        found.map_err(|trouble| trouble.why)
    };
    let keys =
        "{\"Version\":1,\"AccessKeyId\":\"AKIP\",\"SecretAccessKey\":\"SECRET-p\",\"SessionToken\":\"SECRET-s\"}";
    let found = around(&format!("echo '{keys}'")).expect("credentials");
    assert_eq!(parts(&found), ("AKIP", "SECRET-p", Some("SECRET-s")));
    for (command, says) in [
        ("sh -c 'echo SECRET-noise; exit 3'".to_owned(), "exit status: 3"),
        // No shell: what follows is a word of the command's.
        (format!("echo '{keys}'; exit 3"), "did not print credentials of version 1"),
        ("echo 'SECRET-unclosed".to_owned(), "is no command"),
        ("yes SECRET-noise".to_owned(), "ended with signal"),
        ("echo SECRET-noise".to_owned(), "did not print credentials of version 1"),
        ("echo '{\"Version\":1,\"AccessKeyId\":\"SECRET-id\"}'".to_owned(), "something other than credentials"),
    ] {
        let why = around(&command).expect_err("refused");
        assert!(why.contains(says) && !why.contains("SECRET"), "{why}");
    }
}
