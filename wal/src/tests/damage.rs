//! Cuts and damage at every block: what was acknowledged is kept or its loss is refused, a torn tail is cut.

use proptest::prelude::*;

use super::*;
use crate::format::BLOCK;

const RING: usize = 2 * BLOCK as usize;

/// A log of one group for each of `sizes`, all durable. Returns the device and the groups' starts, the head last.
fn log_of(sizes: &[usize]) -> (MemoryDevice, Vec<usize>) {
    let device = slice(512);
    let mut log = reopen(&device).log;
    let mut starts: Vec<usize> = Vec::new();
    for (base, size) in sizes.iter().enumerate() {
        starts.push(append(&device, &mut log, base as i64, &vec![base as u8 + 1; *size]).0 as usize);
    }
    starts.push(log.head().0 as usize);
    (device, starts)
}

/// Index of the group that lies at `at`.
fn group_at(starts: &[usize], at: usize) -> usize {
    starts.partition_point(|start| *start <= at) - 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_tail_cut_at_any_block_leaves_the_groups_before_it(sizes in prop::collection::vec(0usize..16_000, 1..12)) {
        let (device, starts) = log_of(&sizes);
        let whole = device.to_bytes();
        for cut in (0..*starts.last().expect("the head")).step_by(BLOCK as usize) {
            let mut bytes = whole.clone();
            bytes[RING + cut..].fill(0);
            let recovered = reopen(&MemoryDevice::of_bytes(bytes));
            let within = group_at(&starts, cut);
            // The last bytes of a group may be zeros anyway.
            let lost = whole[RING + cut..RING + starts[within + 1]].iter().any(|byte| *byte != 0);
            let kept = within + usize::from(!lost);
            prop_assert_eq!(offsets(&recovered), (0..kept as i64).collect::<Vec<_>>(), "cut at {}", cut);
        }
    }

    #[test]
    fn damage_at_any_block_is_found(
        sizes in prop::collection::vec(0usize..16_000, 1..12),
        within in 0usize..BLOCK as usize,
        flip in 1u8..,
    ) {
        let (device, starts) = log_of(&sizes);
        let whole = device.to_bytes();
        let head = *starts.last().expect("the head");
        for at in (0..head).step_by(BLOCK as usize).map(|block| block + within) {
            let group = group_at(&starts, at);
            let device = MemoryDevice::of_bytes(whole.clone());
            device.change(|bytes| bytes[RING + at] ^= flip);
            let used = crate::format::GROUP_HEADER_LEN + HEAD_LEN + sizes[group] + crate::format::ENTRY_LEN;
            match try_open(&device, small(), false) {
                // Bytes that fill the last block mean nothing.
                Ok(found) if at >= starts[group] + used => prop_assert_eq!(found.batches.len(), sizes.len()),
                // Nothing says that the last group was acknowledged: a torn tail.
                Ok(found) => prop_assert_eq!((group, found.batches.len()), (sizes.len() - 1, group)),
                Err(OpenError::Damaged(damage)) => {
                    prop_assert_eq!(damage.at, Lsn(starts[group] as u64));
                    prop_assert!(group < sizes.len() - 1 && at < starts[group] + used);
                    let mut accepted = try_open(&device, small(), true).expect("opens");
                    prop_assert_eq!(offsets(&accepted), (0..group as i64).collect::<Vec<_>>());
                    append(&device, &mut accepted.log, group as i64, b"goes on");
                    prop_assert_eq!(offsets(&reopen(&device)), (0..=group as i64).collect::<Vec<_>>());
                }
                Err(e) => prop_assert!(false, "{}", e),
            }
        }
    }

    #[test]
    fn lost_groups_in_flight_never_hide_acknowledged_ones(
        sizes in prop::collection::vec(0usize..9_000, 2..12),
        acknowledged in 0usize..12,
        survives in any::<u16>(),
    ) {
        let device = slice(512);
        let mut log = reopen(&device).log;
        let acknowledged = acknowledged.min(sizes.len());
        for (base, size) in sizes[..acknowledged].iter().enumerate() {
            append(&device, &mut log, base as i64, &vec![1; *size]);
        }
        let mut kept = acknowledged;
        for (base, size) in sizes.iter().enumerate().skip(acknowledged) {
            stage(&mut log, base as i64, &vec![2; *size]);
            let Some(write) = log.seal(Mono(0)) else { break };
            if survives & 1 << base != 0 {
                carry(&device, write);
                kept += usize::from(kept == base);
            }
        }
        prop_assert_eq!(offsets(&reopen(&device)), (0..kept as i64).collect::<Vec<_>>());
    }
}
