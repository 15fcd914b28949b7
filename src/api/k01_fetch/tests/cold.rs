//! Cold records: fetches that wait for them, and what comes meanwhile.

use super::*;

#[test]
fn hot_records_do_not_wait_for_cold_ones_which_the_next_fetch_gets() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    let (_, _, _o) = c.probed(1, vec![found(200)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    c.take(1).reply.send(Reply::Take(vec![ready(200)]));
    let started = c.0.world.mono();
    assert_eq!(sizes(&c.partitions(asked)), [0, 200]);
    assert_eq!(c.0.world.mono(), started);

    cold.reply.send(Reply::Late(0, ready(400)));
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    let (_, _, _o) = c.probed(1, vec![found(0)]);
    let again = c.take(0);
    assert_eq!((again.parts[0].max_bytes, again.at_least_one), (0, false), "it is read already");
    again.reply.send(Reply::Take(vec![taken(Records::Pending)]));
    c.take(1).reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [400, 0]);
}

#[test]
fn a_hot_record_that_comes_while_cold_ones_are_read_is_given_at_once() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    let (_, _, odd) = c.probed(1, vec![found(0)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    c.take(1).reply.send(Reply::Take(vec![ready(0)]));
    assert!(!c.0.settled(&asked), "nothing is there yet");
    let before = c.0.world.mono();
    odd.send(Reply::Wake);
    let (_, watch, _again) = c.probed(1, vec![found(60)]);
    assert!(watch);
    let still = c.take(0);
    assert_eq!(still.parts[0].max_bytes, 0, "it is being read");
    still.reply.send(Reply::Take(vec![taken(Records::Pending)]));
    c.take(1).reply.send(Reply::Take(vec![ready(60)]));
    assert_eq!(sizes(&c.partitions(asked)), [0, 60]);
    assert_eq!(c.0.world.mono(), before, "at once, not when the cold ones are read");

    cold.reply.send(Reply::Late(0, ready(400)));
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    let (_, _, _o) = c.probed(1, vec![found(0)]);
    c.take(0).reply.send(Reply::Take(vec![taken(Records::Pending)]));
    c.take(1).reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [400, 0], "read once");
}

#[test]
fn appends_to_a_partition_that_is_being_read_do_not_end_the_wait_for_it() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0, 2]));
    let (_, _, even) = c.probed(0, vec![slow(400), found(0)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending), ready(0)]));
    assert!(!c.0.settled(&asked));
    even.send(Reply::Wake);
    let (parts, _, _again) = c.probed(0, vec![found(0)]);
    assert_eq!(
        parts.iter().map(|part| part.partition.index).collect::<Vec<_>>(),
        [2],
        "what is being read is not watched"
    );
    assert!(!c.0.settled(&asked));
    cold.reply.send(Reply::Late(0, ready(400)));
    assert_eq!(sizes(&c.partitions(asked)), [400, 0]);
}

#[test]
fn a_store_slower_than_max_wait_makes_progress() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _w) = c.probed(0, vec![slow(400)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    let started = c.0.world.mono();
    assert_eq!(sizes(&c.partitions(asked)), [0], "empty at max_wait");
    assert_eq!(c.0.world.mono().since(started), Duration::from_millis(500));

    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _w) = c.probed(0, vec![slow(400)]);
    let again = c.take(0);
    assert_eq!(again.parts[0].max_bytes, 0, "it is being read");
    again.reply.send(Reply::Take(vec![ready(0)]));
    assert!(!c.0.settled(&asked), "it waits for the read under way");
    cold.reply.send(Reply::Late(0, ready(400)));
    assert_eq!(sizes(&c.partitions(asked)), [400]);
}

#[test]
fn a_cold_batch_that_did_not_fit_comes_first_next_time() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![found(0)]);
    let (_, _, _o) = c.probed(1, vec![slow(400)]);
    c.take(0).reply.send(Reply::Take(vec![ready(0)]));
    let cold = c.take(1);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    cold.reply.send(Reply::Late(0, ready(0)));
    let before = c.0.world.mono();
    assert_eq!(sizes(&c.partitions(asked)), [0, 0]);
    assert_eq!(c.0.world.mono(), before, "nothing more is awaited");

    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![found(500)]);
    let (_, _, _o) = c.probed(1, vec![slow(400)]);
    let hot = c.take(0);
    assert!(!hot.at_least_one);
    hot.reply.send(Reply::Take(vec![ready(500)]));
    let again = c.take(1);
    assert_eq!((again.parts[0].max_bytes, again.at_least_one), (400, true));
    again.reply.send(Reply::Take(vec![ready(400)]));
    assert_eq!(sizes(&c.partitions(asked)), [500, 400]);
}

#[test]
fn a_seek_forgets_what_was_read() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _w) = c.probed(0, vec![slow(400)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    assert_eq!(sizes(&c.partitions(asked)), [0]);
    cold.reply.send(Reply::Late(0, ready(400)));

    let mut elsewhere = request(&[0]);
    elsewhere.topics[0].partitions[0].fetch_offset = 11;
    let asked = c.fetch(12, &elsewhere);
    let (_, _, _w) = c.probed(0, vec![found(70)]);
    let take = c.take(0);
    assert_eq!(take.parts[0].max_bytes, 70);
    take.reply.send(Reply::Take(vec![ready(70)]));
    assert_eq!(sizes(&c.partitions(asked)), [70]);
    assert!(c.0.caller.stash.borrow().as_ref().is_some_and(|stash| stash.is_empty()));
}

/// A fetch of partitions 0, 2 and 1, of which 0 is being read, and nothing else is there; its watches on both shards.
fn reading(c: &Cluster, request: &FetchRequest) -> (Asked, ReplyTo, ReplyTo, TakeRequest) {
    let asked = c.fetch(12, request);
    let (_, _, even) = c.probed(0, vec![slow(400), found(0)]);
    let (_, _, odd) = c.probed(1, vec![found(0)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending), ready(0)]));
    c.take(1).reply.send(Reply::Take(vec![ready(0)]));
    assert!(!c.0.settled(&asked), "nothing is there yet");
    (asked, even, odd, cold)
}

#[test]
fn cold_records_that_come_while_it_looks_for_hot_ones_are_not_slept_over() {
    let c = cluster();
    let (asked, even, _odd, cold) = reading(&c, &request(&[0, 2, 1]));
    let before = c.0.world.mono();
    even.send(Reply::Wake);
    let Request::Probe(probe) = c.0.request(c.shard_of(0)) else { panic!("not a probe") };
    cold.reply.send(Reply::Late(0, ready(400)));
    probe.reply.send_more(Reply::Probe(vec![found(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [400, 0, 0]);
    assert_eq!(c.0.world.mono(), before);
}

#[test]
fn a_wake_that_comes_while_another_shard_is_looked_at_is_not_lost() {
    let c = cluster();
    let (asked, even, odd, _cold) = reading(&c, &request(&[0, 2, 1]));
    let before = c.0.world.mono();
    even.send(Reply::Wake);
    let Request::Probe(probe) = c.0.request(c.shard_of(0)) else { panic!("not a probe") };
    odd.send(Reply::Wake);
    probe.reply.send_more(Reply::Probe(vec![found(0)]));
    let (_, _, _odd) = c.probed(1, vec![found(60)]);
    c.take(0).reply.send(Reply::Take(vec![taken(Records::Pending), ready(0)]));
    c.take(1).reply.send(Reply::Take(vec![ready(60)]));
    assert_eq!(sizes(&c.partitions(asked)), [0, 0, 60]);
    assert_eq!(c.0.world.mono(), before);
}

#[test]
fn too_few_hot_records_do_not_end_the_wait_for_cold_ones() {
    let c = cluster();
    let (asked, _even, odd, cold) = reading(&c, &request(&[0, 2, 1]).with_min_bytes(300));
    odd.send(Reply::Wake);
    let (_, _, _odd) = c.probed(1, vec![found(60)]);
    assert!(!c.0.settled(&asked), "60 of 300 bytes");
    cold.reply.send(Reply::Late(0, ready(400)));
    assert_eq!(sizes(&c.partitions(asked)), [400, 0, 0]);
}

#[test]
fn too_few_hot_records_are_given_at_the_deadline() {
    let c = cluster();
    let started = c.0.world.mono();
    let (asked, _even, odd, _cold) = reading(&c, &request(&[0, 2, 1]).with_min_bytes(300));
    odd.send(Reply::Wake);
    let (_, _, _odd) = c.probed(1, vec![found(60)]);
    c.take(0).reply.send(Reply::Take(vec![taken(Records::Pending), ready(0)]));
    c.take(1).reply.send(Reply::Take(vec![ready(60)]));
    assert_eq!(sizes(&c.partitions(asked)), [0, 0, 60]);
    assert_eq!(c.0.world.mono().since(started), Duration::from_millis(500));
}

#[test]
fn a_partition_in_error_is_told_before_cold_records_are_read() {
    let c = cluster();
    let started = c.0.world.mono();
    let asked = c.fetch(12, &request(&[0, 2]));
    let out = PartitionError::OffsetOutOfRange { log_start: Offset(20), high_watermark: Offset(30) };
    let (_, _, _watch) = c.probed(0, vec![slow(400), Err(out)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    let partitions = c.partitions(asked);
    assert_eq!((partitions[0].error_code, partitions[1].error_code), (0, 1));
    assert_eq!(c.0.world.mono(), started);
}

#[test]
fn cold_records_wait_for_room_and_hot_ones_do_not_wait_with_them() {
    let c = cluster();
    let (room, hog) = (&c.0.edge.cold_room, ConnId(9));
    room.hold(hog, u64::MAX / 2);
    let asked = c.fetch(12, &request(&[0, 1]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    let (_, _, _o) = c.probed(1, vec![found(200)]);
    let cold = c.take(0);
    assert_eq!((cold.parts[0].max_bytes, cold.at_least_one), (0, false), "nothing is read");
    cold.reply.send(Reply::Take(vec![ready(0)]));
    c.take(1).reply.send(Reply::Take(vec![ready(200)]));
    assert_eq!(sizes(&c.partitions(asked)), [0, 200]);

    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    assert!(!c.0.settled(&asked), "it waits in line");
    assert!(c.0.inboxes[c.shard_of(0)].data.is_empty(), "before anything is read");
    room.hold(hog, 0);
    let cold = c.take(0);
    assert!(cold.parts[0].max_bytes > 0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    assert!(!c.0.settled(&asked));
    assert!(room.held() > 0, "what is being read takes room");
    cold.reply.send(Reply::Late(0, ready(400)));
    assert_eq!(sizes(&c.partitions(asked)), [400]);
    assert_eq!(room.held(), 0, "given back with the answer");
}

#[test]
fn no_room_until_the_deadline_is_an_empty_answer() {
    let c = cluster();
    c.0.edge.cold_room.hold(ConnId(9), u64::MAX / 2);
    let (asked, started) = (c.fetch(12, &request(&[0])), c.0.world.mono());
    let (_, _, _e) = c.probed(0, vec![slow(400)]);
    c.take(0).reply.send(Reply::Take(vec![ready(0)]));
    assert_eq!(sizes(&c.partitions(asked)), [0]);
    assert_eq!(c.0.world.mono().since(started), Duration::from_millis(500));
}

#[test]
fn what_a_fetch_leaves_behind_takes_room_until_its_connection_is_closed() {
    let c = cluster();
    let asked = c.fetch(12, &request(&[0]));
    let (_, _, _w) = c.probed(0, vec![slow(400)]);
    let cold = c.take(0);
    cold.reply.send_more(Reply::Take(vec![taken(Records::Pending)]));
    assert_eq!(sizes(&c.partitions(asked)), [0], "empty at max_wait");
    assert_eq!(c.0.edge.cold_room.held(), 400);
    c.0.edge.connection_gone(c.0.caller.conn);
    assert_eq!(c.0.edge.cold_room.held(), 0);
}
