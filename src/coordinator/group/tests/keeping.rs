//! Committed offsets: stored, shown, forgotten.

use super::bench::*;
use crate::{api::fake::snapshot, config::Config, coordinator::group::GroupConfig};

const DAY_MS: u64 = 24 * 3_600_000;

#[test]
fn a_commit_is_shown_when_it_is_durable() {
    let mut bench = Bench::new();
    bench.hold = true;
    let ticket = bench.send(GroupEvent::Commit(commit("", -1, "t", 7)));
    assert!(bench.waits(ticket));
    assert_eq!(bench.offset_of("t"), None);
    bench.complete(Ok(()));
    assert_eq!(bench.answer(ticket), Ok(GroupAnswer::Committed(vec![Ok(())])));
    let found = bench.offset_of("t").expect("committed");
    assert_eq!((found.offset, found.leader_epoch, &*found.metadata), (7, 3, "note"));
    // A failed one changes nothing.
    let ticket = bench.send(GroupEvent::Commit(commit("", -1, "t", 9)));
    bench.complete(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.answer(ticket), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.offset_of("t"), Some(found.clone()));
    assert_eq!(bench.crash().offset_of("t"), Some(found));
}

#[test]
fn who_may_commit() {
    let mut bench = Bench::new();
    let old = CommitRequest { knows_missing_group: false, ..commit("m", 3, "t", 1) };
    assert_eq!(bench.ask(GroupEvent::Commit(old)), Err(GroupError::IllegalGeneration));
    assert_eq!(bench.ask(GroupEvent::Commit(commit("m", 3, "t", 1))), Err(GroupError::GroupIdNotFound));

    let id = bench.stable_one();
    assert!(bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 1))).is_ok());
    assert_eq!(bench.ask(GroupEvent::Commit(commit("", -1, "t", 2))), Err(GroupError::UnknownMember));
    assert_eq!(bench.ask(GroupEvent::Commit(commit("x", 1, "t", 2))), Err(GroupError::UnknownMember));
    assert_eq!(bench.ask(GroupEvent::Commit(commit(&id, 0, "t", 2))), Err(GroupError::IllegalGeneration));
    // Commits are heartbeats.
    for _ in 0..5 {
        bench.pass(6_000);
        assert!(bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 3))).is_ok());
    }
    // During the first phase of a rebalance members still commit, for the generation they have.
    let (second, ticket) = bench.join_both_steps("b");
    assert!(bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 4))).is_ok());
    let rejoin = bench.send(GroupEvent::Join(join(&id, "")));
    bench.joined(rejoin);
    bench.joined(ticket);
    assert_eq!(bench.ask(GroupEvent::Commit(commit(&second, 2, "t", 5))), Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.offset_of("t").map(|o| o.offset), Some(4));
}

#[test]
fn metadata_has_a_limit_of_its_own() {
    let mut bench = Bench::new();
    let mut request = commit("", -1, "t", 1);
    let long = NewOffset { offset: 2, leader_epoch: -1, metadata: "x".repeat(4097).into() };
    request.offsets.push(("u".into(), 0, long.clone()));
    let fits = NewOffset { metadata: "x".repeat(4096).into(), ..long };
    request.offsets.push(("v".into(), 0, fits));
    let answer = bench.ask(GroupEvent::Commit(request));
    let expected = vec![Ok(()), Err(GroupError::OffsetMetadataTooLarge), Ok(())];
    assert_eq!(answer, Ok(GroupAnswer::Committed(expected)));
    assert_eq!((bench.offset_of("u"), bench.offset_of("v").map(|o| o.metadata.len())), (None, Some(4096)));
}

#[test]
fn all_offsets_are_listed_in_order_and_an_unknown_group_has_none() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(GroupEvent::Fetch(None)), Ok(GroupAnswer::Offsets(Vec::new())));
    assert_eq!(bench.offset_of("t"), None);
    assert_eq!(bench.partition.list().count(), 0, "asking creates no group");
    for topic in ["b", "a"] {
        assert!(bench.ask(GroupEvent::Commit(commit("", -1, topic, 1))).is_ok());
    }
    let Ok(GroupAnswer::Offsets(found)) = bench.ask(GroupEvent::Fetch(None)) else { panic!("not fetched") };
    let topics: Vec<&str> = found.iter().map(|(topic, _)| &**topic).collect();
    assert_eq!(topics, ["a", "b"]);
}

#[test]
fn a_simple_groups_offsets_expire_by_their_commit() {
    let mut bench = Bench::new();
    bench.ask(GroupEvent::Commit(commit("", -1, "t", 1))).expect("committed");
    bench.pass(3 * DAY_MS);
    bench.ask(GroupEvent::Commit(commit("", -1, "u", 1))).expect("committed");
    bench.pass(4 * DAY_MS);
    bench.sweep();
    assert_eq!((bench.offset_of("t"), bench.offset_of("u").is_some()), (None, true));
    bench.pass(3 * DAY_MS);
    bench.sweep();
    assert_eq!(bench.partition.list().count(), 0);
    assert_eq!(bench.crash().partition.list().count(), 0, "the tombstones are in the log");
}

#[test]
fn offsets_are_kept_as_long_as_the_setting_says() {
    let config = Config::with(&[("offsets.retention.minutes", "3")]).expect("valid");
    let mut bench = Bench::new();
    bench.config = GroupConfig::of(&config);
    bench.ask(GroupEvent::Commit(commit("", -1, "t", 1))).expect("committed");
    bench.pass(3 * 60_000 - 1);
    bench.sweep();
    assert!(bench.offset_of("t").is_some());
    bench.pass(1);
    bench.sweep();
    assert_eq!(bench.offset_of("t"), None);
}

#[test]
fn an_expiry_of_the_clients_own_wins() {
    let mut bench = Bench::new();
    let request = CommitRequest { retention_ms: Some(1_000), ..commit("", -1, "t", 1) };
    bench.ask(GroupEvent::Commit(request)).expect("committed");
    let mut bench = bench.crash();
    bench.pass(999);
    bench.sweep();
    assert!(bench.offset_of("t").is_some());
    bench.pass(1);
    bench.sweep();
    assert_eq!(bench.offset_of("t"), None);
}

#[test]
fn a_groups_offsets_expire_when_it_was_empty_for_long() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 1))).expect("committed");
    bench.pass(5_000);
    bench.ask(leave(&id)).expect("left");
    bench.pass(7 * DAY_MS - 1);
    bench.sweep();
    assert_eq!(bench.state(), GroupState::Empty);
    bench.pass(1);
    bench.sweep();
    assert_eq!(bench.state(), GroupState::Dead);
    assert_eq!(bench.crash().partition.list().count(), 0);
}

#[test]
fn live_subscriptions_never_expire_and_abandoned_topics_do() {
    let mut bench = Bench::new();
    bench.config.max_session_timeout_ms = i32::MAX;
    let mut request = join("", "a");
    request.session_timeout_ms = i32::MAX;
    request.must_know_id = false;
    let ticket = bench.send(GroupEvent::Join(request));
    let id = bench.joined(ticket).member_id;
    let ticket = bench.send(sync(&id, 1, &[]));
    bench.synced(ticket);
    for topic in ["t", "elsewhere"] {
        bench.ask(GroupEvent::Commit(commit(&id, 1, topic, 1))).expect("committed");
    }
    bench.pass(8 * DAY_MS);
    bench.sweep();
    assert_eq!((bench.offset_of("t").is_some(), bench.offset_of("elsewhere")), (true, None));
}

#[test]
fn topics_that_are_deleted_take_their_offsets_along() {
    let mut bench = Bench::new();
    for topic in ["t", "u"] {
        bench.ask(GroupEvent::Commit(commit("", -1, topic, 1))).expect("committed");
    }
    bench.turn(|partition, turn| partition.forget_topics(turn, &|topic| topic == "t"));
    assert_eq!((bench.offset_of("t"), bench.offset_of("u").is_some()), (None, true));
    assert_eq!(bench.crash().offset_of("t"), None);
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(GroupEvent::Delete), Err(GroupError::GroupIdNotFound));
    let id = bench.stable_one();
    bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 1))).expect("committed");
    assert_eq!(bench.ask(GroupEvent::Delete), Err(GroupError::NonEmptyGroup));
    bench.ask(leave(&id)).expect("left");
    bench.hold = true;
    // A commit that is on its way when the group is deleted must not come back with a crash.
    let late = bench.send(GroupEvent::Commit(commit("", -1, "u", 1)));
    let deleting = bench.send(GroupEvent::Delete);
    assert!(bench.waits(deleting));
    assert_eq!(bench.ask(GroupEvent::Join(join("", "b"))), Err(GroupError::CoordinatorNotAvailable));
    bench.complete(Ok(()));
    assert_eq!(bench.answer(deleting), Ok(GroupAnswer::Done));
    assert!(bench.answer(late).is_ok());
    assert_eq!(bench.partition.list().count(), 0);
    assert_eq!(bench.crash().partition.list().count(), 0);
}

#[test]
fn a_deletion_that_is_not_stored_leaves_the_group() {
    let mut bench = Bench::new();
    bench.ask(GroupEvent::Commit(commit("", -1, "t", 1))).expect("committed");
    bench.hold = true;
    let deleting = bench.send(GroupEvent::Delete);
    bench.complete(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.answer(deleting), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!((bench.state(), bench.offset_of("t").is_some()), (GroupState::Empty, true));
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut bench = Bench::new();
    let id = bench.stable_one();
    for topic in ["t", "u"] {
        bench.ask(GroupEvent::Commit(commit(&id, 1, topic, 1))).expect("committed");
    }
    let keys = vec![("t".into(), 0), ("u".into(), 0), ("v".into(), 0)];
    let answer = bench.ask(GroupEvent::DeleteOffsets(keys));
    let expected = vec![Err(GroupError::GroupSubscribedToTopic), Ok(()), Ok(())];
    assert_eq!(answer, Ok(GroupAnswer::OffsetsDeleted(expected)));
    assert_eq!((bench.offset_of("t").is_some(), bench.offset_of("u")), (true, None));
}

#[test]
fn the_census_follows_every_change_and_a_crash() {
    let mut bench = Bench::new();
    let census = |bench: &Bench| {
        let census = bench.partition.census();
        (GroupState::ALL.map(|state| census.in_state(state)), census.members)
    };
    assert_eq!(census(&bench), ([0; 5], 0));
    let id = bench.stable_one();
    assert_eq!(census(&bench), ([0, 0, 0, 1, 0], 1));
    assert!(bench.ask(GroupEvent::Commit(commit(&id, 1, "t", 1))).is_ok());
    assert_eq!((bench.rebalances, bench.commits), (1, 1));
    let mut bench = bench.crash();
    assert_eq!(census(&bench), ([0, 0, 0, 1, 0], 1));
    let joining = bench.send(GroupEvent::Join(join("", "b")));
    assert!(bench.answer(joining).is_err(), "its id first");
    let (_, waiting) = bench.join_both_steps("c");
    assert!(bench.waits(waiting));
    assert_eq!(census(&bench), ([0, 1, 0, 0, 0], 2));
    bench.pass(3_600_000);
    assert_eq!(census(&bench), ([1, 0, 0, 0, 0], 0), "the sessions have ended");
    let so_far = bench.rebalances;
    bench.ask(GroupEvent::Delete).expect("deleted");
    assert_eq!(census(&bench), ([0; 5], 0));
    assert_eq!((bench.rebalances, bench.commits), (so_far, 0), "an empty generation is no rebalance");
}

#[test]
fn positions_are_those_of_groups_in_use_on_topics_that_exist() {
    let mut bench = Bench::new();
    let snapshot = snapshot(1, 2, &[("t", 1), ("u", 4)]);
    let collected = |bench: &Bench, limit| {
        let mut positions = Positions::default();
        positions.collect(&bench.partition, &snapshot, bench.wall, limit);
        let of = |p: Position| (p.group.to_string(), p.topic.to_string(), p.partition.index, p.offset);
        (positions.list.into_iter().map(of).collect::<Vec<_>>(), positions.left_out)
    };
    for (group, topic, offset) in [("a", "t", 7), ("b", "gone", 1), ("b", "u", 9)] {
        bench.send_to(group, GroupEvent::Commit(commit("", -1, topic, offset)));
    }
    let (a, b) = (("a".to_owned(), "t".to_owned(), 0, 7), ("b".to_owned(), "u".to_owned(), 0, 9));
    assert_eq!(collected(&bench, 10), (vec![a.clone(), b.clone()], 0));
    assert_eq!(collected(&bench, 1), (vec![a], 1));
    // Without members an hour after the commit, nobody consumes with it any more.
    bench.pass(3_599_000);
    bench.send_to("b", GroupEvent::Commit(commit("", -1, "t", 8)));
    bench.pass(2_000);
    assert_eq!(collected(&bench, 10).0, [("b".to_owned(), "t".to_owned(), 0, 8), b]);
    let mut loaded = bench.crash();
    assert_eq!(collected(&loaded, 10).0.len(), 2, "a restart changes nothing");
    loaded.pass(3_600_000);
    assert_eq!(collected(&loaded, 10).0, []);
}
