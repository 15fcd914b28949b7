//! One scenario for each rule.

use std::{io, time::Duration};

use super::*;
use crate::{Full, GroupFault, format::BLOCK, inspect};

#[test]
fn what_was_written_is_recovered_over_several_laps() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    for base in 0..200 {
        append(&device, &mut log, base, &[base as u8; 5000]);
        let write = log.trim(log.durable());
        assert_eq!(carry_superblocks(&device, &mut log, write), 2, "one trim takes both superblocks");
        assert!(log.is_empty());
    }
    (200..203).for_each(|base| {
        append(&device, &mut log, base, &[base as u8; 5000]);
    });
    assert!(log.head().0 > 5 * log.capacity_bytes(), "several laps");
    let head = log.head();
    drop(log);
    let again = reopen(&device);
    assert_eq!(offsets(&again), [200, 201, 202]);
    assert_eq!(again.log.head(), head);
    for found in &again.batches {
        let read = crate::read(Rc::new(device.clone()), again.log.ring(), found.lsn, found.head.size_bytes());
        assert_eq!(block_on(read).expect("read")[HEAD_LEN..], [found.head.base_offset().0 as u8; 5000]);
    }
}

#[test]
fn a_batch_lies_in_the_group_buffer_at_its_lsn() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let (first, second) = (stage(&mut log, 0, b"one"), stage(&mut log, 1, b"two, longer"));
    assert!(log.staged_bytes() > 0);
    let write = log.seal(Mono(0)).expect("a group");
    let (start, frozen) = (write.start, write.buf.freeze());
    assert_eq!(&frozen[(first.0 - start.0) as usize + HEAD_LEN..][..3], b"one");
    assert_eq!(&frozen[(second.0 - start.0) as usize + HEAD_LEN..][..11], b"two, longer");
    assert_eq!(frozen.len(), BLOCK as usize);
}

#[test]
fn groups_grow_from_small_buffers_to_the_largest_and_not_beyond() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let mut lsns = Vec::new();
    let mut base = 0;
    while log.would_fit(1000) {
        lsns.push(stage(&mut log, base, &[base as u8; 1000 - HEAD_LEN]));
        base += 1;
    }
    assert_eq!(lsns.len(), 15, "16 KiB hold fifteen batches of 1,000 bytes with their entries");
    let write = log.seal(Mono(0)).expect("a group");
    assert_eq!(write.buf.len(), 16 << 10);
    for (base, lsn) in lsns.iter().enumerate() {
        assert_eq!(write.buf.as_ref()[(lsn.0 - write.start.0) as usize + HEAD_LEN], base as u8, "copied when grown");
    }
    assert_eq!(log.reserve(small().max_batch_bytes() + 1).expect_err("too large"), {
        let max = small().max_batch_bytes();
        Full::Batch { bytes: max + 1, max }
    });
    let largest = vec![3; small().max_batch_bytes() as usize - HEAD_LEN];
    assert_eq!(sealed(&mut log, base, &largest).buf.len(), 16 << 10);
}

#[test]
fn a_small_group_does_not_pin_the_buffer_of_a_large_one() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    append(&device, &mut log, 0, &[1; 14_000]);
    assert_eq!(sealed(&mut log, 1, b"small").buf.pinned_bytes(), BLOCK as usize);
}

#[test]
fn only_the_contiguous_durable_prefix_is_acknowledged() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let writes: Vec<GroupWrite> = (0..3).map(|base| sealed(&mut log, base, b"x")).collect();
    let (ends, ids): (Vec<Lsn>, Vec<_>) = writes.iter().map(|write| (write.end, write.id)).unzip();
    assert_eq!(log.written(ids[2], Ok(())).expect("fine"), Lsn(0));
    assert_eq!(log.written(ids[0], Ok(())).expect("fine"), ends[0]);
    assert_eq!(log.written(ids[1], Ok(())).expect("fine"), ends[2]);
}

#[test]
fn an_error_poisons_for_ever() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let (first, second) = (sealed(&mut log, 0, b"x"), sealed(&mut log, 1, b"y"));
    let poisoned = log.written(first.id, Err(io::Error::other("medium error"))).expect_err("poisoned");
    assert!(poisoned.to_string().contains("medium error"));
    assert!(log.written(second.id, Ok(())).is_err(), "nothing is acknowledged any more");
    assert_eq!(log.durable(), Lsn(0));
    assert_eq!(log.reserve(100).expect_err("no room"), Full::Ended);
    assert!(log.trim(Lsn(1 << 40)).is_none() && log.close().is_none() && log.marker(Mono(u64::MAX)).is_none());
}

#[test]
fn a_full_ring_refuses_and_keeps_room_for_what_is_internal() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let mut base = 0;
    let full = loop {
        match log.reserve(4000) {
            Ok(room) => log.push(room, partition(0), &batch(base, base, &[0; 3939]), &[0; 3939]),
            Err(full) => break full,
        };
        let id = carry(&device, log.seal(Mono(0)).expect("a group"));
        log.written(id, Ok(())).expect("fine");
        base += 1;
    };
    assert!(matches!(full, Full::Ring { needed: 8192.., .. } | Full::Ring { needed: 4096, .. }), "{full}");
    let room = log.reserve_internal(200).expect("the last 5 % is for markers and commits");
    log.release(room);
    let held: Vec<_> = std::iter::from_fn(|| log.reserve_internal(200).ok()).collect();
    assert!(!held.is_empty(), "what is reserved counts");
    held.into_iter().for_each(|room| log.release(room));
    let write = log.trim(log.durable());
    carry_superblocks(&device, &mut log, write);
    assert_eq!(log.used_bytes(), 0);
    assert!(log.reserve(4000).is_ok());
}

#[test]
fn space_is_reused_only_below_the_trim_point_of_both_superblocks() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let used = (0..6).map(|base| append(&device, &mut log, base, &[0; 5000])).count() as u64 * 2 * BLOCK;
    let first = log.trim(log.durable()).expect("the first superblock");
    assert!(log.trim(log.durable()).is_none(), "one in flight at a time");
    assert_eq!(log.used_bytes(), used);
    let (r, _) = block_on(device.write(first.at, first.buf));
    let second = log.superblock_written(r).expect("fine").expect("the second superblock");
    assert_eq!((log.trim_point(), log.used_bytes()), (Lsn(0), used), "the other one still leads there");
    drop(second);
    assert_eq!(log.superblock_written(Ok(())).expect("fine").map(|write| write.at), None);
    assert_eq!((log.trim_point(), log.used_bytes()), (log.durable(), 0));
}

#[test]
fn a_torn_superblock_leaves_the_other() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    (0..4).for_each(|base| {
        append(&device, &mut log, base, &[0; 5000]);
    });
    let write = log.trim(log.durable()).expect("a superblock");
    device
        .change(|bytes| bytes[write.at as usize..write.at as usize + 100].copy_from_slice(&write.buf.as_ref()[..100]));
    assert_eq!(offsets(&reopen(&device)), [0, 1, 2, 3]);
}

#[test]
fn either_superblock_may_rot_without_a_loss() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    (0..4).for_each(|base| {
        append(&device, &mut log, base, &[0; 5000]);
    });
    for slot in [0, BLOCK as usize] {
        let copy = MemoryDevice::of_bytes(device.to_bytes());
        copy.change(|bytes| bytes[slot + 40] ^= 1);
        assert_eq!(offsets(&reopen(&copy)), [0, 1, 2, 3], "slot at {slot}");
    }
}

#[test]
fn trimming_rounds_down_to_a_group() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let starts: Vec<Lsn> = (0..4).map(|base| append(&device, &mut log, base, &[0; 5000])).collect();
    let write = log.trim(Lsn(starts[2].0 + 100));
    carry_superblocks(&device, &mut log, write);
    assert_eq!(log.trim_point(), starts[2]);
    assert!(log.trim(starts[1]).is_none(), "it never falls");
    assert_eq!(offsets(&reopen(&device)), [2, 3]);
}

#[test]
fn an_idle_marker_protects_the_last_group() {
    for with_marker in [false, true] {
        let device = slice(128);
        let mut log = reopen(&device).log;
        let start = append(&device, &mut log, 0, b"the last before a pause");
        let due = log.marker_due().expect("the last group is not confirmed");
        assert_eq!(due, Mono(0).plus(small().marker_idle));
        assert!(log.marker(Mono(due.0 - 1)).is_none(), "not idle yet");
        if with_marker {
            let id = carry(&device, log.marker(due).expect("a marker"));
            log.written(id, Ok(())).expect("fine");
            assert!(log.marker_due().is_none(), "once is enough");
        }
        device.change(|bytes| bytes[(2 * BLOCK + start.0) as usize] ^= 1);
        match try_open(&device, small(), false) {
            Ok(recovered) => assert!(!with_marker && offsets(&recovered).is_empty()),
            Err(e) => assert!(with_marker && matches!(e, OpenError::Damaged(_)), "{e}"),
        }
    }
}

#[test]
fn no_group_straddles_the_end_of_the_ring() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let capacity = log.capacity_bytes();
    for base in 0..300 {
        let write = sealed(&mut log, base, &vec![1; (base as usize * 977) % 15_000]);
        assert!(write.at + write.buf.len() as u64 <= capacity + 2 * BLOCK);
        assert_eq!((write.at - 2 * BLOCK, write.end.0 % BLOCK), (write.start.0 % capacity, 0));
        let id = carry(&device, write);
        let durable = log.written(id, Ok(())).expect("fine");
        let write = log.trim(durable);
        carry_superblocks(&device, &mut log, write);
        if base % 17 == 0 {
            let again = reopen(&device);
            assert_eq!((again.log.head(), again.report.tail), (log.head(), again.report.tail));
            log = again.log;
        }
    }
}

#[test]
fn a_greater_group_after_reopening_gives_up_a_short_end() {
    let device = slice(256);
    let mut log = reopen(&device).log;
    let (mut base, mut trimmed) = (0, 0);
    while log.ring().until_end(log.head()) > 24 << 10 {
        append(&device, &mut log, base, &[1; 7000]);
        base += 1;
        if base == 10 {
            let write = log.trim(log.durable());
            carry_superblocks(&device, &mut log, write);
            trimmed = base;
        }
    }
    let larger = LogConfig { max_group_bytes: 48 << 10, max_in_flight_bytes: 128 << 10, ..LogConfig::default() };
    let again = try_open(&device, larger, false).expect("opens");
    assert_eq!(again.log.head(), Lsn(again.log.capacity_bytes()), "the next group begins a new lap");
    assert_eq!(offsets(&again), (trimmed..base).collect::<Vec<_>>());
    assert_eq!(offsets(&try_open(&device, larger, false).expect("opens again")), (trimmed..base).collect::<Vec<_>>());
}

#[test]
fn groups_wait_when_too_much_is_in_flight() {
    let device = slice(512);
    let mut log = reopen(&device).log;
    let writes: Vec<GroupWrite> = (0..4).map(|base| sealed(&mut log, base, &[0; 14_000])).collect();
    stage(&mut log, 4, b"waits");
    assert!(log.seal(Mono(0)).is_none() && log.staged_bytes() > 0, "64 KiB are in flight");
    log.written(writes[0].id, Ok(())).expect("fine");
    assert!(log.seal(Mono(0)).is_some());
}

#[test]
fn zeros_stay_ahead_of_the_head_and_are_never_overtaken() {
    let device = slice(256);
    device.change(|bytes| bytes[(2 * BLOCK) as usize..].fill(0xee));
    let mut log = reopen(&device).log;
    let zero = log.zero_ahead(8 << 10).expect("zeros");
    assert_eq!(zero.at, log.device_offset(log.head()), "a resting log has them from the head on");
    stage(&mut log, 0, &[1; 14_000]);
    assert!(log.seal(Mono(0)).is_none(), "zeros are on their way to its place");
    let (r, _) = block_on(device.write(zero.at, zero.buf));
    log.zeroed(r).expect("fine");
    let first = log.seal(Mono(0)).expect("free to go on");
    let zero = log.zero_ahead(64 << 10).expect("zeros");
    assert!(log.zero_ahead(64 << 10).is_none(), "one chunk at a time");
    assert_eq!(zero.at, log.device_offset(log.head()) + (32 << 10), "beyond two of the largest group");
    let id = carry(&device, first);
    log.written(id, Ok(())).expect("fine");
    let mut base = 1;
    loop {
        stage(&mut log, base, &[1; 14_000]);
        let Some(write) = log.seal(Mono(0)) else { break };
        assert!(write.at + write.buf.len() as u64 <= zero.at, "a group in zeros that are in flight");
        let id = carry(&device, write);
        log.written(id, Ok(())).expect("fine");
        base += 1;
    }
    let (r, _) = block_on(device.write(zero.at, zero.buf));
    log.zeroed(r).expect("fine");
    let waiting = log.seal(Mono(0)).expect("free to go on");
    let id = carry(&device, waiting);
    log.written(id, Ok(())).expect("fine");
    while let Some(zero) = log.zero_ahead(64 << 10) {
        let (r, _) = block_on(device.write(zero.at, zero.buf));
        log.zeroed(r).expect("fine");
    }
    assert!(device.to_bytes()[(2 * BLOCK + log.head().0 + (32 << 10)) as usize..].iter().all(|b| *b == 0));
    assert_eq!(offsets(&reopen(&device)).len() as i64, base + 1, "no group was zeroed");
}

#[test]
fn a_clean_close_is_known_and_emptiness_too() {
    let device = slice(128);
    assert!(reopen(&device).report.was_clean, "a fresh slice is clean");
    let mut log = reopen(&device).log;
    append(&device, &mut log, 0, b"x");
    assert!(!reopen(&device).report.was_clean);
    let mut log = reopen(&device).log;
    stage(&mut log, 1, b"y");
    assert!(log.close().is_none(), "not while something is staged");
    let id = carry(&device, log.seal(Mono(0)).expect("a group"));
    log.written(id, Ok(())).expect("fine");
    let write = log.trim(log.durable());
    carry_superblocks(&device, &mut log, write);
    let write = log.close();
    assert_eq!(carry_superblocks(&device, &mut log, write), 1);
    assert!(log.is_empty() && log.reserve(10).is_err() && log.marker_due().is_none());
    let again = reopen(&device);
    assert!(again.report.was_clean && again.log.is_empty() && again.batches.is_empty());
    assert_eq!(again.log.incarnation().opens, 5);
}

#[test]
fn records_11_12_and_13() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    (0..11).for_each(|base| {
        append(&device, &mut log, base, b"old");
    });
    append(&device, &mut log, 11, b"11 is valid");
    // 12 is torn, 13 whole; neither is acknowledged.
    let (twelve, thirteen) = (sealed(&mut log, 12, b"12 of old"), sealed(&mut log, 13, b"13 of old"));
    drop(twelve);
    carry(&device, thirteen);
    let mut log = reopen(&device).log;
    // A new 12 of the same size, and a crash.
    append(&device, &mut log, 112, b"12 of new");
    assert_eq!(offsets(&reopen(&device)).last(), Some(&112), "the old 13 does not come back");
}

#[test]
fn a_slice_opens_for_its_owner_alone() {
    let device = slice(128);
    let mut shard = identity();
    shard.shard = ShardId(9);
    let other = SliceIdentity { cluster: [9; 16], ..identity() };
    for (expected, what) in [(shard, "shard 4, not 9"), (other, "cluster 0101")] {
        let e = block_on(open(Rc::new(device.clone()), expected, small(), 1, true)).err().expect("refused");
        assert!(e.to_string().contains(what), "{e}");
    }
    assert!(matches!(block_on(create(Rc::new(device.clone()), identity(), small(), 1)), Err(OpenError::Exists)));
    assert_eq!(reopen(&device).log.incarnation().opens, 1, "a refusal leaves no trace");
}

#[test]
fn what_is_no_slice_is_refused_by_name() {
    let blank = MemoryDevice::new(128 << 10);
    assert!(matches!(try_open(&blank, small(), false), Err(OpenError::Blank)));
    let other = MemoryDevice::of_bytes(vec![0x5a; 128 << 10]);
    assert!(matches!(try_open(&other, small(), false), Err(OpenError::NoSuperblock)));
    let short = MemoryDevice::new(64 << 10);
    let e = block_on(create(Rc::new(short), identity(), small(), 1)).expect_err("four groups of 16 KiB do not fit");
    assert!(matches!(e, OpenError::TooSmall { .. }), "{e}");
    let newer = slice(128);
    newer.change(|bytes| {
        for slot in bytes.chunks_mut(4096).take(2) {
            slot[8] = 2;
            let crc = crc32c::crc32c(&slot[..144]);
            slot[144..148].copy_from_slice(&crc.to_le_bytes());
        }
    });
    assert!(matches!(try_open(&newer, small(), false), Err(OpenError::Version { found: 2 })));
    let rotten = slice(128);
    rotten.change(|bytes| (bytes[8], bytes[30]) = (bytes[8] ^ 2, bytes[30] ^ 1));
    assert!(try_open(&rotten, small(), false).is_ok(), "bits of the version that rot are no other version");
    let resized = slice(128);
    let mut longer = resized.to_bytes();
    longer.extend_from_slice(&[0; 4096]);
    let e = try_open(&MemoryDevice::of_bytes(longer), small(), false).err().expect("refused");
    assert!(matches!(e, OpenError::Resized { .. }), "{e}");
}

#[test]
fn damage_is_refused_named_and_cut_only_on_demand() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let starts: Vec<Lsn> = (0..6).map(|base| append(&device, &mut log, base, &[7; 300])).collect();
    device.change(|bytes| bytes[(2 * BLOCK + starts[3].0) as usize + 300] ^= 1);
    let before = device.to_bytes();
    let e = try_open(&device, small(), false).err().expect("refused");
    let OpenError::Damaged(damage) = &e else { panic!("{e}") };
    assert_eq!((damage.at, damage.fault), (starts[3], GroupFault::BatchCrc));
    assert_eq!(damage.missing, [(partition(0), Offset(3), Offset(3))]);
    assert!(e.to_string().contains("thalweg wal inspect") && e.to_string().contains("--accept-loss"), "{e}");
    let report = block_on(inspect(Rc::new(device.clone()))).expect("inspected").to_string();
    assert!(report.contains("DAMAGED") && report.contains("lacks offsets 3 to 3"), "{report}");
    assert_eq!(device.to_bytes(), before, "a refusal and a look change nothing");
    let mut accepted = try_open(&device, small(), true).expect("opens");
    assert_eq!(offsets(&accepted), [0, 1, 2]);
    assert_eq!(accepted.report.lost.as_ref().map(|lost| lost.at), Some(starts[3]));
    append(&device, &mut accepted.log, 3, b"again");
    assert_eq!(offsets(&reopen(&device)), [0, 1, 2, 3], "what followed the loss does not come back");
}

#[test]
fn what_is_missing_is_named_even_without_its_header() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    let starts: Vec<Lsn> = (0..6).map(|base| append(&device, &mut log, base, &[7; 300])).collect();
    drop(log);
    // Reopened, so that the loss lies before the newest opening and all of it was acknowledged.
    for reopened in [false, true] {
        if reopened {
            drop(reopen(&device));
        }
        let copy = MemoryDevice::of_bytes(device.to_bytes());
        copy.change(|bytes| bytes[(2 * BLOCK + starts[2].0) as usize..][..8192].fill(0));
        let e = try_open(&copy, small(), false).err().expect("refused");
        let OpenError::Damaged(damage) = &e else { panic!("{e}") };
        assert_eq!((damage.at, damage.fault), (starts[2], GroupFault::NoHeader));
        assert_eq!(damage.missing, [(partition(0), Offset(2), Offset(3))]);
        assert_eq!(damage.acknowledged, if reopened { Lsn(6 * BLOCK) } else { starts[5] });
    }
}

#[test]
fn a_look_tells_what_a_slice_holds() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    (0..6).for_each(|base| {
        append(&device, &mut log, base, b"x");
    });
    let report = block_on(inspect(Rc::new(device.clone()))).expect("inspected").to_string();
    for part in ["node 3 shard 4", "6 groups", "offsets 0 to 5, 6 batches", "nothing acknowledged is missing"] {
        assert!(report.contains(part), "{part} is not in: {report}");
    }
    let blank = block_on(inspect(Rc::new(MemoryDevice::new(128 << 10)))).expect("inspected").to_string();
    assert!(blank.contains("superblock 0: blank") && blank.contains("never created"), "{blank}");
}

#[test]
fn markers_wait_for_their_time_after_each_group() {
    let device = slice(128);
    let config = LogConfig { marker_idle: Duration::from_secs(1), ..small() };
    let mut log = try_open(&device, config, false).expect("opens").log;
    assert!(log.marker_due().is_none(), "an empty log has nothing to confirm");
    stage(&mut log, 0, b"x");
    let write = log.seal(Mono(500)).expect("a group");
    assert!(log.marker_due().is_none(), "not while it is in flight");
    log.written(write.id, Ok(())).expect("fine");
    assert_eq!(log.marker_due(), Some(Mono(1_000_000_500)));
}
