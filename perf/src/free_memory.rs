//! Free memory, before a load: a virtual machine hands what is free back to its host, and whoever needs it first then waits for
//! the host to give it again. Where that happens (`page_reporting`), the page cache takes a third of the bytes a second that it
//! takes of memory used a moment ago, so that the order of loads, and not the brokers, would decide.

use std::{fs, hint::black_box};

use crate::machine::{field, kibibytes};

/// Left alone, so that nothing is pushed out of the page cache.
const SPARE_BYTES: u64 = 1 << 30;

/// Uses `wanted_bytes` of free memory for a moment, as far as there is so much.
pub(crate) fn touch(wanted_bytes: u64) {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field(&text, "MemFree"));
    let bytes = to_touch(wanted_bytes, free.map_or(0, |value| kibibytes(&value)));
    // Ones, for zeros would be memory that nobody has touched.
    black_box(vec![1_u8; bytes as usize]);
}

fn to_touch(wanted_bytes: u64, free_bytes: u64) -> u64 {
    wanted_bytes.min(free_bytes.saturating_sub(SPARE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_by_others_is_left_to_them() {
        assert_eq!(to_touch(3 << 30, 20 << 30), 3 << 30);
        assert_eq!(to_touch(3 << 30, 2 << 30), 1 << 30);
        assert_eq!(to_touch(3 << 30, 1 << 20), 0);
        touch(1 << 20);
    }
}
