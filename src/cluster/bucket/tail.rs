//! Which objects of the bucket come after a metadata snapshot, decided without doing it.
//!
//! Pure. Tail objects are chained partition by partition, start = end, from where the snapshot ends. Where a later leader
//! epoch begins, what earlier epochs wrote past that offset was lost before it could be read, and is cut. Of several chains the
//! one that reaches furthest is taken: within an epoch all objects hold the same batches at the same offsets.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_objectstore::{
    ObjectKey,
    format::{BlockEntry, Inspection},
};
use thalweg_record::{LeaderEpoch, Offset, PartitionId, Wall};
use thalweg_shards::{
    meta::{CommitRange, ObjectId},
    msg::ProducerEntry,
};

/// An upload sequence that no shard counts to: objects that compaction wrote. With a snapshot they count only when it names them.
pub(super) const NOT_A_TAIL: u64 = u64::MAX;

/// An object that no snapshot names.
#[derive(Clone, Debug)]
pub(super) struct TailObject {
    pub(super) id: ObjectId,
    pub(super) key: ObjectKey,
    pub(super) bytes: u64,
    /// The writer's.
    pub(super) node_epoch: i32,
    pub(super) shard: u16,
    pub(super) parts: Vec<TailPart>,
}

/// What it holds of one partition.
#[derive(Clone, Debug)]
pub(super) struct TailPart {
    pub(super) partition: PartitionId,
    pub(super) topic_name: String,
    pub(super) settings_version: u64,
    pub(super) log_start: Offset,
    /// All that the writer knew.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) producers: Vec<ProducerEntry>,
    pub(super) blocks: Vec<BlockEntry>,
    /// It was copied, and perhaps cleaned, from objects of lower ids.
    pub(super) copied: bool,
}

impl TailObject {
    /// What an object says of itself; `None` when it is no tail object of `cluster_id`. What compaction wrote is one only without a
    /// snapshot: the uploads that it was copied from may be gone then, and it holds nothing but what was committed.
    pub(super) fn of(found: Inspection, cluster_id: &str, without_snapshot: bool) -> Option<TailObject> {
        let about = found.properties;
        let counts = about.upload_sequence != NOT_A_TAIL || without_snapshot;
        if about.cluster_id != cluster_id || !counts {
            return None;
        }
        let copied = about.upload_sequence == NOT_A_TAIL;
        let parts = about.partitions.into_iter().map(|part| TailPart {
            copied,
            blocks: found.index.partition(part.partition).to_vec(),
            partition: part.partition,
            topic_name: part.topic_name,
            settings_version: part.settings_version,
            log_start: part.log_start,
            epochs: part.epochs,
            producers: part.producers.iter().map(ProducerEntry::from).collect(),
        });
        Some(TailObject {
            id: ObjectId(found.footer.object),
            key: found.key,
            bytes: found.size_bytes,
            node_epoch: i32::try_from(about.node_epoch).ok()?,
            shard: about.shard.0,
            parts: parts.filter(|part| !part.blocks.is_empty()).collect(),
        })
    }
}

/// Where a partition's chain begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Begin {
    pub(super) committed_end: Offset,
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    /// No snapshot tells of the partition: its first objects may be gone, so its chain may begin anywhere.
    pub(super) unknown: bool,
}

/// A partition's chain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Chain {
    /// By first offset: the object, and the range of it that counts.
    pub(super) links: Vec<(ObjectId, CommitRange)>,
    /// The greatest log start that its objects tell.
    pub(super) log_start: Offset,
    /// Records that earlier epochs wrote past the start of a later one.
    pub(super) cut: u64,
    /// Objects that cannot have been committed, and a leader epoch they tell that begins inside of what the links hold of earlier ones: one
    /// of the two was given up, and nobody can tell which.
    pub(super) doubts: Vec<(ObjectId, LeaderEpoch, Offset)>,
}

/// Chains the parts of one partition; `parts` in any order.
pub(super) fn chain(begin: &Begin, parts: &[(ObjectId, &TailPart)]) -> Chain {
    let parts = &newest(parts)[..];
    let fits = fits(begin, parts);
    let may_be_committed = parts.iter().zip(&fits).filter(|(_, fits)| **fits);
    let told = may_be_committed.flat_map(|((_, part), _)| &part.epochs);
    let epochs: BTreeSet<(LeaderEpoch, Offset)> = begin.epochs.iter().chain(told).copied().collect();
    let mut ranges = Vec::new();
    let (mut cut, mut log_start) = (0, Offset(0));
    for (object, part) in parts {
        log_start = log_start.max(part.log_start);
        let sound: Vec<BlockEntry> = part.blocks.iter().take_while(|b| survives(b, &epochs)).copied().collect();
        cut += part.blocks[sound.len()..].iter().map(|block| block.records).sum::<u64>();
        if let Some(range) = range(part, &sound) {
            ranges.push((*object, range));
        }
    }
    ranges.sort_by_key(|(object, range)| (range.base, *object));
    let mut links = furthest(begin, &begins_anew(begin, parts), ranges);
    if let Some((object, range)) =
        links.first_mut().filter(|(_, range)| begin.unknown || range.base > begin.committed_end)
    {
        range.epochs.splice(0..0, in_force_before(range.base, *object, parts));
    }
    if begin.unknown {
        log_start = log_start.max(links.first().map_or_else(|| beyond(parts), |(_, range)| range.base));
    }
    let strays = parts.iter().zip(&fits).filter(|(_, fits)| !**fits);
    let doubt = |(object, part): &(ObjectId, &TailPart)| {
        let told = part.epochs.iter().find(|(epoch, first)| replaces(*epoch, *first, &links, parts));
        told.map(|(epoch, first)| (*object, *epoch, *first))
    };
    let doubts = strays.filter_map(|(stray, _)| doubt(stray)).collect();
    Chain { links, log_start, cut, doubts }
}

/// The parts without those that a later object holds a copy of: the copy may be cleaned, and of what it was made from some may be gone, so
/// that a mixture of both could bring back what was deleted.
fn newest<'a>(parts: &[(ObjectId, &'a TailPart)]) -> Vec<(ObjectId, &'a TailPart)> {
    let range = |part: &TailPart| Some((part.blocks.first()?.base, part.blocks.last()?.last));
    let copies: Vec<(ObjectId, Offset, Offset)> = parts
        .iter()
        .filter(|(_, part)| part.copied)
        .filter_map(|(id, part)| range(part).map(|(base, last)| (*id, base, last)))
        .collect();
    let is_copied = |(id, part): &(ObjectId, &TailPart)| {
        let Some((base, last)) = range(part) else { return false };
        copies.iter().any(|(copy, from, to)| copy > id && *from <= base && *to >= last)
    };
    parts.iter().filter(|part| !is_copied(part)).copied().collect()
}

/// Whether a leader epoch begins inside of a link, before records that an earlier epoch wrote.
fn replaces(
    epoch: LeaderEpoch,
    first: Offset,
    links: &[(ObjectId, CommitRange)],
    parts: &[(ObjectId, &TailPart)],
) -> bool {
    let mut inside = links.iter().filter(|(_, range)| (range.base..=range.last).contains(&first));
    inside.any(|(object, range)| {
        let mut blocks = parts.iter().filter(|(id, _)| id == object).flat_map(|(_, part)| &part.blocks);
        blocks.any(|block| block.leader_epoch < epoch && (first..=range.last).contains(&block.last))
    })
}

/// Where a log may have gone on behind a loss: whoever wrote a part knew that all before it was deleted.
fn begins_anew(begin: &Begin, parts: &[(ObjectId, &TailPart)]) -> BTreeSet<Offset> {
    let begins = parts.iter().filter_map(|(_, part)| Some((part.blocks.first()?.base, part.log_start)));
    let begins = begins.filter(|(base, log_start)| *base > begin.committed_end && base <= log_start);
    begins.map(|(base, _)| base).collect()
}

/// Which parts can have been committed: a commit is of a whole range, and begins where another one ended, or behind the end where all before
/// it is deleted. What others say of epochs concerns nobody.
fn fits(begin: &Begin, parts: &[(ObjectId, &TailPart)]) -> Vec<bool> {
    let whole = |part: &TailPart| Some((part.blocks.first()?.base, part.blocks.last()?.last));
    let mut ranges: Vec<(usize, Option<(Offset, Offset)>)> =
        parts.iter().map(|(_, part)| whole(part)).enumerate().collect();
    ranges.sort_by_key(|(_, range)| *range);
    let mut reached = BTreeSet::from([begin.committed_end]);
    let anew = begins_anew(begin, parts);
    let mut fits = vec![begin.unknown; parts.len()];
    for (n, range) in ranges {
        let Some((base, last)) = range.filter(|(base, _)| reached.contains(base) || anew.contains(base)) else {
            continue;
        };
        fits[n] = true;
        reached.insert(last.next());
        debug_assert!(base <= last, "blocks ascend");
    }
    fits
}

/// The leader epoch that the first range of a partition goes on with: no earlier object is there to tell it.
fn in_force_before(base: Offset, object: ObjectId, parts: &[(ObjectId, &TailPart)]) -> Option<(LeaderEpoch, Offset)> {
    let (_, part) = parts.iter().find(|(id, _)| *id == object)?;
    let in_force = part.epochs.iter().filter(|(_, first)| *first <= base).max()?;
    // One that begins right here is among the range's own.
    (in_force.1 < base).then_some(*in_force)
}

/// Where offsets go on that nobody has used, by all that the parts of a partition say.
fn beyond(parts: &[(ObjectId, &TailPart)]) -> Offset {
    let told = parts.iter().flat_map(|(_, part)| {
        let ends = part.blocks.iter().map(|block| block.last.next());
        ends.chain(part.epochs.iter().map(|(_, first)| *first)).chain([part.log_start])
    });
    told.max().unwrap_or_default()
}

/// Whether no later epoch begins at or before the end of a block.
fn survives(block: &BlockEntry, epochs: &BTreeSet<(LeaderEpoch, Offset)>) -> bool {
    epochs.iter().all(|(epoch, first)| *epoch <= block.leader_epoch || *first > block.last)
}

fn range(part: &TailPart, blocks: &[BlockEntry]) -> Option<CommitRange> {
    let (base, last) = (blocks.first()?.base, blocks.last()?.last);
    let mut producers = part.producers.clone();
    for producer in &mut producers {
        producer.window.retain(|batch| batch.last_offset <= last);
    }
    producers.retain(|producer| !producer.window.is_empty());
    Some(CommitRange {
        partition: part.partition,
        base,
        last,
        size_bytes: blocks.iter().map(|b| u64::from(b.size_bytes)).sum(),
        max_timestamp: blocks.iter().map(|b| b.max_timestamp).max().unwrap_or(Wall(-1)),
        epochs: part.epochs.iter().filter(|(_, first)| (base..=last).contains(first)).copied().collect(),
        producers,
    })
}

/// How an offset is reached.
#[derive(Clone, Copy)]
struct Reached {
    /// Where the chain begins that leads there.
    from: Offset,
    /// Its last range; `None` at the beginning.
    by: Option<usize>,
}

/// The contiguous ranges from `end` that reach furthest; of several, those that begin lowest. `ranges` ascend by first offset. A log that
/// was lost below its start goes on at any range that begins there; one of which nothing is known, at any range that follows none.
fn furthest(
    begin: &Begin,
    begins_anew: &BTreeSet<Offset>,
    ranges: Vec<(ObjectId, CommitRange)>,
) -> Vec<(ObjectId, CommitRange)> {
    let anew = |from: Offset| Reached { from, by: None };
    let mut reached: BTreeMap<Offset, Reached> = BTreeMap::from([(begin.committed_end, anew(begin.committed_end))]);
    for (n, (_, range)) in ranges.iter().enumerate() {
        if begin.unknown || begins_anew.contains(&range.base) {
            reached.entry(range.base).or_insert(anew(range.base));
        }
        // All that ends where this one begins has a lower first offset, and was looked at before.
        let Some(Reached { from, .. }) = reached.get(&range.base).copied() else { continue };
        let led = Reached { from, by: Some(n) };
        let known = reached.entry(range.last.next()).or_insert(led);
        if led.from < known.from {
            *known = led;
        }
    }
    let mut links = Vec::new();
    let mut at = reached.last_key_value().and_then(|(_, end)| end.by);
    while let Some(n) = at {
        links.push(n);
        at = reached[&ranges[n].1.base].by;
    }
    let mut by_place: BTreeMap<usize, (ObjectId, CommitRange)> = ranges.into_iter().enumerate().collect();
    links.iter().rev().filter_map(|n| by_place.remove(n)).collect()
}

#[cfg(test)]
mod tests {
    use thalweg_shards::msg::ProducerBatch;

    use super::*;

    fn block(base: i64, last: i64, epoch: i32) -> BlockEntry {
        BlockEntry {
            partition: PartitionId::default(),
            leader_epoch: LeaderEpoch(epoch),
            base: Offset(base),
            last: Offset(last),
            records: (last - base + 1) as u64,
            max_timestamp: Wall(last),
            max_timestamp_base: Offset(base),
            position: 0,
            size_bytes: 100,
            crc: 0,
        }
    }

    fn part(blocks: &[(i64, i64, i32)], epochs: &[(i32, i64)], log_start: i64) -> TailPart {
        TailPart {
            partition: PartitionId::default(),
            topic_name: "t".into(),
            settings_version: 1,
            log_start: Offset(log_start),
            epochs: epochs.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))).collect(),
            producers: vec![ProducerEntry {
                producer_id: 1,
                epoch: 0,
                window: blocks
                    .iter()
                    .map(|(base, last, _)| ProducerBatch {
                        first_sequence: *base as i32,
                        last_sequence: *last as i32,
                        base_offset: Offset(*base),
                        last_offset: Offset(*last),
                    })
                    .collect(),
                last_timestamp: Wall(5),
            }],
            blocks: blocks.iter().map(|(b, l, e)| block(*b, *l, *e)).collect(),
            copied: false,
        }
    }

    #[test]
    fn a_copy_goes_before_what_it_was_made_from() {
        let plain = |base, last| part(&[(base, last, 0)], &[(0, 0)], 0);
        let copy = |base, last| TailPart { copied: true, ..plain(base, last) };
        let links = |parts: &[TailPart]| chained(0, &[(0, 0)], parts).0;
        assert_eq!(links(&[plain(0, 9), plain(10, 19), copy(0, 19), plain(20, 29)]), [(2, 0, 19), (3, 20, 29)]);
        // The copy of a copy; an upload beside them.
        let parts = [plain(0, 9), copy(0, 9), plain(10, 19), copy(0, 19)];
        assert_eq!(links(&parts), [(3, 0, 19)]);
        assert_eq!(links(&[copy(0, 9), plain(0, 9)]), [(0, 0, 9)], "of an earlier id it is no copy of this");
    }

    fn chained(end: i64, known: &[(i32, i64)], parts: &[TailPart]) -> (Vec<(u64, i64, i64)>, Chain) {
        let epochs = known.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))).collect();
        let parts: Vec<_> = parts.iter().enumerate().map(|(n, part)| (ObjectId(n as u64), part)).collect();
        let chain = chain(&Begin { committed_end: Offset(end), epochs, unknown: false }, &parts);
        (chain.links.iter().map(|(id, r)| (id.0, r.base.0, r.last.0)).collect(), chain)
    }

    #[test]
    fn what_follows_the_end_is_chained_in_order() {
        let e = [(0, 0)];
        let parts = [part(&[(20, 29, 0)], &e, 0), part(&[(10, 19, 0)], &e, 3), part(&[(40, 49, 0)], &e, 0)];
        let (links, chain) = chained(10, &e, &parts);
        assert_eq!(links, [(1, 10, 19), (0, 20, 29)], "40 has nothing before it");
        assert_eq!((chain.log_start, chain.cut), (Offset(3), 0));
        assert_eq!(chained(0, &e, &parts).0, []);
    }

    #[test]
    fn of_two_uploads_of_the_same_records_the_chain_goes_on() {
        // The first upload failed after its put; the second was cut elsewhere, and a third follows it.
        let e = [(0, 0)];
        let parts = [part(&[(0, 9, 0)], &e, 0), part(&[(0, 14, 0)], &e, 0), part(&[(15, 19, 0)], &e, 0)];
        assert_eq!(chained(0, &e, &parts).0, [(1, 0, 14), (2, 15, 19)]);
    }

    #[test]
    fn what_an_epoch_wrote_past_the_start_of_the_next_is_cut() {
        // The log was lost at 10, and epoch 3 began there; what epoch 2 had uploaded beyond was never committed.
        let old = part(&[(0, 9, 2), (10, 29, 2)], &[(2, 0)], 0);
        let again = part(&[(0, 9, 2)], &[(2, 0)], 0);
        let new = part(&[(10, 12, 3)], &[(2, 0), (3, 10)], 0);
        let (links, chain) = chained(0, &[], &[old, again, new]);
        assert_eq!(links, [(0, 0, 9), (2, 10, 12)]);
        assert_eq!(chain.cut, 20);
        let producers = &chain.links[0].1.producers;
        assert_eq!(producers[0].window.iter().map(|b| b.last_offset.0).collect::<Vec<_>>(), [9], "cut likewise");
    }

    #[test]
    fn an_epoch_that_the_snapshot_knows_cuts_too() {
        let old = part(&[(10, 29, 2)], &[(2, 0)], 0);
        let (links, chain) = chained(10, &[(2, 0), (3, 10)], &[old]);
        assert_eq!((links.len(), chain.cut), (0, 20));
    }

    #[test]
    fn what_cannot_have_been_committed_cuts_nothing() {
        // Nothing ends at 19: whoever wrote this there knew another log.
        let committed = part(&[(10, 29, 2)], &[(2, 0)], 0);
        let stray = part(&[(20, 22, 3)], &[(2, 0), (3, 20)], 0);
        let (links, chain) = chained(10, &[(2, 0)], &[committed, stray]);
        assert_eq!((links, chain.cut), (vec![(0, 10, 29)], 0));
        assert_eq!(chain.doubts, [(ObjectId(1), LeaderEpoch(3), Offset(20))], "and is not passed over in silence");
    }

    #[test]
    fn uploads_that_were_cut_elsewhere_by_the_same_epochs_raise_no_doubt() {
        let e = [(1, 0), (2, 20)];
        let stray = part(&[(15, 19, 1), (20, 34, 2)], &e, 0);
        let parts = [part(&[(10, 19, 1), (20, 29, 2)], &e, 0), part(&[(30, 39, 2)], &e, 0), stray];
        let (links, chain) = chained(10, &[(1, 0)], &parts);
        assert_eq!((links, chain.doubts), (vec![(0, 10, 29), (1, 30, 39)], vec![]));
    }

    fn of_unknown(parts: &[TailPart]) -> (Vec<(u64, i64, i64)>, Chain) {
        let parts: Vec<_> = parts.iter().enumerate().map(|(n, part)| (ObjectId(n as u64), part)).collect();
        let chain = chain(&Begin { unknown: true, ..Begin::default() }, &parts);
        (chain.links.iter().map(|(id, r)| (id.0, r.base.0, r.last.0)).collect(), chain)
    }

    #[test]
    fn a_partition_of_which_nothing_is_known_begins_where_its_objects_do_and_never_below_what_they_tell() {
        let unknown = |parts: &[TailPart]| {
            let (links, chain) = of_unknown(parts);
            (links, chain.log_start.0)
        };
        let e = [(0, 0)];
        // Retention took 0 to 99, and no object was written since.
        let parts = [part(&[(200, 299, 0)], &e, 0), part(&[(100, 199, 0)], &e, 0)];
        assert_eq!(unknown(&parts), (vec![(1, 100, 199), (0, 200, 299)], 100));
        // A hole: what lies before it is given up, for offsets go on behind it.
        let parts = [part(&[(0, 9, 0)], &e, 0), part(&[(20, 29, 0)], &e, 0)];
        assert_eq!(unknown(&parts), (vec![(1, 20, 29)], 20));
        // All that is left was cut by a later epoch, which began further on.
        let parts = [part(&[(30, 39, 1)], &[(1, 0), (2, 35), (3, 70)], 5)];
        assert_eq!(unknown(&parts), (vec![], 70));
        assert_eq!(unknown(&[part(&[(0, 9, 0)], &e, 4)]), (vec![(0, 0, 9)], 4));
    }

    #[test]
    fn of_two_chains_to_one_place_the_one_that_begins_lower_counts() {
        // An upload of 10 to 29 was put, and none of what lies before it; the next run cut elsewhere.
        let e = [(0, 0)];
        let parts = [part(&[(0, 19, 0)], &e, 0), part(&[(10, 29, 0)], &e, 0), part(&[(20, 29, 0)], &e, 0)];
        let (links, chain) = of_unknown(&parts);
        assert_eq!((links, chain.log_start), (vec![(0, 0, 19), (2, 20, 29)], Offset(0)));
        // A log start where one range ends and the next begins cuts nothing off: the first tells of producers.
        let parts = [part(&[(10, 19, 0)], &e, 0), part(&[(20, 29, 0)], &e, 20)];
        assert_eq!(chained(10, &e, &parts).0, [(0, 10, 19), (1, 20, 29)]);
    }

    #[test]
    fn the_first_range_of_a_partition_tells_the_epoch_that_it_goes_on_with() {
        let epochs = |base: i64| {
            let parts = [part(&[(base, 19, 1), (20, 29, 2)], &[(0, 0), (1, 5), (2, 20)], 0)];
            let told = of_unknown(&parts).1.links[0].1.epochs.clone();
            told.into_iter().map(|(epoch, first)| (epoch.0, first.0)).collect::<Vec<_>>()
        };
        assert_eq!((epochs(10), epochs(5)), (vec![(1, 5), (2, 20)], vec![(1, 5), (2, 20)]));
    }

    #[test]
    fn a_log_that_began_anew_at_its_start_is_found() {
        let parts = [part(&[(30, 39, 4)], &[(4, 30)], 30)];
        assert_eq!(chained(10, &[(2, 0)], &parts).0, [(0, 30, 39)]);
    }

    #[test]
    fn a_log_that_went_on_before_its_start_is_found_whole() {
        // What lay from 10 to 24 is lost, and the log start lies inside of what came next.
        let e = [(2, 0), (4, 22)];
        let parts = [part(&[(25, 34, 4)], &e, 30), part(&[(35, 39, 4)], &e, 30)];
        let (links, chain) = chained(10, &[(2, 0)], &parts);
        assert_eq!((links, chain.log_start), (vec![(0, 25, 34), (1, 35, 39)], Offset(30)));
        assert_eq!(chain.links[0].1.epochs, [(LeaderEpoch(4), Offset(22))], "it is told by nobody else");
        let parts = [part(&[(25, 34, 2)], &[(2, 0)], 24), part(&[(35, 39, 2)], &[(2, 0)], 30)];
        assert_eq!(chained(10, &[(2, 0)], &parts).0, [], "not all that is missing was deleted when it was written");
        // Objects that were put before the loss, and not committed.
        let lost = |base, last| part(&[(base, last, 2)], &[(2, 0)], 0);
        let parts = [lost(10, 29), lost(30, 49), part(&[(25, 34, 4)], &[(2, 0), (4, 25)], 30)];
        let (links, chain) = chained(10, &[(2, 0)], &parts);
        assert_eq!((links, chain.doubts), (vec![(2, 25, 34)], vec![]), "the epoch that went on is in force");
    }

    #[test]
    fn a_log_start_inside_of_what_is_whole_leaves_nothing_out() {
        let e = [(2, 0)];
        let parts = [part(&[(10, 19, 2)], &e, 0), part(&[(20, 29, 2)], &e, 25), part(&[(30, 39, 2)], &e, 25)];
        assert_eq!(chained(10, &e, &parts).0, [(0, 10, 19), (1, 20, 29), (2, 30, 39)]);
    }

    #[test]
    fn a_range_tells_the_epochs_that_begin_in_it() {
        let parts = [part(&[(10, 19, 1), (20, 29, 2)], &[(0, 0), (1, 5), (2, 20)], 0)];
        let (_, chain) = chained(10, &[], &parts);
        let range = &chain.links[0].1;
        assert_eq!(range.epochs, [(LeaderEpoch(2), Offset(20))]);
        assert_eq!((range.size_bytes, range.max_timestamp), (200, Wall(29)));
    }
}
