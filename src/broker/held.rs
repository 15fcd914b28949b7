//! What the slices of the log hold of partitions that moved between shards, put together.
//!
//! Pure. A partition's batches lie in one slice, or in two: in that of the shard it moved from, up to where it was sealed, then in that
//! of its owner. The slices decide who that is: whoever's goes on furthest. What the metadata says of it is a hint, which may be older or newer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thalweg_record::{BatchHead, LeaderEpoch, Offset, PartitionId, ShardId};
use thalweg_shards::{moves::Loan, msg::PartitionSpec};
use thalweg_wal::RecoveredBatch;

use crate::cluster::ClusterSnapshot;

/// What the slice of one shard holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub shard: ShardId,
    pub batches: Arc<Vec<RecoveredBatch>>,
    /// Partitions among them that another shard owns, as the metadata says.
    pub strays: BTreeSet<PartitionId>,
}

/// A batch, and the place of its slice among all.
pub(super) type Placed = (usize, RecoveredBatch);

/// Where objects end, and the log goes on.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    partition: PartitionId,
    topic_name: Arc<str>,
    committed_end: Offset,
    /// Of what is committed last.
    epoch: Option<LeaderEpoch>,
}

impl Tail {
    pub(super) fn of(spec: &PartitionSpec) -> Tail {
        Tail {
            partition: spec.partition,
            topic_name: spec.topic_name.clone(),
            committed_end: spec.committed_end,
            epoch: spec.epochs.last().map(|(epoch, _)| *epoch),
        }
    }
}

/// Where a partition is that lies in another slice than the metadata says, or in two.
#[derive(Clone, Debug)]
pub(super) struct Settlement {
    pub partition: PartitionId,
    pub owner: ShardId,
    /// Whose log holds what comes before the owner's, and its heads.
    pub lender: Option<(ShardId, Vec<BatchHead>)>,
}

impl Held {
    pub(super) fn new(shard: ShardId, batches: Arc<Vec<RecoveredBatch>>, snapshot: &ClusterSnapshot) -> Held {
        let mut strays = BTreeSet::new();
        let mut last = None;
        for batch in &*batches {
            if last.replace(batch.partition) != Some(batch.partition) && snapshot.owner(batch.partition) != shard {
                strays.insert(batch.partition);
            }
        }
        Held { shard, batches, strays }
    }
}

/// Finds out who owns the partitions that lie where they should not; `held` is by shard.
///
/// # Errors
/// Batches of one are missing, or lie in more than two slices.
pub(super) fn settle(
    held: &[Held],
    specs: &[Vec<PartitionSpec>],
    accept_loss: bool,
) -> Result<Vec<Settlement>, String> {
    let strays: BTreeSet<PartitionId> = held.iter().flat_map(|held| &held.strays).copied().collect();
    if strays.is_empty() {
        return Ok(Vec::new());
    }
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::LoanForgotten) {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<PartitionId, Vec<Placed>> = BTreeMap::new();
    for (slice, held) in held.iter().enumerate() {
        for batch in held.batches.iter().filter(|batch| strays.contains(&batch.partition)) {
            found.entry(batch.partition).or_default().push((slice, *batch));
        }
    }
    let mut settled = Vec::new();
    for spec in specs.iter().flatten() {
        let Some(batches) = found.remove(&spec.partition) else { continue };
        let chain = chain(&Tail::of(spec), batches, accept_loss)?;
        let Some((last, _)) = chain.last() else { continue };
        let owner = *last;
        let before = chain.iter().rposition(|(slice, _)| *slice != owner).map_or(0, |at| at + 1);
        let lender = chain.first().map(|(slice, _)| *slice).filter(|_| before > 0);
        if chain[..before].iter().any(|(slice, _)| Some(*slice) != lender) {
            return Err(format!(
                "partition {} of topic {} lies in more slices of the log than two: start once with another number of \"shards\"",
                spec.partition.index, spec.topic_name
            ));
        }
        let heads = || chain[..before].iter().map(|(_, batch)| batch.head).collect();
        settled.push(Settlement {
            partition: spec.partition,
            owner: held[owner].shard,
            lender: lender.map(|lender| (held[lender].shard, heads())),
        });
    }
    Ok(settled)
}

/// Gives each shard what it has to open: lenders what they lend, owners what they borrow.
pub(super) fn lend(specs: &mut [Vec<PartitionSpec>], settled: Vec<Settlement>) {
    for Settlement { partition, owner, lender } in settled {
        let Some((lender, heads)) = lender else { continue };
        let of_owner = specs[usize::from(owner.0)].iter_mut().find(|spec| spec.partition == partition);
        let Some(of_owner) = of_owner else { continue };
        let lent = PartitionSpec { loan: Some(Loan::To(owner)), ..of_owner.clone() };
        of_owner.loan = Some(Loan::From { lender, heads });
        specs[usize::from(lender.0)].push(lent);
    }
}

/// The batches of one partition that no object holds, in the order of their offsets, whatever slices they lie in.
///
/// # Errors
/// Batches are missing between two; with `accept_loss` all behind the gap are left out, as when one log is cut.
pub(super) fn chain(tail: &Tail, found: Vec<Placed>, accept_loss: bool) -> Result<Vec<Placed>, String> {
    let mut found: Vec<Placed> =
        found.into_iter().filter(|(_, b)| b.head.last_offset() >= tail.committed_end).collect();
    let mut begins: BTreeMap<LeaderEpoch, Offset> = BTreeMap::new();
    for (_, batch) in &found {
        let begin = begins.entry(batch.head.leader_epoch()).or_insert(batch.head.base_offset());
        *begin = (*begin).min(batch.head.base_offset());
    }
    // Where a later epoch begins, what an earlier one had there was given up (`--accept-loss`).
    let in_force = |head: &BatchHead| {
        let epoch = head.leader_epoch();
        let later = begins.range(LeaderEpoch(epoch.0.saturating_add(1))..);
        tail.epoch.is_none_or(|committed| epoch >= committed)
            && !later.into_iter().any(|(_, at)| *at <= head.base_offset())
    };
    found.retain(|(_, batch)| in_force(&batch.head));
    found.sort_by_key(|(slice, batch)| (batch.head.base_offset(), *slice));
    let mut next = tail.committed_end;
    let mut chain = Vec::with_capacity(found.len());
    for (slice, batch) in found {
        let base = batch.head.base_offset();
        if base > next {
            let (index, topic) = (tail.partition.index, &tail.topic_name);
            let why = format!(
                "partition {index} of topic {topic}: the WAL goes on at offset {base}, but offset {next} is neither in it nor in a \
                 committed object"
            );
            if !accept_loss {
                return Err(why);
            }
            tracing::error!("{why}; it ends there, for loss is accepted");
            break;
        }
        // What was copied is not copied again.
        if base == next {
            next = batch.head.last_offset().next();
            chain.push((slice, batch));
        }
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use thalweg_record::{HEAD_LEN, TopicId};
    use thalweg_shards::msg::PartitionSettings;
    use thalweg_wal::Lsn;

    use super::*;

    const PARTITION: PartitionId = PartitionId { topic: TopicId([1; 16]), index: 0 };

    fn spec(committed_end: i64) -> PartitionSpec {
        PartitionSpec {
            partition: PARTITION,
            topic_name: "t".into(),
            leader_epoch: LeaderEpoch(9),
            settings: PartitionSettings::KAFKA_DEFAULTS,
            log_start: Offset(0),
            committed: vec![],
            epochs: vec![(LeaderEpoch(1), Offset(0))],
            producers: vec![],
            committed_end: Offset(committed_end),
            internal: false,
            loan: None,
        }
    }

    fn batch(base: i64, count: i32, epoch: i32) -> RecoveredBatch {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.set_batch_length(88);
        head.set_last_offset_delta(count - 1);
        head.stamp(Offset(base), LeaderEpoch(epoch));
        RecoveredBatch { partition: PARTITION, lsn: Lsn(0), head }
    }

    fn held(slices: &[&[RecoveredBatch]]) -> Vec<Held> {
        let held = |(n, batches): (usize, &&[RecoveredBatch])| Held {
            shard: ShardId(n as u16),
            batches: Arc::new(batches.to_vec()),
            strays: BTreeSet::from([PARTITION]),
        };
        slices.iter().enumerate().map(held).collect()
    }

    fn settled(slices: &[&[RecoveredBatch]], committed_end: i64) -> (u16, Option<(u16, Vec<i64>)>) {
        let settled = settle(&held(slices), &[vec![spec(committed_end)]], false).expect("whole");
        let lender = settled[0].lender.clone();
        (settled[0].owner.0, lender.map(|(of, heads)| (of.0, heads.iter().map(|h| h.base_offset().0).collect())))
    }

    #[test]
    fn whoever_goes_on_furthest_is_the_owner() {
        let (first, second) = ([batch(0, 5, 1), batch(5, 5, 1)], [batch(10, 5, 1)]);
        assert_eq!(settled(&[&first, &second], 0), (1, Some((0, vec![0, 5]))));
        assert_eq!(settled(&[&second, &first], 5), (0, Some((1, vec![5]))));
        assert_eq!(settled(&[&first, &second], 10), (1, None), "what is committed counts no more");
        assert_eq!(settled(&[&first, &[]], 0), (0, None), "it accepted nothing yet");
        assert!(settle(&held(&[&first, &second]), &[vec![spec(15)]], false).expect("whole").is_empty());
    }

    #[test]
    fn a_gap_is_refused_or_the_end() {
        let (first, second) = ([batch(0, 5, 1)], [batch(10, 5, 1)]);
        let both = held(&[&first, &second]);
        assert!(settle(&both, &[vec![spec(0)]], false).expect_err("a gap").contains("offset 5 is neither"));
        let settled = settle(&both, &[vec![spec(0)]], true).expect("accepted");
        assert_eq!((settled[0].owner, settled[0].lender.is_none()), (ShardId(0), true));
    }

    #[test]
    fn what_a_later_epoch_took_the_place_of_is_gone() {
        let (first, second) = ([batch(0, 5, 1), batch(5, 5, 2)], [batch(7, 5, 1)]);
        assert_eq!(settled(&[&first, &second], 0), (0, None));
    }

    #[test]
    fn lenders_open_what_they_lend() {
        let (first, second) = ([batch(0, 5, 1)], [batch(5, 5, 1)]);
        let settled = settle(&held(&[&first, &second]), &[vec![spec(0)]], false).expect("whole");
        let mut specs = vec![vec![], vec![spec(0)]];
        lend(&mut specs, settled);
        assert!(matches!(specs[0][0].loan, Some(Loan::To(ShardId(1)))));
        assert!(matches!(&specs[1][0].loan, Some(Loan::From { lender: ShardId(0), heads }) if heads.len() == 1));
    }
}
