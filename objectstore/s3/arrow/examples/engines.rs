//! The S3 engines side by side, before the same server on loopback (s3s-fs): throughput, CPU time and allocations of the
//! client.
//!
//! ```text
//! cargo run --release -p thalweg-objectstore-s3-arrow --example engines -- [ROUNDS]
//! ```
//!
//! Rounds take turns. The client has one thread, whose allocations are counted; CPU is that of this process, the server is
//! another one. Objects lie in `TMPDIR`.
#![allow(clippy::disallowed_methods, reason = "a program that measures")]

use std::{sync::Arc, time::Instant};

use allocation_counter::AllocationInfo;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::time::{ClockId, clock_gettime};
use thalweg_objectstore::{ObjectKey, ObjectStore, PutCondition};
use thalweg_objectstore_s3::{
    Connection, Keys, Limits, Requests, S3Store,
    testing::server::{Kind, Server},
};
use thalweg_objectstore_s3_arrow::Arrow;
use thalweg_objectstore_s3_rusoto::Rusoto;
use tokio::runtime::Runtime;

const MIB: usize = 1 << 20;
const PUTS: usize = 64;
const PUT_BYTES: usize = 8 * MIB;
const PUTS_AT_ONCE: usize = 2;
const GETS: usize = 2048;
const GET_BYTES: usize = 512 * 1024;
const GETS_AT_ONCE: usize = 16;

/// What one kind of request cost in one round.
#[derive(Clone, Copy)]
struct Cost {
    mib_per_s: f64,
    cpu_s_per_gib: f64,
    allocations: f64,
    allocated_kib: f64,
}

fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Runs `work`, which makes `requests` of `bytes` each.
fn measure(requests: usize, bytes: usize, work: impl FnOnce()) -> Cost {
    let (began, cpu) = (Instant::now(), cpu_s());
    let AllocationInfo { count_total, bytes_total, .. } = allocation_counter::measure(work);
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_s() - cpu);
    let mib = (requests * bytes) as f64 / MIB as f64;
    Cost {
        mib_per_s: mib / took,
        cpu_s_per_gib: cpu / (mib / 1024.0),
        allocations: count_total as f64 / requests as f64,
        allocated_kib: bytes_total as f64 / 1024.0 / requests as f64,
    }
}

fn key(n: usize) -> ObjectKey {
    ObjectKey::new(format!("data/{n:04}")).expect("a key")
}

async fn puts(store: &dyn ObjectStore, content: &Bytes, count: usize) {
    // As an upload has them: some pieces of one buffer each.
    let pieces: Vec<Bytes> = (0..8).map(|n| content.slice(n * MIB..(n + 1) * MIB)).collect();
    let all = stream::iter((0..count).map(|n| {
        let pieces = pieces.clone();
        async move { store.put(&key(n), pieces, PutCondition::Always).await.expect("stored") }
    }));
    all.buffer_unordered(PUTS_AT_ONCE).for_each(|()| std::future::ready(())).await;
}

async fn gets(store: &dyn ObjectStore, count: usize) {
    let all = stream::iter((0..count).map(|n| async move {
        let start = (n * GET_BYTES % PUT_BYTES) as u64;
        let read = store.get_range(&key(n / 16 % PUTS), start..start + GET_BYTES as u64).await.expect("read");
        assert_eq!(read.len(), GET_BYTES);
    }));
    all.buffer_unordered(GETS_AT_ONCE).for_each(|()| std::future::ready(())).await;
}

fn round<R: Requests>(runtime: &Runtime, server: &Server, make: fn(Arc<Connection>) -> R) -> [Cost; 2] {
    let keys = Keys::lasting("key", "secret", None);
    let store = S3Store::new(server.url("bucket"), keys, runtime.handle(), Limits::default(), make);
    let content: Bytes = (0..PUT_BYTES as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // Connections are open, and the server's files in the page cache.
    runtime.block_on(async {
        puts(&store, &content, 4).await;
        gets(&store, 64).await;
    });
    let put = measure(PUTS, PUT_BYTES, || runtime.block_on(puts(&store, &content, PUTS)));
    let get = measure(GETS, GET_BYTES, || runtime.block_on(gets(&store, GETS)));
    [put, get]
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> f64) -> (f64, f64, f64) {
    let mut all: Vec<f64> = costs.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0], all[all.len() - 1])
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(5, |text| text.parse().expect("a number of rounds"));
    let root = tempfile::tempdir().expect("a folder");
    let server = Server::start(Kind::S3sFs, root.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut costs: [Vec<Cost>; 4] = Default::default();
    for n in 0..2 * rounds {
        // The order of a pair changes with each, so that neither always comes second.
        let arrow = (n + n / 2) % 2 == 1;
        let both = if arrow { round(&runtime, &server, Arrow::new) } else { round(&runtime, &server, Rusoto::new) };
        for (what, cost) in both.into_iter().enumerate() {
            costs[2 * what + usize::from(arrow)].push(cost);
        }
    }
    println!("{rounds} rounds; median (least, most)");
    println!("| | engine | MiB/s | CPU-s per GiB | allocations | allocated KiB |");
    println!("|---|---|---|---|---|---|");
    let rows = ["PUT 8 MiB, 2 at once", "GET 512 KiB of 8 MiB, 16 at once"];
    for (n, costs) in costs.iter().enumerate() {
        let engine = if n % 2 == 0 { Rusoto::LIBRARY } else { Arrow::LIBRARY };
        let ((mib, low, high), (cpu, less, more)) =
            (median(costs, |c| c.mib_per_s), median(costs, |c| c.cpu_s_per_gib));
        let (allocations, kib) = (median(costs, |c| c.allocations).0, median(costs, |c| c.allocated_kib).0);
        println!(
            "| {} | {engine} | {mib:.0} ({low:.0}, {high:.0}) | {cpu:.3} ({less:.3}, {more:.3}) | {allocations:.0} | {kib:.0} |",
            rows[n / 2]
        );
    }
}
