//! The bytes of the format. A change here is a new format version.

use super::*;
use crate::{
    Incarnation,
    format::{Entry, GroupHeader, GroupKind, Superblock},
};

fn superblock() -> Superblock {
    Superblock {
        generation: 0x0102_0304_0506_0708,
        identity: identity(),
        capacity: 64 << 20,
        incarnation: Incarnation { opens: 17, random: 0xfeed_f00d_dead_beef },
        start: Lsn(0x3000),
        trim: Lsn(0x2000),
        trim_crc: 0x1122_3344,
        durable: Lsn(0x4000),
        zeroed: Lsn(0x0100_0000),
        max_group_bytes: 1 << 20,
        max_in_flight_bytes: 8 << 20,
        clean: true,
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// Compares with the golden. `THALWEG_BLESS=1` writes it anew instead.
fn check(name: &str, golden: &str, bytes: &[u8]) {
    if std::env::var_os("THALWEG_BLESS").is_some() {
        let lines = bytes.chunks(32).map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n");
        let path = format!("{}/src/tests/goldens/{name}.hex", env!("CARGO_MANIFEST_DIR"));
        return std::fs::write(path, lines.collect::<String>()).expect("written");
    }
    assert_eq!(unhex(golden), bytes, "{name} is not what version 1 writes");
}

#[test]
fn the_superblock_is_version_1() {
    let golden = include_str!("goldens/superblock.hex");
    check("superblock", golden, &superblock().encode());
    let mut block = unhex(golden);
    block.resize(4096, 0);
    assert_eq!(Superblock::decode(&block), Ok(superblock()));
}

#[test]
fn the_group_is_version_1() {
    let device = slice(128);
    let mut log = reopen(&device).log;
    append(&device, &mut log, 0, b"before");
    let room = log.reserve(200).expect("room");
    log.push(room, partition(1), &batch(40, 42, b"three records"), b"three records");
    stage(&mut log, 1, b"one record");
    let write = log.seal(Mono(0)).expect("a group");
    let bytes = write.buf.as_ref();
    let used = bytes.len() - bytes.iter().rev().take_while(|b| **b == 0).count();
    let golden = include_str!("goldens/group.hex");
    check("group", golden, &bytes[..used]);
    let golden = unhex(golden);
    let header = GroupHeader::decode(&golden).expect("a header");
    assert_eq!((header.kind, header.lsn, header.durable), (GroupKind::Data, Lsn(4096), Lsn(4096)));
    assert_eq!((header.length, header.written, header.entries), (4096, 4096, 2));
    assert_eq!(header.incarnation, Incarnation { opens: 1, random: 9 });
    let table = header.table as usize;
    let mut raw = golden[table..].to_vec();
    raw.resize(96, 0);
    let first = Entry::decode(raw[..48].try_into().unwrap());
    assert_eq!((first.partition, first.base, first.last), (partition(1), Offset(40), Offset(42)));
    assert_eq!((first.position, first.length, first.leader_epoch), (88, 74, LeaderEpoch(1)));
}
