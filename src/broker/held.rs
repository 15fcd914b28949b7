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
use thalweg_wal::{Lsn, RecoveredBatch};

use crate::cluster::{ClusterSnapshot, Cuts};

/// What the slice of one shard holds.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub shard: ShardId,
    pub batches: Arc<Vec<RecoveredBatch>>,
    /// Partitions among them that another shard owns, as the metadata says, or whose batches do not lead on from what is committed.
    pub odd: BTreeSet<PartitionId>,
}

/// A batch, and the place of its slice among all.
pub(super) type Placed = (usize, RecoveredBatch);

/// Where the log of each partition goes on.
pub(super) type Tails = BTreeMap<PartitionId, Tail>;

/// Where objects end, and the log goes on.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    partition: PartitionId,
    topic_name: Arc<str>,
    log_start: Offset,
    pub(super) committed_end: Offset,
    /// Of what is committed.
    epochs: Vec<(LeaderEpoch, Offset)>,
    /// Where an earlier start accepted loss, and the epoch that the log went on with.
    cut: Option<(LeaderEpoch, Offset)>,
}

/// The epochs of what no object holds of a partition, and where each begins.
#[derive(Default, Debug)]
pub(super) struct Begins(BTreeMap<LeaderEpoch, Offset>);

/// Where a partition is that lies in another slice than the metadata says, or in two.
#[derive(Clone, Debug)]
pub(super) struct Settlement {
    pub partition: PartitionId,
    pub owner: ShardId,
    /// Whose log holds what comes before the owner's, and its heads.
    pub lender: Option<(ShardId, Vec<BatchHead>)>,
}

/// What the slices say of partitions that are not as they should be.
#[derive(Default, Debug)]
pub(super) struct Settled {
    pub partitions: Vec<Settlement>,
    /// Per slice, where batches lie that count no more.
    pub given_up: Vec<BTreeSet<Lsn>>,
    /// Partitions that end now before a gap, and where.
    pub cuts: Vec<(PartitionId, Offset)>,
}

/// The batches of one partition that no object holds, in the order of their offsets, whatever slices they lie in.
#[derive(Debug)]
pub(super) struct Chain {
    pub batches: Vec<Placed>,
    /// Where it ends, when there is a gap and more behind it.
    pub cut: Option<Offset>,
}

impl Tail {
    fn of(spec: &PartitionSpec, cuts: &Cuts) -> Tail {
        Tail {
            partition: spec.partition,
            topic_name: spec.topic_name.clone(),
            log_start: spec.log_start,
            committed_end: spec.committed_end,
            epochs: spec.epochs.clone(),
            cut: cuts.get(&spec.partition).copied(),
        }
    }

    /// Whether objects have records of another leader epoch where a batch lies, or of a later one before it, or it was cut off: the
    /// partition went on without it. Below the log start nothing counts.
    pub(super) fn supersedes(&self, head: &BatchHead) -> bool {
        let (base, epoch) = (head.base_offset(), head.leader_epoch());
        if base < self.committed_end {
            let committed = self.epochs.iter().rev().find(|(_, first)| *first <= base);
            return base >= self.log_start && committed.is_some_and(|(committed, _)| *committed != epoch);
        }
        let cut_off = self.cut.is_some_and(|(later, at)| epoch < later && base >= at);
        cut_off || self.epochs.last().is_some_and(|(committed, _)| epoch < *committed)
    }

    /// Its name as people know it.
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.topic_name, self.partition.index)
    }

    /// Whether something that counts lies between `next` and a batch at `base`: what is deleted may be missing.
    pub(super) fn misses(&self, next: Offset, base: Offset) -> bool {
        base > next.max(self.log_start)
    }

    /// Whether all of a log that ends at `next` is deleted: it begins anew at its start.
    pub(super) fn begins_anew(&self, next: Offset) -> bool {
        next < self.log_start
    }

    /// What is said of the batch at `base` when `next` should come.
    pub(super) fn gap(&self, base: Offset, next: Offset) -> String {
        let (index, topic, next) = (self.partition.index, &self.topic_name, next.max(self.log_start));
        format!(
            "partition {index} of topic {topic}: the WAL goes on at offset {base}, but offset {next} is neither in it nor in a committed \
             object"
        )
    }
}

impl Begins {
    /// Takes a batch into account.
    pub(super) fn note(&mut self, head: &BatchHead) {
        let begin = self.0.entry(head.leader_epoch()).or_insert(head.base_offset());
        *begin = (*begin).min(head.base_offset());
    }

    /// Whether a batch counts. Where a later epoch begins, what an earlier one had there was given up (`--accept-loss`), batches that
    /// reach beyond it too.
    pub(super) fn in_force(&self, head: &BatchHead) -> bool {
        let later = self.0.range(LeaderEpoch(head.leader_epoch().0.saturating_add(1))..);
        !later.into_iter().any(|(_, at)| *at <= head.last_offset())
    }
}

impl Held {
    pub(super) fn new(
        shard: ShardId,
        batches: Arc<Vec<RecoveredBatch>>,
        snapshot: &ClusterSnapshot,
        tails: &Tails,
    ) -> Held {
        let odd = odd(&batches, tails, |partition| snapshot.owner(partition) == shard);
        Held { shard, batches, odd }
    }
}

/// Where all partitions go on.
pub(super) fn tails(specs: &[Vec<PartitionSpec>], cuts: &Cuts) -> Tails {
    specs.iter().flatten().map(|spec| (spec.partition, Tail::of(spec, cuts))).collect()
}

/// The partitions of one slice that its shard does not own, or whose batches do not lead on from what is committed, one after the other.
fn odd(batches: &[RecoveredBatch], tails: &Tails, owns: impl Fn(PartitionId) -> bool) -> BTreeSet<PartitionId> {
    let mut odd = BTreeSet::new();
    // The next offset, and the epoch of the batch before it.
    let mut ends: BTreeMap<PartitionId, (Offset, LeaderEpoch)> = BTreeMap::new();
    for RecoveredBatch { partition, head, .. } in batches {
        let Some(tail) = tails.get(partition) else { continue };
        if tail.supersedes(head) {
            odd.insert(*partition);
        }
        if head.last_offset() < tail.committed_end {
            continue;
        }
        let (base, epoch) = (head.base_offset(), head.leader_epoch());
        let (next, last) = ends.entry(*partition).or_insert_with(|| {
            if !owns(*partition) {
                odd.insert(*partition);
            }
            (tail.committed_end, epoch)
        });
        if tail.misses(*next, base) || epoch < *last || (base < *next && epoch > *last) {
            odd.insert(*partition);
        }
        (*next, *last) = ((*next).max(head.last_offset().next()), (*last).max(epoch));
    }
    odd
}

/// Finds out who owns the partitions that lie where they should not, and what of them counts; `held` is by shard.
///
/// # Errors
/// Batches of one are missing, or lie in more than two slices.
pub(super) fn settle(held: &[Held], tails: &Tails, accept_loss: bool) -> Result<Settled, String> {
    let given_up = vec![BTreeSet::new(); held.len()];
    let mut settled = Settled { given_up, ..Settled::default() };
    let odd: BTreeSet<PartitionId> = held.iter().flat_map(|held| &held.odd).copied().collect();
    if odd.is_empty() {
        return Ok(settled);
    }
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::LoanForgotten) {
        return Ok(settled);
    }
    let mut found: BTreeMap<PartitionId, Vec<Placed>> = BTreeMap::new();
    for (slice, held) in held.iter().enumerate() {
        for batch in held.batches.iter().filter(|batch| odd.contains(&batch.partition)) {
            found.entry(batch.partition).or_default().push((slice, *batch));
        }
    }
    for (partition, batches) in found {
        let Some(tail) = tails.get(&partition) else { continue };
        let Chain { batches: chain, cut } = chain(tail, batches.clone(), accept_loss)?;
        settled.cuts.extend(cut.map(|at| (partition, at)));
        let counts: BTreeSet<(usize, Lsn)> = chain.iter().map(|(slice, batch)| (*slice, batch.lsn)).collect();
        for (slice, batch) in batches {
            let known = batch.head.last_offset() < tail.committed_end && !tail.supersedes(&batch.head);
            if !known && !counts.contains(&(slice, batch.lsn)) {
                settled.given_up[slice].insert(batch.lsn);
            }
        }
        settled.partitions.extend(settlement(tail, &chain, held)?);
    }
    Ok(settled)
}

/// Who owns a partition whose log is `chain`, and who lends.
fn settlement(tail: &Tail, chain: &[Placed], held: &[Held]) -> Result<Option<Settlement>, String> {
    let Some((last, _)) = chain.last() else { return Ok(None) };
    let owner = *last;
    let before = chain.iter().rposition(|(slice, _)| *slice != owner).map_or(0, |at| at + 1);
    let lender = chain.first().map(|(slice, _)| *slice).filter(|_| before > 0);
    if chain[..before].iter().any(|(slice, _)| Some(*slice) != lender) {
        return Err(format!(
            "partition {} of topic {} lies in more slices of the log than two: start once with another number of \"shards\"",
            tail.partition.index, tail.topic_name
        ));
    }
    let heads = || chain[..before].iter().map(|(_, batch)| batch.head).collect();
    Ok(Some(Settlement {
        partition: tail.partition,
        owner: held[owner].shard,
        lender: lender.map(|lender| (held[lender].shard, heads())),
    }))
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

/// Puts together what `found` has of a partition, twice or out of order.
///
/// # Errors
/// Batches are missing between two; with `accept_loss` all behind the gap are left out, as when one log is cut.
pub(super) fn chain(tail: &Tail, found: Vec<Placed>, accept_loss: bool) -> Result<Chain, String> {
    let open = |head: &BatchHead| head.last_offset() >= tail.committed_end && !tail.supersedes(head);
    let mut found: Vec<Placed> = found.into_iter().filter(|(_, batch)| open(&batch.head)).collect();
    let mut begins = Begins::default();
    found.iter().for_each(|(_, batch)| begins.note(&batch.head));
    found.retain(|(_, batch)| begins.in_force(&batch.head));
    found.sort_by_key(|(slice, batch)| (batch.head.base_offset(), *slice));
    let mut next = tail.committed_end;
    let mut chain = Chain { batches: Vec::with_capacity(found.len()), cut: None };
    for (slice, batch) in found {
        let base = batch.head.base_offset();
        if tail.misses(next, base) {
            let why = tail.gap(base, next);
            if !accept_loss {
                return Err(why);
            }
            tracing::error!("{why}; it ends there, for loss is accepted");
            chain.cut = Some(next);
            break;
        }
        if base > next {
            // All that is missing is deleted, and so is what lies before it.
            chain.batches.clear();
            next = base;
        }
        // What was copied is not copied again.
        if base == next {
            next = batch.head.last_offset().next();
            chain.batches.push((slice, batch));
        }
    }
    if tail.begins_anew(next) {
        // Nobody would wait for the commit of what is left below, and whoever has it would upload it.
        chain.batches.clear();
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
            manifests: vec![],
            committed: vec![],
            epochs: vec![(LeaderEpoch(1), Offset(0))],
            producers: vec![],
            committed_end: Offset(committed_end),
            cleaned: Offset(0),
            internal: false,
            loan: None,
        }
    }

    fn batch(base: i64, count: i32, epoch: i32) -> RecoveredBatch {
        let mut head = BatchHead([0; HEAD_LEN]);
        head.set_batch_length(88);
        head.set_last_offset_delta(count - 1);
        head.stamp(Offset(base), LeaderEpoch(epoch));
        RecoveredBatch { partition: PARTITION, lsn: Lsn(base.unsigned_abs() * 4096), head }
    }

    fn held(slices: &[&[RecoveredBatch]]) -> Vec<Held> {
        let held = |(n, batches): (usize, &&[RecoveredBatch])| Held {
            shard: ShardId(n as u16),
            batches: Arc::new(batches.to_vec()),
            odd: BTreeSet::from([PARTITION]),
        };
        slices.iter().enumerate().map(held).collect()
    }

    fn goes_on(spec: PartitionSpec) -> Tails {
        tails(&[vec![spec]], &Cuts::new())
    }

    fn settled(slices: &[&[RecoveredBatch]], committed_end: i64) -> (u16, Option<(u16, Vec<i64>)>) {
        let settled = settle(&held(slices), &goes_on(spec(committed_end)), false).expect("whole").partitions;
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
        assert!(settle(&held(&[&first, &second]), &goes_on(spec(15)), false).expect("whole").partitions.is_empty());
    }

    #[test]
    fn a_gap_is_refused_or_the_end() {
        let (first, second) = ([batch(0, 5, 1)], [batch(10, 5, 1)]);
        let both = held(&[&first, &second]);
        assert!(settle(&both, &goes_on(spec(0)), false).expect_err("a gap").contains("offset 5 is neither"));
        let settled = settle(&both, &goes_on(spec(0)), true).expect("accepted");
        let ends = &settled.partitions[0];
        assert_eq!((ends.owner, ends.lender.is_none()), (ShardId(0), true));
        assert_eq!(settled.given_up, [BTreeSet::new(), BTreeSet::from([second[0].lsn])], "it does not come back");
    }

    #[test]
    fn a_slice_that_is_lost_costs_what_comes_after_it_too() {
        let second = [batch(10, 5, 1), batch(15, 5, 1)];
        let slices: [&[RecoveredBatch]; 2] = [&[], &second];
        assert!(settle(&held(&slices), &goes_on(spec(0)), false).expect_err("a gap").contains("offset 0 is neither"));
        let settled = settle(&held(&slices), &goes_on(spec(0)), true).expect("accepted");
        assert!(settled.partitions.is_empty(), "it is where the metadata says");
        assert_eq!(settled.given_up[1], BTreeSet::from([second[0].lsn, second[1].lsn]));
        // The next start needs no word: a later epoch has begun before them.
        let second = [second[0], second[1], batch(0, 12, 3)];
        let again = settle(&held(&[&[], &second]), &goes_on(spec(0)), false).expect("whole");
        assert_eq!(again.partitions[0].owner, ShardId(1));
        assert_eq!(again.given_up[1], BTreeSet::from([second[0].lsn, second[1].lsn]));
        // Nor later, when objects hold it.
        let later =
            PartitionSpec { epochs: vec![(LeaderEpoch(1), Offset(0)), (LeaderEpoch(3), Offset(4))], ..spec(15) };
        let later = settle(&held(&[&[], &second[..2]]), &goes_on(later), false).expect("whole");
        assert!(later.partitions.is_empty());
        assert_eq!(later.given_up[1].len(), 2, "one lies where other records are, one goes on from nothing");
    }

    #[test]
    fn what_was_cut_off_stays_so_though_nothing_was_appended_since() {
        let (first, second) = ([batch(0, 5, 1)], [batch(10, 5, 1), batch(15, 5, 1)]);
        let accepted = settle(&held(&[&first, &second]), &goes_on(spec(0)), true).expect("accepted");
        assert_eq!(accepted.cuts, [(PARTITION, Offset(5))]);
        let known = |at, committed_end| {
            tails(&[vec![spec(committed_end)]], &Cuts::from([(PARTITION, (LeaderEpoch(3), Offset(at)))]))
        };
        let again = settle(&held(&[&first, &second]), &known(5, 0), false).expect("the loss is known");
        assert_eq!((again.partitions[0].owner, again.partitions[0].lender.is_none()), (ShardId(0), true));
        assert_eq!((again.given_up, again.cuts), (accepted.given_up, vec![]));
        let second = [second[0], second[1], batch(5, 5, 3)];
        let later = settle(&held(&[&first, &second]), &known(5, 0), false).expect("it went on");
        assert_eq!((later.partitions[0].owner, later.given_up[1].len()), (ShardId(1), 2));
        // Another gap is another loss.
        let third = [batch(20, 5, 4)];
        let other = settle(&held(&[&first, &third]), &known(5, 0), false).expect_err("a gap");
        assert!(other.contains("offset 5 is neither"), "{other}");
    }

    fn bases(of: &[Placed]) -> Vec<i64> {
        of.iter().map(|(_, batch)| batch.head.base_offset().0).collect()
    }

    #[test]
    fn what_is_deleted_may_be_missing() {
        let spec = |log_start| PartitionSpec { log_start: Offset(log_start), ..spec(20) };
        // All that the lender had is lost, and deleted.
        let own = [batch(25, 5, 1), batch(30, 10, 1)];
        let slices: [&[RecoveredBatch]; 2] = [&[], &own];
        for (log_start, accept_loss) in [(25, false), (25, true), (27, false), (27, true)] {
            let settled = settle(&held(&slices), &goes_on(spec(log_start)), accept_loss).expect("nothing is lost");
            assert_eq!((settled.partitions[0].owner, settled.partitions[0].lender.is_none()), (ShardId(1), true));
            assert_eq!((settled.given_up[1].len(), settled.cuts), (0, vec![]));
        }
        let refused = settle(&held(&slices), &goes_on(spec(24)), false).expect_err("24 is not deleted");
        assert!(refused.contains("offset 24 is neither"), "{refused}");
        // Some of it is left: before what is lost it counts no more, behind that it is lent.
        let lent = [batch(20, 2, 1), batch(24, 1, 1)];
        let settled = settle(&held(&[&lent, &own]), &goes_on(spec(25)), false).expect("nothing is lost");
        let (lender, heads) = settled.partitions[0].lender.clone().expect("a loan");
        assert_eq!((lender, heads.len(), heads[0].base_offset()), (ShardId(0), 1, Offset(24)));
        assert_eq!(settled.given_up[0], BTreeSet::from([lent[0].lsn]));
        let odd = |log_start| !odd(&own, &goes_on(spec(log_start)), |_| true).is_empty();
        assert!(odd(24) && !odd(25));
    }

    #[test]
    fn a_log_that_began_anew_at_its_start_is_whole() {
        let spec = PartitionSpec { log_start: Offset(30), ..spec(20) };
        // What was left when it began anew, and what a slice has that was found again.
        let (left, anew) = ([batch(20, 5, 1), batch(25, 3, 1), batch(28, 4, 1)], [batch(30, 5, 5)]);
        for accept_loss in [false, true] {
            let settled = settle(&held(&[&left, &anew]), &goes_on(spec.clone()), accept_loss).expect("nothing is lost");
            assert_eq!((settled.partitions[0].owner, settled.partitions[0].lender.is_none()), (ShardId(1), true));
            assert_eq!((settled.given_up[0].len(), settled.given_up[1].len(), settled.cuts), (3, 0, vec![]));
            let found = left.iter().map(|batch| (0, *batch)).chain([(1, anew[0])]).collect();
            let chain = chain(&goes_on(spec.clone())[&PARTITION], found, accept_loss).expect("nothing is lost");
            assert_eq!(bases(&chain.batches), [30]);
        }
    }

    #[test]
    fn what_ends_below_the_log_start_is_not_lent() {
        let spec = PartitionSpec { log_start: Offset(30), ..spec(20) };
        let (lent, own) = ([batch(20, 5, 1)], [batch(25, 3, 1)]);
        let settled = settle(&held(&[&lent, &own]), &goes_on(spec), false).expect("all of it is deleted");
        assert!(settled.partitions.is_empty(), "it begins anew where the metadata says");
        assert_eq!((settled.given_up[0].len(), settled.given_up[1].len()), (1, 1));
    }

    #[test]
    fn a_slice_in_order_is_not_looked_at_again() {
        let tails = goes_on(spec(5));
        let odd = |batches: &[RecoveredBatch]| !odd(batches, &tails, |_| true).is_empty();
        assert!(!odd(&[batch(0, 5, 1), batch(5, 5, 1), batch(10, 5, 4)]));
        assert!(!odd(&[batch(5, 5, 1), batch(5, 5, 1), batch(10, 5, 1)]), "twice the same");
        assert!(odd(&[batch(6, 5, 1)]), "a gap");
        assert!(odd(&[batch(5, 5, 2), batch(7, 5, 4)]), "a later epoch in the place of another");
        assert!(odd(&[batch(0, 5, 0)]), "objects hold others");
        assert!(odd(&[batch(5, 5, 0)]), "objects hold what is later");
        assert!(!super::odd(&[batch(5, 5, 1)], &tails, |_| false).is_empty(), "another's");
    }

    #[test]
    fn what_a_later_epoch_took_the_place_of_is_gone() {
        let (first, second) = ([batch(0, 5, 1), batch(5, 5, 2)], [batch(7, 5, 1)]);
        assert_eq!(settled(&[&first, &second], 0), (0, None));
    }

    #[test]
    fn lenders_open_what_they_lend() {
        let (first, second) = ([batch(0, 5, 1)], [batch(5, 5, 1)]);
        let settled = settle(&held(&[&first, &second]), &goes_on(spec(0)), false).expect("whole").partitions;
        let mut specs = vec![vec![], vec![spec(0)]];
        lend(&mut specs, settled);
        assert!(matches!(specs[0][0].loan, Some(Loan::To(ShardId(1)))));
        assert!(matches!(&specs[1][0].loan, Some(Loan::From { lender: ShardId(0), heads }) if heads.len() == 1));
    }
}
