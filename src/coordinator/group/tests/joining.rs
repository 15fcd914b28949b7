//! Members come, go, and rebalance.

use super::bench::*;

#[test]
fn a_new_member_learns_its_id_first_and_leads_alone() {
    let mut bench = Bench::new();
    let (id, ticket) = bench.join_both_steps("a");
    let joined = bench.joined(ticket);
    assert_eq!((joined.generation, &joined.leader, &joined.member_id), (1, &id, &id));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    assert_eq!(bench.heartbeat(&id, 1), Ok(()), "clients beat before they sync");
    let ticket = bench.send(sync(&id, 1, &[(&id, "all")]));
    assert_eq!(bench.synced(ticket), "all");
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn an_old_client_joins_in_one_step() {
    let mut bench = Bench::new();
    let ticket = bench.send(GroupEvent::Join(JoinRequest { must_know_id: false, ..join("", "a") }));
    assert_eq!(&*bench.joined(ticket).member_id, "a");
}

#[test]
fn an_id_that_was_handed_out_is_waited_for_until_its_session_ends() {
    let mut bench = Bench::new();
    let first = bench.stable_one();
    let refused = bench.ask(GroupEvent::Join(join("", "b")));
    assert_eq!(refused, Err(GroupError::MemberIdRequired("b".into())));
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    assert!(bench.waits(rejoin), "the pending member holds the rebalance");
    bench.pass(SESSION_MS as u64 - 1);
    assert!(bench.waits(rejoin));
    bench.pass(1);
    assert_eq!(bench.joined(rejoin).members.len(), 1);
    assert_eq!(bench.ask(GroupEvent::Join(join("b", ""))), Err(GroupError::UnknownMember));
}

#[test]
fn a_second_member_makes_the_first_rejoin() {
    let mut bench = Bench::new();
    let first = bench.stable_one();
    let (second, ticket) = bench.join_both_steps("b");
    assert!(bench.waits(ticket));
    assert_eq!(bench.heartbeat(&first, 1), Err(GroupError::RebalanceInProgress));
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    let (leader, follower) = (bench.joined(rejoin), bench.joined(ticket));
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    assert_eq!(follower.leader, first);

    let waiting = bench.send(sync(&second, 2, &[]));
    assert!(bench.waits(waiting), "followers wait for the leader");
    let led = bench.send(sync(&first, 2, &[(&first, "x"), (&second, "y"), ("stranger", "z")]));
    assert_eq!((bench.synced(led), bench.synced(waiting)), ("x".into(), "y".into()));
    // An answer that was lost is given again, without a rebalance.
    let again = bench.send(sync(&second, 2, &[]));
    assert_eq!(bench.synced(again), "y");
    let same = bench.send(GroupEvent::Join(join(&second, "")));
    assert_eq!(bench.joined(same).generation, 2);
    assert_eq!(bench.state(), GroupState::Stable);
    // The leader's rejoin, and changed metadata, rebalance.
    let lead = bench.send(GroupEvent::Join(join(&first, "")));
    assert!(bench.waits(lead));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn changed_metadata_of_a_follower_rebalances() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    let mut changed = join(&second, "");
    changed.protocols[0].1 = subscription(&["t", "u"]);
    let ticket = bench.send(GroupEvent::Join(changed));
    assert!(bench.waits(ticket));
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    assert_eq!((bench.joined(ticket).generation, bench.joined(rejoin).generation), (3, 3));
}

/// A stable group of two, in generation 2, led by the first.
fn pair(bench: &mut Bench) -> (Arc<str>, Arc<str>) {
    let first = bench.stable_one();
    let (second, ticket) = bench.join_both_steps("b");
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    bench.joined(rejoin);
    bench.joined(ticket);
    let waiting = bench.send(sync(&second, 2, &[]));
    let led = bench.send(sync(&first, 2, &[(&first, "x"), (&second, "y")]));
    bench.synced(led);
    bench.synced(waiting);
    (first, second)
}

#[test]
fn who_stops_beating_is_removed_and_the_rest_rebalances() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    bench.pass(6_000);
    assert_eq!(bench.heartbeat(&first, 2), Ok(()));
    bench.pass(4_000);
    assert_eq!(bench.heartbeat(&first, 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.heartbeat(&second, 2), Err(GroupError::UnknownMember));
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    assert_eq!(bench.joined(rejoin).members.len(), 1);
}

#[test]
fn a_rebalance_ends_without_those_who_do_not_rejoin_in_time() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    // The second beats on but never rejoins.
    for _ in 0..12 {
        assert!(bench.waits(rejoin));
        assert_eq!(bench.heartbeat(&second, 2), Err(GroupError::RebalanceInProgress));
        bench.pass(5_000);
    }
    assert_eq!(bench.joined(rejoin).members.len(), 1);
    assert_eq!(bench.heartbeat(&second, 2), Err(GroupError::UnknownMember));
}

#[test]
fn a_parked_member_does_not_expire() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    for _ in 0..8 {
        bench.pass(5_000);
        assert_eq!(bench.heartbeat(&second, 2), Err(GroupError::RebalanceInProgress));
    }
    let ticket = bench.send(GroupEvent::Join(join(&second, "")));
    assert_eq!(bench.joined(rejoin).members.len(), 2);
    bench.joined(ticket);
    // Nor does one that waits for the leader's assignment.
    let waiting = bench.send(sync(&second, 3, &[]));
    for _ in 0..8 {
        bench.pass(5_000);
        assert_eq!(bench.heartbeat(&first, 3), Ok(()));
    }
    let led = bench.send(sync(&first, 3, &[(&second, "y")]));
    assert_eq!((bench.synced(led), bench.synced(waiting)), ("".into(), "y".into()));
}

#[test]
fn a_leader_that_never_syncs_is_removed() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    let ticket = bench.send(GroupEvent::Join(join(&second, "")));
    bench.joined(rejoin);
    bench.joined(ticket);
    let waiting = bench.send(sync(&second, 3, &[]));
    for _ in 0..12 {
        assert!(bench.waits(waiting));
        assert_eq!(bench.heartbeat(&first, 3), Ok(()), "it is alive");
        bench.pass(5_000);
    }
    assert_eq!(bench.answer(waiting), Err(GroupError::RebalanceInProgress));
    assert_eq!(bench.heartbeat(&first, 3), Err(GroupError::UnknownMember));
    let rejoin = bench.send(GroupEvent::Join(join(&second, "")));
    assert_eq!(bench.joined(rejoin).leader, second);
}

#[test]
fn leaving_rebalances_and_the_last_one_leaves_the_group_empty() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    assert_eq!(bench.ask(leave(&second)), Ok(GroupAnswer::Left(vec![Ok(())])));
    assert_eq!(bench.heartbeat(&first, 2), Err(GroupError::RebalanceInProgress));
    let both = GroupEvent::Leave(vec![
        LeavingMember { id: first.clone(), instance: None },
        LeavingMember { id: second, instance: None },
    ]);
    assert_eq!(bench.ask(both), Ok(GroupAnswer::Left(vec![Ok(()), Err(GroupError::UnknownMember)])));
    assert_eq!(bench.state(), GroupState::Empty);
    // Kept, with its generation, across a crash.
    let mut bench = bench.crash();
    assert_eq!(bench.state(), GroupState::Empty);
    let (_, ticket) = bench.join_both_steps("c");
    assert_eq!(bench.joined(ticket).generation, 4);
}

#[test]
fn the_initial_delay_is_extended_by_arrivals_up_to_the_rebalance_timeout() {
    let mut bench = Bench::new();
    bench.config.initial_rebalance_delay = Duration::from_secs(3);
    let (_, first) = bench.join_both_steps("a");
    bench.pass(2_000);
    let (_, second) = bench.join_both_steps("b");
    bench.pass(1_000);
    assert!(bench.waits(first), "b has extended the delay");
    bench.pass(3_000);
    assert_eq!((bench.joined(first).generation, bench.joined(second).generation), (1, 1));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut bench = Bench::new();
    for ms in [5_999, 1_800_001, -1] {
        let request = JoinRequest { session_timeout_ms: ms, ..join("", "a") };
        assert_eq!(bench.ask(GroupEvent::Join(request)), Err(GroupError::InvalidSessionTimeout));
    }
    let none = JoinRequest { protocols: Vec::new(), ..join("", "a") };
    assert_eq!(bench.ask(GroupEvent::Join(none)), Err(GroupError::InconsistentProtocol));
    assert_eq!(bench.ask(GroupEvent::Join(join("ghost", "a"))), Err(GroupError::UnknownMember));
    assert_eq!(bench.partition.list().count(), 0, "a refused join leaves no group behind");

    let id = bench.stable_one();
    let other = JoinRequest { protocol_type: "connect".into(), ..join("", "b") };
    assert_eq!(bench.ask(GroupEvent::Join(other)), Err(GroupError::InconsistentProtocol));
    let other = JoinRequest { protocols: vec![("sticky".into(), Bytes::new())], ..join("", "b") };
    assert_eq!(bench.ask(GroupEvent::Join(other)), Err(GroupError::InconsistentProtocol));
    assert_eq!(bench.heartbeat(&id, 2), Err(GroupError::IllegalGeneration));
    assert_eq!(bench.ask(sync(&id, 0, &[])), Err(GroupError::IllegalGeneration));
    let GroupEvent::Sync(mut wrong) = sync(&id, 1, &[]) else { unreachable!() };
    wrong.protocol = Some("sticky".into());
    assert_eq!(bench.ask(GroupEvent::Sync(wrong)), Err(GroupError::InconsistentProtocol));
    assert_eq!(bench.state(), GroupState::Stable);

    bench.config.max_size = 1;
    assert_eq!(bench.ask(GroupEvent::Join(join("", "b"))), Err(GroupError::GroupMaxSizeReached));
}

#[test]
fn the_protocol_is_chosen_by_vote_among_the_common_ones() {
    let mut bench = Bench::new();
    bench.config.initial_rebalance_delay = Duration::from_secs(1);
    let with = |names: &[&str], id: &str| JoinRequest {
        protocols: names.iter().map(|n| (Arc::from(*n), Bytes::new())).collect(),
        must_know_id: false,
        ..join("", id)
    };
    let tickets = [
        bench.send(GroupEvent::Join(with(&["sticky", "range", "roundrobin"], "a"))),
        bench.send(GroupEvent::Join(with(&["roundrobin", "range"], "b"))),
        bench.send(GroupEvent::Join(with(&["range", "roundrobin"], "c"))),
    ];
    bench.pass(2_000);
    for ticket in tickets {
        assert_eq!(bench.joined(ticket).protocol.as_deref(), Some("range"));
    }
}

/// A stable group of one static member, "i", in generation 1.
fn stable_static(bench: &mut Bench) {
    let ticket = bench.send(GroupEvent::Join(static_join("", "i-1", "i")));
    assert_eq!(bench.joined(ticket).generation, 1, "static members need no second step");
    let ticket = bench.send(sync("i-1", 1, &[("i-1", "all")]));
    assert_eq!(bench.synced(ticket), "all");
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    let ticket = bench.send(GroupEvent::Join(static_join("", "i-2", "i")));
    let joined = bench.joined(ticket);
    assert_eq!((joined.generation, joined.skip_assignment, joined.members.len()), (1, true, 1));
    assert_eq!((&*joined.leader, &*joined.member_id), ("i-2", "i-2"));
    let ticket = bench.send(sync("i-2", 1, &[]));
    assert_eq!(bench.synced(ticket), "all");
    // The old id is fenced when it names the instance, and unknown when it does not.
    let fenced = MemberRef { instance: Some("i".into()), ..member("i-1", 1) };
    assert_eq!(bench.ask(GroupEvent::Heartbeat(fenced)), Err(GroupError::FencedInstanceId));
    assert_eq!(bench.heartbeat("i-1", 1), Err(GroupError::UnknownMember));
    assert_eq!(bench.ask(GroupEvent::Join(static_join("i-1", "", "i"))), Err(GroupError::FencedInstanceId));
    // And the new id survives a crash.
    let mut bench = bench.crash();
    assert_eq!(bench.heartbeat("i-2", 1), Ok(()));
    // Older clients are not told that they lead, so that they do not assign.
    let old = JoinRequest { can_skip_assignment: false, ..static_join("", "i-3", "i") };
    let ticket = bench.send(GroupEvent::Join(old));
    let joined = bench.joined(ticket);
    assert_eq!((&*joined.leader, joined.members.len(), joined.skip_assignment), ("i-2", 0, false));
}

#[test]
fn a_swap_that_is_not_stored_is_taken_back() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    bench.hold = true;
    let ticket = bench.send(GroupEvent::Join(static_join("", "i-2", "i")));
    assert!(bench.waits(ticket), "the new id must be durable first");
    bench.complete(Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.answer(ticket), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.heartbeat("i-1", 1), Ok(()));
    assert_eq!(bench.heartbeat("i-2", 1), Err(GroupError::UnknownMember));
}

#[test]
fn an_absent_static_member_keeps_its_place_until_its_session_ends() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    let quick = JoinRequest { session_timeout_ms: 6_000, rebalance_timeout_ms: 7_000, ..join("", "b") };
    assert!(matches!(bench.ask(GroupEvent::Join(quick.clone())), Err(GroupError::MemberIdRequired(_))));
    let long = JoinRequest { rebalance_timeout_ms: 7_000, ..static_join("i-1", "", "i") };
    let ticket = bench.send(GroupEvent::Join(long));
    let other = bench.send(GroupEvent::Join(JoinRequest { member_id: "b".into(), ..quick.clone() }));
    bench.joined(ticket);
    assert_eq!(bench.joined(other).generation, 2);
    let led = bench.send(sync("i-1", 2, &[("i-1", "x"), ("b", "y")]));
    bench.synced(led);
    // The dynamic one rejoins with changed metadata; the static one is silent, and still counted.
    let mut changed = JoinRequest { member_id: "b".into(), ..quick };
    changed.protocols[0].1 = subscription(&["u"]);
    let ticket = bench.send(GroupEvent::Join(changed));
    bench.pass(7_000);
    let joined = bench.joined(ticket);
    assert_eq!((joined.members.len(), &*joined.leader), (2, "b"));
    assert_eq!(bench.heartbeat("b", 3), Ok(()));
    bench.pass(3_100);
    assert_eq!(bench.heartbeat("b", 3), Err(GroupError::RebalanceInProgress), "the static one's session has ended");
}

#[test]
fn static_members_are_removed_by_instance_id() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    let wrong = LeavingMember { id: "".into(), instance: Some("j".into()) };
    let fenced = LeavingMember { id: "i-0".into(), instance: Some("i".into()) };
    let right = LeavingMember { id: "".into(), instance: Some("i".into()) };
    let answer = bench.ask(GroupEvent::Leave(vec![wrong, fenced, right]));
    let expected = vec![Err(GroupError::UnknownMember), Err(GroupError::FencedInstanceId), Ok(())];
    assert_eq!(answer, Ok(GroupAnswer::Left(expected)));
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn an_assignment_that_is_not_stored_is_not_handed_out() {
    let mut bench = Bench::new();
    bench.hold = true;
    let (id, ticket) = bench.join_both_steps("a");
    bench.joined(ticket);
    let ticket = bench.send(sync(&id, 1, &[(&id, "all")]));
    assert!(bench.waits(ticket));
    bench.complete(Err(GroupError::NotCoordinator));
    assert_eq!(bench.answer(ticket), Err(GroupError::NotCoordinator));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let rejoin = bench.send(GroupEvent::Join(join(&id, "")));
    assert_eq!(bench.joined(rejoin).generation, 2);
}

#[test]
fn a_crash_in_the_middle_of_a_rebalance_brings_the_stable_generation_back() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    let ticket = bench.send(GroupEvent::Join(join(&second, "")));
    assert_eq!((bench.joined(rejoin).generation, bench.joined(ticket).generation), (3, 3));
    let mut bench = bench.crash();
    assert_eq!(bench.state(), GroupState::Stable);
    // Generation 3 was never stored: those who hold it rejoin, and nobody has lost its id.
    assert_eq!(bench.heartbeat(&first, 3), Err(GroupError::IllegalGeneration));
    let again = bench.send(sync(&second, 2, &[]));
    assert_eq!(bench.synced(again), "y");
    let rejoin = bench.send(GroupEvent::Join(join(&first, "")));
    let ticket = bench.send(GroupEvent::Join(join(&second, "")));
    assert_eq!((bench.joined(rejoin).generation, bench.joined(ticket).generation), (3, 3));
    // And sessions run from the load on.
    bench.pass(SESSION_MS as u64);
    assert_eq!(bench.heartbeat(&first, 3), Err(GroupError::UnknownMember));
}

#[test]
fn a_partition_that_moves_answers_all_who_wait() {
    let mut bench = Bench::new();
    let (first, second) = pair(&mut bench);
    bench.hold = true;
    let committing = bench.send(GroupEvent::Commit(commit(&second, 2, "t", 5)));
    let parked = bench.send(GroupEvent::Join(join(&first, "")));
    let partition = std::mem::take(&mut bench.partition);
    bench.turn(|_, turn| partition.unload(turn));
    assert_eq!(bench.answer(committing), Err(GroupError::NotCoordinator));
    assert_eq!(bench.answer(parked), Err(GroupError::NotCoordinator));
}
