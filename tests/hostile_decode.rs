//! No request makes the decoder allocate out of proportion: every key and version, with lengths blown up, bytes flipped and
//! ends cut, under an allocator that counts. `net::bounds` refuses first, or what follows stays within what it charged.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use thalweg::{
    api::table::TABLE,
    net::{bounds, guarded},
};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands every call to the system's allocator; the counters are plain cells of the calling thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size());
        PEAK.set(PEAK.get().max(LIVE.get()));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().saturating_sub(layout.size()));
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What decoding may take beyond what the walk charged: the crate's error texts and back traces.
const SLACK_BYTES: usize = 64 << 10;

/// Bytes that allocations of `run` reach at their peak.
fn peak_of(run: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    run();
    PEAK.get() - before
}

/// Checks one body; whether it passed the walk.
fn try_body(key: ApiKey, version: i16, body: &[u8]) -> bool {
    let Ok(charged) = bounds::check(key as i16, version, body) else { return false };
    let mut body = Bytes::copy_from_slice(body);
    let peak = peak_of(|| drop(guarded(|| RequestKind::decode(key, &mut body, version))));
    let allowed = charged + SLACK_BYTES;
    assert!(peak <= allowed, "{key:?} {version}: {peak} bytes for a charge of {charged}");
    true
}

fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    TABLE.iter().flat_map(|api| (api.served_from..=api.max).map(|version| (api.key, version)))
}

/// A small generator, so that a failure comes back.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }
}

#[test]
fn lengths_that_claim_the_moon_are_refused() {
    for (key, version) in every_version() {
        for claim in [[0xff, 0xff, 0xff, 0xff, 0x0f], [0x7f, 0xff, 0xff, 0xff, 0x7f], [0x80, 0x80, 0x80, 0x80, 0x08]] {
            for lead in 0..40 {
                let mut body = vec![1; lead];
                body.extend(claim);
                body.extend([0; 60]);
                try_body(key, version, &body);
            }
        }
    }
}

#[test]
fn bodies_of_nothing_but_counts_stay_in_proportion() {
    // Runs of one byte read as many tiny elements, whatever the shape.
    for (key, version) in every_version() {
        for (byte, length) in [(0u8, 1 << 16), (1, 1 << 16), (2, 1 << 16), (0x7f, 1 << 16), (0, 1 << 22), (1, 1 << 22)]
        {
            for count in [100u32, 60_000, 2_000_000] {
                let mut body = BytesMut::zeroed(length);
                body.fill(byte);
                body[..4].copy_from_slice(&count.to_be_bytes());
                try_body(key, version, &body);
            }
        }
    }
}

#[test]
fn random_bodies_stay_in_proportion() {
    let mut seeded = Seeded(11);
    let mut passed = 0;
    for (key, version) in every_version() {
        for _ in 0..400 {
            let length = seeded.below(200);
            let mask = [0xff, 0x07, 0x03, 0x01][seeded.below(4)];
            let body: Vec<u8> = (0..length).map(|_| seeded.next() as u8 & mask).collect();
            passed += usize::from(try_body(key, version, &body));
        }
    }
    assert!(passed > 1000, "only {passed} bodies reached the decoder: the test proves little");
}

#[test]
fn the_crate_alone_would_ask_for_half_a_terabyte() {
    // Metadata 12 in 25 bytes (an array of 2^32-2 topics): refused before the crate sees it.
    let mut body = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    body.resize(25, 0);
    assert!(!try_body(ApiKey::Metadata, 12, &body));
}
