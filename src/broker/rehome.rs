//! Moves what WAL slices hold into a new set of slices, when `shards`, `wal.capacity.bytes` or `wal.path` changed.
//!
//! Runs at the start, on an executor of its own, before any shard: reads the slices of the last run, appends what no object
//! holds to new slices by today's owners, under the same offsets, and lets the metadata name the new set once it is durable.
//! It needs no object store. Cut short, it begins again: the old slices stay recorded until the new ones are complete, and
//! batches found twice are taken once.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use thalweg_record::{Mono, PartitionId};
use thalweg_shards::runtime::Runtime;
use thalweg_wal::{Device, Log, Lsn, RecoveredBatch};

use super::{
    StartError,
    held::{Placed, Tails, chain},
    slices::SliceSet,
};
use crate::cluster::{ClusterSnapshot, SliceRecord};

/// A group is written when it holds this much.
const GROUP_BYTES: u32 = 1 << 20;

/// A slice that is being filled.
struct Target {
    device: Rc<dyn Device>,
    log: Log,
}

/// Copies from `old` to `new` (one per shard, in order); nothing in the metadata is changed here.
pub(super) async fn rehome(
    set: &SliceSet,
    old: Vec<SliceRecord>,
    new: &[SliceRecord],
    tails: Arc<Tails>,
    snapshot: Arc<ClusterSnapshot>,
) -> Result<(), StartError> {
    let (host, set, new, (done, outcome)) = (set.host.clone(), set.clone(), new.to_vec(), flume::bounded(1));
    let copying = host.run_alone(Box::new(move |runtime| {
        Box::pin(async move {
            let _gone = done.try_send(copy(&set, old, &new, (tails, snapshot), runtime).await);
        })
    }));
    copying.await?;
    match outcome.try_recv() {
        Ok(Ok(bytes)) => {
            tracing::info!(bytes, "moved the WAL to a new set of slices");
            Ok(())
        }
        Ok(Err(why)) => Err(StartError::Wal(why)),
        Err(_) => Err(StartError::Executor("it ended early".into())),
    }
}

async fn copy(
    set: &SliceSet,
    old: Vec<SliceRecord>,
    new: &[SliceRecord],
    (tails, snapshot): (Arc<Tails>, Arc<ClusterSnapshot>),
    runtime: Rc<dyn Runtime>,
) -> Result<u64, String> {
    let mut targets = Vec::with_capacity(new.len());
    for record in new {
        let (device, recovered) = set.open(record, &runtime).await?;
        targets.push(Target { device, log: recovered.log });
    }
    let mut sources = Vec::new();
    let mut found: BTreeMap<PartitionId, Vec<Placed>> = BTreeMap::new();
    for record in old.into_iter().filter(|r| set.files.len(&r.path).is_some()) {
        let (device, recovered) = set.open(&record, &runtime).await?;
        // Topics that are gone need nothing.
        for batch in recovered.batches.into_iter().filter(|batch| tails.contains_key(&batch.partition)) {
            found.entry(batch.partition).or_default().push((sources.len(), batch));
        }
        sources.push((device, recovered.log));
    }
    // What an object holds needs no WAL. The batches of a partition may lie in two slices, in whatever order these come.
    let mut kept = Vec::new();
    for (partition, batches) in found {
        kept.extend(chain(&tails[&partition], batches, set.accept_loss)?.batches);
    }
    // In the order they were read, but for those that lie in a slice behind what comes after them.
    let mut furthest: BTreeMap<PartitionId, (usize, Lsn)> = BTreeMap::new();
    let mut ordered: Vec<((usize, Lsn), Placed)> = Vec::with_capacity(kept.len());
    for (slice, batch) in kept {
        let at = furthest.entry(batch.partition).or_insert((slice, batch.lsn));
        *at = (*at).max((slice, batch.lsn));
        ordered.push((*at, (slice, batch)));
    }
    ordered.sort_by_key(|(at, _)| *at);
    let mut bytes = 0;
    for (_, (slice, batch)) in ordered {
        let shard = snapshot.owner(batch.partition);
        let (device, log) = &sources[slice];
        bytes += append(&mut targets[usize::from(shard.0)], &batch, device, log, &runtime).await?;
    }
    for target in &mut targets {
        while target.log.durable() < target.log.head() || target.log.staged_bytes() > 0 {
            write_group(target, runtime.mono()).await?;
        }
    }
    Ok(bytes)
}

async fn append(
    target: &mut Target,
    batch: &RecoveredBatch,
    from: &Rc<dyn Device>,
    log: &Log,
    runtime: &Rc<dyn Runtime>,
) -> Result<u64, String> {
    let size = batch.head.size_bytes();
    let read = thalweg_wal::read(from.clone(), log.ring(), batch.lsn, size).await;
    let whole = read.map_err(|e| format!("reading the WAL: {e}"))?;
    if !target.log.would_fit(size as u32) || target.log.staged_bytes() > GROUP_BYTES {
        write_group(target, runtime.mono()).await?;
    }
    let room = target.log.reserve_internal(size as u32).map_err(|_full| {
        "the WAL of the last run does not fit into the new slices: start with the old `shards` and `wal.capacity.bytes`, let \
         it upload (a clean stop does), then change them"
            .to_owned()
    })?;
    target.log.push(room, batch.partition, &batch.head, &whole[thalweg_record::HEAD_LEN..]);
    Ok(size as u64)
}

async fn write_group(target: &mut Target, now: Mono) -> Result<(), String> {
    let Some(group) = target.log.seal(now) else { return Ok(()) };
    let (result, _buf) = target.device.write(group.at, group.buf).await;
    target.log.written(group.id, result).map(|_| ()).map_err(|e| e.to_string())
}
