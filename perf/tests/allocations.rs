//! What a produce allocates in a shard: so much a request and so much a batch, whatever records there are.
#![allow(clippy::disallowed_methods, reason = "lives outside the broker")]

#[path = "../benches/parts/shard.rs"]
mod shard;

use shard::Fixture;
use thalweg_perf::client::batch::batch;
use thalweg_record::Batch;
use thalweg_shards::msg::Reply;

/// Allocations of one turn that takes `count` requests with a batch of so many records each, and of its way to the device and
/// back.
fn allocations(records: u32, count: usize) -> u64 {
    let mut encoded = batch(records, 100).expect("encodes");
    let (mut fixture, batch) = (Fixture::new(), Batch::split_from(&mut encoded).expect("one batch"));
    // What grows once (queues, tables, size classes) has grown.
    (0..200).for_each(|_| fixture.append(&batch, count));
    let measured = (0..9).map(|_| {
        let (requests, answers) = fixture.appends(&batch, count);
        let mut done = Vec::new();
        let info = allocation_counter::measure(|| done = fixture.answered(requests, &answers));
        assert!(done.iter().all(|answer| matches!(&answer.reply, Reply::Append { results, .. } if results[0].is_ok())));
        info.count_total
    });
    // An index that doubles now and then is not the request's.
    measured.min().expect("nine of them")
}

#[test]
fn records_cost_no_allocation() {
    let lone = allocations(1, 1);
    assert_eq!(allocations(600, 1), lone, "600 records or one");
    assert!(lone <= 30, "{lone} allocations for a request of one batch");
}

#[test]
fn a_batch_costs_few() {
    let (one, sixteen) = (allocations(64, 1), allocations(64, 16));
    let each = (sixteen - one).div_ceil(15);
    assert!(each <= 5, "{each} allocations for each further request of a turn ({one} for one, {sixteen} for sixteen)");
}
