//! How many entries go to a manifest. Pure.

/// One transaction compares each of them: etcd has room for 128 comparisons.
const MOST_ENTRIES: usize = 100;

/// Of `entries`, how many of the oldest are folded, when `max` may stay and the oldest `settled` do not change any more; 0: none. Half of
/// what may stay does, and a manifest of fewer than a quarter of it is not worth its request.
pub(super) fn entries_to_fold(entries: usize, settled: usize, max: usize) -> usize {
    if entries <= max {
        return 0;
    }
    let run = (entries - max / 2).min(settled).min(MOST_ENTRIES);
    if 4 * run >= max { run } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_of_a_partition_among_ten_thousand_at_a_gib_per_second() {
        // Of a shard of sixteen, fifty uploads of 64 MiB become one entry of each partition; meanwhile they are fifty.
        let merges = 7 * 86_400 * 1024 / 16 / (50 * 64);
        let (mut settled, mut manifests, mut most) = (0usize, 0usize, 0usize);
        for upload in 1..=50 * merges {
            let waiting = upload % 50;
            settled += usize::from(waiting == 0);
            most = most.max(settled + waiting);
            let folded = entries_to_fold(settled + waiting, settled, 200);
            settled -= folded;
            manifests += usize::from(folded > 0);
        }
        println!("{merges} entries: {manifests} manifests, and at most {most} entries beside them");
        assert_eq!((merges, manifests, most), (12_096, 120, 201));
    }

    #[test]
    fn the_oldest_half_goes_when_there_are_too_many() {
        assert_eq!(entries_to_fold(200, 200, 200), 0);
        assert_eq!(entries_to_fold(201, 151, 200), MOST_ENTRIES);
        assert_eq!(entries_to_fold(1_000, 1_000, 200), MOST_ENTRIES);
        assert_eq!(entries_to_fold(201, 60, 200), 60, "what compaction still merges stays");
        assert_eq!(entries_to_fold(201, 49, 200), 0, "too few for a manifest");
        assert_eq!(entries_to_fold(4, 3, 3), 3);
        assert_eq!((entries_to_fold(2, 2, 1), entries_to_fold(2, 0, 1)), (2, 0));
    }
}
