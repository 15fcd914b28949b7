//! A shard's turns.
//!
//! The time includes the seeded scheduler, which is no part of the broker, and the copy into the device's memory. Before the
//! ring fills up the shard is made anew, between two measurements.

use divan::{Bencher, counter::BytesCount};
use thalweg_record::Offset;
use thalweg_shards::{
    mailbox::ReplyTo,
    msg::{ConnId, FetchFrom, Isolation, Records, Reply, Request, TakeRequest},
};

use crate::{
    sample::{SHAPES, Shape},
    shard::{Fixture, PARTITIONS},
};

/// Requests that lie in the mailbox when the shard wakes; with more it takes several turns.
const REQUESTS: usize = 16;

fn bench_appends(bencher: Bencher<'_, '_>, shape: Shape, count: usize) {
    let batch = shape.batch();
    let fixture = std::cell::RefCell::new(Fixture::new());
    bencher
        .counter(BytesCount::new(batch.size_bytes() * count))
        .with_inputs(|| fixture.borrow_mut().appends(&batch, count))
        .bench_local_values(|(requests, answers)| fixture.borrow().answered(requests, &answers));
}

#[divan::bench(args = SHAPES)]
fn append_one(bencher: Bencher<'_, '_>, shape: Shape) {
    bench_appends(bencher, shape, 1);
}

#[divan::bench(args = SHAPES)]
fn append_sixteen(bencher: Bencher<'_, '_>, shape: Shape) {
    bench_appends(bencher, shape, REQUESTS);
}

#[divan::bench(args = SHAPES)]
fn take_from_memory(bencher: Bencher<'_, '_>, shape: Shape) {
    let batch = shape.batch();
    let mut fixture = Fixture::new();
    fixture.append(&batch, REQUESTS);
    let take = || {
        let (lane, answers) = flume::unbounded();
        let from = |index| FetchFrom {
            partition: fixture.partition(index),
            offset: Offset(0),
            max_bytes: 1 << 20,
            current_leader_epoch: None,
        };
        let request = TakeRequest {
            conn: ConnId(1),
            parts: (0..PARTITIONS).map(from).collect(),
            isolation: Isolation::Uncommitted,
            at_least_one: true,
            reply: ReplyTo::new(lane, 0),
        };
        (vec![Request::Take(Box::new(request))], answers)
    };
    bencher.counter(BytesCount::new(batch.size_bytes() * REQUESTS)).with_inputs(take).bench_local_values(
        |(requests, answers)| {
            for answer in fixture.answered(requests, &answers) {
                let Reply::Take(parts) = answer.reply else { panic!("another answer: {:?}", answer.reply) };
                let ready = |records: &Records| matches!(records, Records::Ready(pieces) if !pieces.is_empty());
                assert!(parts.iter().flatten().filter(|taken| ready(&taken.records)).count() == PARTITIONS as usize);
            }
        },
    );
}
