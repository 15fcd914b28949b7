//! Rules and credentials through the actors, a crash and a rebuild.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_lite::future::block_on;
use thalweg_objectstore::MemoryStore as Objects;

use super::*;
use crate::{
    auth::{scram::MAX_USER_BYTES, tests::rule},
    cluster::{
        Cluster, ConfigOp, ConfigTarget, ControlRequest, LogNotes,
        bucket::rebuild,
        store::{MemoryStore, open_sled},
        tests::{Running, World, run_with, settings_of, topic},
    },
};

fn create(running: &Running, rules: &[&str]) -> Vec<Result<(), ControlError>> {
    let rules = rules.iter().map(|text| rule(text)).collect();
    running.control(|reply| ControlRequest::CreateAcls { rules, reply })
}

fn delete(running: &Running, codes: [i8; 4], name: Option<&str>) -> Vec<AclBinding> {
    let filters = vec![AclFilter::new(codes, [name.map(str::to_owned), None, None]).expect("known codes")];
    running.control(|reply| ControlRequest::DeleteAcls { filters, reply }).remove(0).expect("few enough")
}

fn alter(running: &Running, user: &str, changes: &[(Mechanism, ScramChange)]) -> Result<(), ControlError> {
    let users = vec![(user.to_owned(), changes.iter().cloned().collect())];
    running.control(|reply| ControlRequest::AlterScram { users, reply }).remove(0)
}

fn set(iterations: i32) -> ScramChange {
    ScramChange::Set(ScramCredential::new(Mechanism::Sha256, b"salt", b"password", iterations))
}

fn rules(snapshot: &crate::cluster::ClusterSnapshot) -> Vec<AclBinding> {
    snapshot.acls.iter().cloned().collect()
}

const READ: &str = "topic literal a User:x * read allow";
const WRITE: &str = "topic literal a User:x * write allow";
const PREFIX: &str = "topic prefixed a User:y * all deny";

#[test]
fn rules_are_in_force_when_answered_and_survive_a_crash() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    assert_eq!(create(&running, &[WRITE, READ, READ]), [Ok(()), Ok(()), Ok(())], "once more is as good");
    assert_eq!(rules(&running.snapshot()), [rule(READ), rule(WRITE)]);
    assert_eq!(create(&running, &[PREFIX]), [Ok(())]);
    let wrong = create(&running, &["cluster literal a User:x * read allow"]);
    assert!(matches!(wrong[..], [Err(ControlError::InvalidRequest(_))]));
    assert_eq!(delete(&running, [2, 3, 4, 1], Some("a")), [rule(WRITE)]);
    assert_eq!(delete(&running, [3, 1, 1, 1], None), []);
    let expected = [rule(READ), rule(PREFIX)];
    assert_eq!(rules(&running.snapshot()), expected);
    world.store.crash();
    drop(running.stop());
    world.store.crash();
    let after = world.open();
    assert_eq!(rules(&after.snapshot()), expected);
    let running = run_with(after, None);
    assert_eq!(delete(&running, [1, 1, 1, 1], None), expected);
    assert!(rules(&running.snapshot()).is_empty());
    running.stop();
}

#[test]
fn a_rule_may_be_meant_by_several_filters() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    create(&running, &[READ, WRITE]);
    let filter = |operation| AclFilter::new([1, 1, operation, 1], [None, None, None]).expect("known codes");
    let mut filters = vec![filter(1), filter(3)];
    filters.extend(std::iter::repeat_n(filter(5), MAX_FILTERS));
    let deleted = running.control(|reply| ControlRequest::DeleteAcls { filters, reply });
    assert_eq!(deleted[0], Ok(vec![rule(READ), rule(WRITE)]));
    assert_eq!(deleted[1], Ok(vec![rule(READ)]));
    assert!(deleted[2..MAX_FILTERS].iter().all(|filter| *filter == Ok(vec![])));
    assert!(deleted[MAX_FILTERS..].iter().all(|filter| matches!(filter, Err(ControlError::TooMany(_)))));
    running.stop();
}

#[test]
fn rules_have_a_bound() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    let of = |n: usize| AclBinding { name: format!("{n:05}{}", "x".repeat(30_000)), ..rule(READ) };
    let many = MAX_RULES_BYTES / of(0).charged_bytes();
    let results = running.control(|reply| ControlRequest::CreateAcls { rules: (0..=many).map(of).collect(), reply });
    assert!(results[..many].iter().all(Result::is_ok));
    assert!(matches!(results[many], Err(ControlError::TooMany(_))));
    assert_eq!(delete(&running, [1, 1, 1, 1], Some(&of(0).name)).len(), 1);
    let again = running.control(|reply| ControlRequest::CreateAcls { rules: vec![of(many)], reply });
    assert_eq!(again, [Ok(())], "there is room again");
    running.stop();
}

#[test]
fn credentials_of_a_user_change_together_or_not_at_all() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    let both = [(Mechanism::Sha256, set(4096)), (Mechanism::Sha512, set(5000))];
    assert_eq!(alter(&running, "a", &both), Ok(()));
    let missing = alter(&running, "b", &[(Mechanism::Sha256, ScramChange::Delete), (Mechanism::Sha512, set(4096))]);
    assert!(matches!(missing, Err(ControlError::UnknownCredential(_))));
    assert_eq!(
        alter(&running, "a", &[(Mechanism::Sha256, ScramChange::Delete), (Mechanism::Sha512, set(6000))]),
        Ok(())
    );
    let expected = vec![(("a".to_owned(), Mechanism::Sha512), 6000)];
    let told = |snapshot: &crate::cluster::ClusterSnapshot| -> Vec<((String, Mechanism), i32)> {
        snapshot.scram.iter().map(|(key, credential)| (key.clone(), credential.iterations)).collect()
    };
    assert_eq!(told(&running.snapshot()), expected);
    drop(running.stop());
    world.store.crash();
    assert_eq!(told(&world.open().snapshot()), expected);
}

#[test]
fn the_longest_user_has_a_place_in_the_store() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let objects = Objects::new();
    let open = || Cluster::open(settings_of(1, Path::new(dir.path()), 3), &open_sled, &objects).expect("opens");
    let running = run_with(open(), None);
    let user = "u".repeat(MAX_USER_BYTES);
    assert_eq!(alter(&running, &user, &[(Mechanism::Sha256, set(4096))]), Ok(()));
    drop(running.stop());
    assert!(open().snapshot().scram.contains_key(&(user, Mechanism::Sha256)));
}

#[test]
fn changes_of_one_user_are_one_transaction_and_touch_no_rules() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    create(&running, &[READ]);
    let before = running.snapshot();
    alter(&running, "a", &[(Mechanism::Sha256, set(4096)), (Mechanism::Sha512, set(4096))]).expect("set");
    let after = running.snapshot();
    assert_eq!(after.revision, before.revision + 1);
    assert!(Arc::ptr_eq(&before.acls, &after.acls) && after.scram.len() == 2);
    create(&running, &[WRITE]);
    assert!(Arc::ptr_eq(&after.scram, &running.snapshot().scram));
    running.stop();
}

#[test]
fn credentials_have_a_bound() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    let one = set(4096);
    let with = |mechanisms: &[Mechanism]| mechanisms.iter().map(|mechanism| (*mechanism, one.clone())).collect();
    let users = (1..MAX_CREDENTIALS).map(|n| (format!("u{n}"), with(&[Mechanism::Sha256]))).collect();
    let results = running.control(|reply| ControlRequest::AlterScram { users, reply });
    assert!(results.iter().all(Result::is_ok), "one is left");
    let two = [(Mechanism::Sha256, one.clone()), (Mechanism::Sha512, one.clone())];
    assert!(matches!(alter(&running, "new", &two), Err(ControlError::TooMany(_))), "both or none");
    assert_eq!(alter(&running, "new", &two[..1]), Ok(()));
    assert!(matches!(alter(&running, "other", &two[..1]), Err(ControlError::TooMany(_))));
    assert_eq!(alter(&running, "new", &two[..1]), Ok(()), "in place of what is there");
    let exchange = [(Mechanism::Sha256, ScramChange::Delete), (Mechanism::Sha512, one)];
    assert_eq!(alter(&running, "new", &exchange), Ok(()));
    running.stop();
}

#[test]
fn a_full_disk_takes_nothing_new_and_lets_everything_go() {
    let mut world = World::new();
    let full = Arc::new(AtomicBool::new(false));
    let running = run_with(world.open_beside(&full), None);
    let configure = |name: &str, value: &str| vec![ConfigOp::Set(name.to_owned(), value.to_owned())];
    let of_topic = || ConfigTarget::Topic("t".to_owned());
    running.create_one("t", 1);
    create(&running, &[READ]);
    alter(&running, "a", &[(Mechanism::Sha256, set(4096))]).expect("room");
    running.alter_of(ConfigTarget::Broker, configure("no.such", "value"), false).expect("room");
    running.alter_of(of_topic(), configure("segment.ms", "70000"), false).expect("room");
    full.store(true, Ordering::SeqCst);
    let refused =
        |result: Result<(), ControlError>| assert!(matches!(result, Err(ControlError::DiskFull(_))), "{result:?}");
    refused(running.create(vec![topic("new", 1)]).remove(0).map(drop));
    refused(create(&running, &[WRITE]).remove(0));
    assert_eq!(create(&running, &[READ]), [Ok(())], "it is there");
    refused(alter(&running, "b", &[(Mechanism::Sha256, set(4096))]));
    refused(alter(&running, "a", &[(Mechanism::Sha256, set(5000))]));
    refused(running.alter_of(ConfigTarget::Broker, configure("no.such", "other"), false));
    refused(running.alter_of(ConfigTarget::Group("g".into()), configure("streams.num.standby.replicas", "1"), false));
    refused(running.alter_of(of_topic(), configure("segment.ms", "80000"), false));
    assert_eq!(running.alter_of(of_topic(), configure("segment.ms", "70000"), false), Ok(()), "as it is");
    assert_eq!(running.alter_of(of_topic(), configure("retention.ms", "1000"), false), Ok(()), "it makes room");
    assert_eq!(running.alter_of(ConfigTarget::Broker, configure("log.retention.ms", "1000"), false), Ok(()));
    assert_eq!(running.alter_of(ConfigTarget::Broker, configure("no.such", "less"), false), Ok(()));
    assert_eq!(running.alter_of(of_topic(), vec![ConfigOp::Delete("segment.ms".into())], false), Ok(()));
    assert_eq!(alter(&running, "a", &[(Mechanism::Sha256, ScramChange::Delete)]), Ok(()));
    assert_eq!(delete(&running, [1, 1, 1, 1], None), [rule(READ)]);
    full.store(false, Ordering::SeqCst);
    assert_eq!(create(&running, &[WRITE]), [Ok(())], "there is room again");
    running.stop();
}

#[test]
fn the_bucket_alone_brings_rules_and_credentials_back() {
    let mut world = World::new();
    let running = run_with(world.open(), None);
    create(&running, &[READ, PREFIX]);
    alter(&running, "a", &[(Mechanism::Sha512, set(4096))]).expect("set");
    let ended = running.stop();
    let before = ended.snapshot();
    let objects: Arc<Objects> = Arc::new(world.objects.clone());
    ended.write_last_snapshot(objects, Duration::from_secs(10)).expect("written");
    let store = Arc::new(MemoryStore::new());
    let rebuilt = block_on(rebuild::rebuild(&world.objects, store.clone(), &rebuild::tests::settings(), &LogNotes))
        .expect("rebuilt");
    let note = "access rules, credentials and altered settings are those of snapshot 1";
    assert!(rebuilt.notes.iter().any(|told| told == note), "{:?}", rebuilt.notes);
    let mut elsewhere = World { objects: world.objects.clone(), ..World::new() };
    let after = elsewhere.open_on(store).snapshot();
    assert_eq!((rules(&after), &after.scram), (rules(&before), &before.scram));
    assert_eq!(rules(&after).len(), 2);
}
