//! What each protection is for, shown by taking it out.
//!
//! Incarnation and chain cover each other in the story of records 11, 12 and 13: either alone rejects the old 13. So each
//! also has an attack of its own.

use super::*;
use crate::{
    GroupFault, PlantedBugs,
    format::{BLOCK, GROUP_HEADER_LEN, GroupHeader, GroupKind},
};

fn without(planted: PlantedBugs) -> LogConfig {
    LogConfig { planted, ..small() }
}

const NO_INCARNATION: PlantedBugs = PlantedBugs { no_incarnation: true, no_chain: false };
const NO_CHAIN: PlantedBugs = PlantedBugs { no_incarnation: false, no_chain: true };
const NEITHER: PlantedBugs = PlantedBugs { no_incarnation: true, no_chain: true };

/// The story of records 11, 12 and 13; returns what recovery finds in the end.
fn story(planted: PlantedBugs) -> Vec<i64> {
    let device = slice(128);
    let opened = || try_open(&device, without(planted), false).expect("opens");
    let mut log = opened().log;
    append(&device, &mut log, 11, b"11 is valid");
    let (twelve, thirteen) = (sealed(&mut log, 12, b"12 of old"), sealed(&mut log, 13, b"13 of old"));
    drop(twelve);
    carry(&device, thirteen);
    append(&device, &mut opened().log, 112, b"12 of new");
    offsets(&opened())
}

#[test]
fn without_both_the_old_13_comes_back() {
    assert_eq!(story(PlantedBugs::default()), [11, 112]);
    assert_eq!(story(NO_INCARNATION), [11, 112]);
    assert_eq!(story(NO_CHAIN), [11, 112]);
    assert_eq!(story(NEITHER), [11, 112, 13]);
}

/// A record whose payload imitates the header of a later group. Its own group is torn. Returns whether the slice opens.
fn payload_attack(planted: PlantedBugs) -> Result<Vec<i64>, OpenError> {
    let device = slice(128);
    let mut log = try_open(&device, without(planted), false).expect("opens").log;
    append(&device, &mut log, 0, b"acknowledged");
    let lsn = Lsn(log.head().0 + BLOCK);
    // What a client can know or guess: places and lengths, but no random bits.
    let forged = GroupHeader {
        kind: GroupKind::Data,
        incarnation: Default::default(),
        lsn,
        length: BLOCK as u32,
        written: BLOCK as u32,
        durable: lsn,
        previous: 0,
        entries: 0,
        table: GROUP_HEADER_LEN as u32,
        crc: 0,
    };
    let mut body = vec![0; 3 * BLOCK as usize];
    let at = BLOCK as usize - GROUP_HEADER_LEN - HEAD_LEN;
    body[at..at + GROUP_HEADER_LEN].copy_from_slice(&forged.encode());
    let write = sealed(&mut log, 1, &body);
    // The first block is lost in the crash, the others are on the disk.
    device.change(|bytes| {
        let from = (write.at + BLOCK) as usize;
        bytes[from..from + 3 * BLOCK as usize].copy_from_slice(&write.buf.as_ref()[BLOCK as usize..]);
    });
    try_open(&device, without(planted), false).map(|recovered| offsets(&recovered))
}

#[test]
fn without_the_incarnation_a_payload_passes_for_a_header() {
    assert_eq!(payload_attack(PlantedBugs::default()).expect("opens"), [0]);
    assert_eq!(payload_attack(NO_CHAIN).expect("opens"), [0]);
    let e = payload_attack(NO_INCARNATION).expect_err("a forged header says that more was acknowledged");
    assert!(matches!(e, OpenError::Damaged(_)), "{e}");
}

/// Two logs of one opening that differ in their first group: the disk serves the other one's. Returns what is found.
fn spliced(planted: PlantedBugs) -> Result<Vec<i64>, OpenError> {
    let device = slice(128);
    let base = device.to_bytes();
    let write_with = |first: i64| {
        let device = MemoryDevice::of_bytes(base.clone());
        let mut log = try_open(&device, without(planted), false).expect("opens").log;
        append(&device, &mut log, first, b"same size");
        append(&device, &mut log, 2, b"x");
        append(&device, &mut log, 3, b"x");
        device
    };
    let (device, other) = (write_with(1), write_with(101).to_bytes());
    let first = 2 * BLOCK as usize..3 * BLOCK as usize;
    device.change(|bytes| bytes[first.clone()].copy_from_slice(&other[first]));
    try_open(&device, without(planted), false).map(|recovered| offsets(&recovered))
}

#[test]
fn without_the_chain_a_foreign_group_passes() {
    for planted in [PlantedBugs::default(), NO_INCARNATION] {
        match spliced(planted) {
            Err(OpenError::Damaged(damage)) => assert_eq!(damage.fault, GroupFault::Chain),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(spliced(NO_CHAIN).expect("opens"), [101, 2, 3]);
}
