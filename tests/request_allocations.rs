//! What a whole request allocates, from the socket's bytes to the answer's: the real broker in this process, under an allocator
//! that counts on every thread but the client's. So much a request and so much a batch, whatever records there are. The heap does
//! not see the records of a large request either: they lie in a pooled chunk, and are copied once, into memory that the device writes
//! from.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "lives outside the broker")]

use bytes::Bytes;
use thalweg_rig::batch::plain;

#[path = "request_allocations/counted.rs"]
mod counted;
#[path = "request_allocations/served.rs"]
mod served;

use counted::{Taken, count_without_this_thread, count_without_wakes};
use served::{PARTITIONS, Served};

/// The quietest of them counts: timers, meters and the log's zeros allocate too.
const WINDOWS: usize = 7;
/// Requests of a window, one after the other; fewer when they are large, so that no upload begins.
const REQUESTS: usize = 200;
const WINDOW_BYTES: usize = 8 << 20;
/// What a window may have of others for each request: a sixth of an allocation for each hundred of the 600 records.
const NOISE: f64 = 1.0;

const MANY: usize = 600;
/// Frames below a quarter of a receive chunk (16 KiB) are copied out of it, larger ones lie in it, and those above 64 KiB get one of their own.
const SMALL_BYTES: usize = 6000;
const MEDIUM_BYTES: usize = 48 << 10;
const LARGE_BYTES: usize = 900_000;

/// Allocations and bytes of one request.
#[derive(Clone, Copy, Debug)]
struct Each {
    count: f64,
    bytes: f64,
}

/// What each of many requests with about so many `bytes` takes, in the quietest window; `ask` sends one and waits for its answer.
fn each(what: &str, bytes: usize, mut ask: impl FnMut()) -> Each {
    let requests = (WINDOW_BYTES / bytes).min(REQUESTS);
    // What grows once (pools, tables, queues) has grown after these.
    (0..requests).for_each(|_| ask());
    let windows = (0..WINDOWS).map(|_| {
        let before = Taken::now();
        (0..requests).for_each(|_| ask());
        Taken::now() - before
    });
    let windows: Vec<Taken> = windows.collect();
    let least = |of: fn(&Taken) -> u64| windows.iter().map(of).min().expect("some") as f64 / requests as f64;
    let each = Each { count: least(|taken| taken.count), bytes: least(|taken| taken.bytes) };
    println!("{what}: {:.1} allocations, {:.0} bytes", each.count, each.bytes);
    each
}

/// So many records of a batch whose values have `bytes` in all.
fn batch(records: usize, bytes: usize) -> Bytes {
    let value = vec![b'v'; bytes / records];
    plain(&vec![&value[..]; records])
}

/// What a Produce takes of one such batch to each of so many partitions.
fn produce(served: &mut Served, records: usize, bytes: usize, partitions: i32) -> Each {
    let asking = served.produce(&batch(records, bytes), partitions);
    let what = format!("produce {records} records of {bytes} B in all to each of {partitions}");
    each(&what, bytes, || {
        served.produced(&asking);
    })
}

/// What a Fetch takes of one such batch that is in memory.
fn fetch(served: &mut Served, records: usize, bytes: usize) -> Each {
    let batch = batch(records, bytes);
    let asking = served.produce(&batch, 1);
    let base = served.produced(&asking);
    let asking = served.fetch(base);
    each(&format!("fetch {records} records of {bytes} B in all from memory"), bytes, || {
        assert_eq!(served.fetched(&asking), batch.len());
    })
}

fn check_produce(served: &mut Served) {
    let (lone, many) = (produce(served, 1, SMALL_BYTES, 1), produce(served, MANY, SMALL_BYTES, 1));
    assert!(many.count <= lone.count + NOISE, "{MANY} records in place of one: {many:?}, {lone:?}");
    assert!(lone.count <= 52.0, "a request of one batch: {lone:?}");
    // The copy out of the receive chunk, and no second one.
    let more_bytes = (batch(MANY, SMALL_BYTES).len() - batch(1, SMALL_BYTES).len()) as f64;
    assert!(many.bytes - lone.bytes <= 1.5 * more_bytes, "{more_bytes} bytes more: {many:?}, {lone:?}");

    let (medium, medium_many) = (produce(served, 1, MEDIUM_BYTES, 1), produce(served, MANY, MEDIUM_BYTES, 1));
    assert!(medium_many.count <= medium.count + NOISE, "{MANY} records in place of one: {medium_many:?}, {medium:?}");
    assert!(medium.count <= 52.0, "a request of one batch: {medium:?}");
    let large = produce(served, MANY, LARGE_BYTES, 1);
    for each in [medium, medium_many, large] {
        assert!(each.bytes <= 9e3, "the heap sees records: {each:?}");
    }

    let (one, sixteen) = (produce(served, 10, 2000, 1), produce(served, 10, 2000, PARTITIONS));
    let further = (sixteen.count - one.count) / f64::from(PARTITIONS - 1);
    println!("each further partition: {further:.2} allocations");
    assert!(further <= 4.0, "each further partition of a request: {further}");
}

fn check_fetch(served: &mut Served) {
    let (lone, many) = (fetch(served, 1, MEDIUM_BYTES), fetch(served, MANY, MEDIUM_BYTES));
    assert!(many.count <= lone.count + NOISE, "{MANY} records in place of one: {many:?}, {lone:?}");
    assert!(lone.count <= 63.0, "a fetch of one batch: {lone:?}");
    assert!(many.bytes <= 10e3, "the heap sees records: {many:?}");
}

#[test]
fn records_cost_no_allocation_from_the_socket_to_the_answer() {
    count_without_this_thread();
    let mut served = Served::start();
    println!("not counted: allocations of {:?} bytes, which an idle core takes at each wake", count_without_wakes());
    check_produce(&mut served);
    check_fetch(&mut served);
    served.stop();
}
