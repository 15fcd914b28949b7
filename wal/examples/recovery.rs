//! How fast a slice fills and recovers: `cargo run -p thalweg-wal --example recovery -- DIRECTORY [MEGABYTES]`.
//!
//! Writes groups of about a MiB, a few in flight, to a file in DIRECTORY, opens it again, and removes it.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock and the disk")]

use std::{collections::VecDeque, error::Error, path::Path, rc::Rc, time::Instant};

use glommio::{LocalExecutorBuilder, Placement};
use thalweg_record::{BatchHead, HEAD_LEN, LeaderEpoch, Mono, NodeId, Offset, PartitionId, ShardId};
use thalweg_wal::{
    Device, Log, LogConfig, SliceIdentity, create,
    device::{GlommioDevice, SliceOptions},
    open,
};

const IDENTITY: SliceIdentity = SliceIdentity { cluster: [1; 16], node: NodeId(1), shard: ShardId(0), slice: [2; 16] };
const BODY_BYTES: usize = 16 << 10;
const IN_FLIGHT: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let directory = args.next().ok_or("name a directory on the disk to measure")?;
    let megabytes: u64 = args.next().map_or(Ok(500), |text| text.parse())?;
    let path = Path::new(&directory).join("recovery-example");
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(32 << 20).make()?;
    let done = executor.run(measure(&path, megabytes << 20));
    std::fs::remove_file(&path)?;
    done
}

async fn measure(path: &Path, bytes: u64) -> Result<(), Box<dyn Error>> {
    let options = SliceOptions::default();
    let config = LogConfig::default();
    GlommioDevice::create_file(path, bytes + bytes / 4 + (8 << 20), options)?;
    {
        let device: Rc<dyn Device> = Rc::new(GlommioDevice::open(path, options).await?);
        create(device.clone(), IDENTITY, config, 1).await?;
        let mut log = open(device.clone(), IDENTITY, config, 2, false).await?.log;
        let since = Instant::now();
        let groups = fill(&device, &mut log, bytes).await?;
        report(&format!("wrote {groups} groups"), log.used_bytes(), since);
    }
    let since = Instant::now();
    let device: Rc<dyn Device> = Rc::new(GlommioDevice::open(path, options).await?);
    let recovered = open(device, IDENTITY, config, 3, false).await?;
    report(&format!("recovered {} batches", recovered.batches.len()), recovered.log.used_bytes(), since);
    Ok(())
}

async fn fill(device: &Rc<dyn Device>, log: &mut Log, bytes: u64) -> Result<u64, Box<dyn Error>> {
    let body = vec![7; BODY_BYTES];
    let mut head = BatchHead([0; HEAD_LEN]);
    head.0[16] = 2;
    head.set_batch_length((HEAD_LEN - 12 + BODY_BYTES) as i32);
    head.set_crc(head.compute_crc(&body));
    let size = (HEAD_LEN + BODY_BYTES) as u32;
    let mut in_flight = VecDeque::new();
    let (mut offset, mut groups) = (0, 0);
    while log.used_bytes() < bytes {
        while log.would_fit(size) {
            head.stamp(Offset(offset), LeaderEpoch(0));
            let room = log.reserve(size)?;
            log.push(room, PartitionId::default(), &head, &body);
            offset += 1;
        }
        let write = log.seal(Mono(0)).ok_or("a group waits")?;
        groups += 1;
        let carried = device.write(write.at, write.buf);
        in_flight.push_back((write.id, glommio::spawn_local(carried)));
        while in_flight.len() >= IN_FLIGHT || (log.used_bytes() >= bytes && !in_flight.is_empty()) {
            let Some((id, carried)) = in_flight.pop_front() else { break };
            let (done, _) = carried.await;
            log.written(id, done)?;
        }
    }
    Ok(groups)
}

fn report(what: &str, bytes: u64, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{what}: {} MiB in {seconds:.3} s, {:.0} MiB/s", bytes >> 20, (bytes >> 20) as f64 / seconds);
}
