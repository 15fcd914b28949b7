//! Which partition is due, up to where, and what is written together. Pure.
//!
//! As in Kafka, with objects in the place of segments and the ring in the place of the active one: a partition is due when its dirty
//! bytes are more than `min.cleanable.dirty.ratio` of all that a round would go through, or when something dirty is older than
//! `max.compaction.lag.ms`. Kafka's active segment would hold back most of it for days; here it is enough that some has come together, or
//! waits for a while, so that not each upload costs a round. An object with a record younger than `min.compaction.lag.ms`, and all
//! behind it, is left for later. A part's age is that of its newest record.

use std::rc::Rc;

use thalweg_record::{Offset, PartitionId, Wall};

use crate::{
    compaction::CompactionConfig,
    meta::CommittedObject,
    msg::{CleaningSettings, PartitionSettings},
};

/// A round is worth its requests when so much is dirty, ...
const ENOUGH_BYTES: u64 = 16 << 20;
/// ... or so many parts, ...
const ENOUGH_PARTS: usize = 10;
/// ... or something that is older than this, or than the topic's `segment.ms`.
const ENOUGH_MS: u64 = 600_000;

/// How dirty a partition is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Dirt {
    pub partition: PartitionId,
    /// First offset that no round has seen.
    pub from: Offset,
    /// First offset that none may see yet.
    pub end: Offset,
    pub dirty_bytes: u64,
    pub clean_bytes: u64,
    /// Something is older than `max.compaction.lag.ms`.
    overdue: bool,
    /// So much has come together, or has waited for so long, that a round is worth its requests.
    enough: bool,
    least_ratio: f64,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub partition: PartitionId,
    pub log_start: Offset,
    /// First offset that no round has seen, whatever was deleted since.
    pub cleaned: Offset,
    /// First offset that may yet be undone.
    pub stable: Offset,
}

impl Dirt {
    /// Share of what a round would go through that is dirty.
    pub(super) fn ratio(&self) -> f64 {
        self.dirty_bytes as f64 / (self.dirty_bytes + self.clean_bytes).max(1) as f64
    }

    fn is_due(&self) -> bool {
        self.overdue || (self.enough && self.ratio() > self.least_ratio)
    }
}

fn ago(now: Wall, ms: u64) -> Wall {
    Wall(now.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

/// How dirty a partition is; `None` when nothing may be cleaned.
pub(super) fn dirt<'a>(
    stand: &Stand,
    settings: &PartitionSettings,
    parts: impl Iterator<Item = &'a CommittedObject>,
    now: Wall,
) -> Option<Dirt> {
    let CleaningSettings { min_lag_ms, max_lag_ms, least_ratio, segment_ms, .. } = settings.cleaning;
    let waited = ago(now, segment_ms.min(ENOUGH_MS));
    if !settings.compact {
        return None;
    }
    let from = stand.cleaned.max(stand.log_start);
    let (mut clean_bytes, mut dirty_bytes, mut end, mut overdue) = (0, 0, from, false);
    let (mut dirty_parts, mut enough) = (0, false);
    for part in parts {
        if part.last < from {
            clean_bytes += part.size_bytes;
            continue;
        }
        let young = min_lag_ms > 0 && part.max_timestamp > ago(now, min_lag_ms);
        if young || part.last >= stand.stable {
            break;
        }
        dirty_bytes += part.size_bytes;
        dirty_parts += 1;
        enough |= dirty_bytes >= ENOUGH_BYTES || dirty_parts >= ENOUGH_PARTS || part.max_timestamp <= waited;
        end = part.last.next();
        overdue |= part.max_timestamp.0 > 0 && max_lag_ms.is_some_and(|lag| part.max_timestamp < ago(now, lag));
    }
    let (partition, least_ratio) = (stand.partition, least_ratio.share());
    (end > from).then_some(Dirt { partition, from, end, dirty_bytes, clean_bytes, overdue, enough, least_ratio })
}

/// The partitions that are due, the dirtiest first.
pub(super) fn due(mut dirt: Vec<Dirt>) -> Vec<Dirt> {
    dirt.retain(Dirt::is_due);
    dirt.sort_by(|a, b| b.ratio().total_cmp(&a.ratio()).then(a.partition.cmp(&b.partition)));
    dirt
}

/// What is written together: contiguous parts of at most `output_bytes`, or a single larger one.
pub(super) fn groups(parts: &[Rc<CommittedObject>], output_bytes: u64) -> Vec<&[Rc<CommittedObject>]> {
    let mut groups = Vec::new();
    let (mut from, mut bytes) = (0, 0u64);
    for (at, part) in parts.iter().enumerate() {
        let full = bytes.saturating_add(part.size_bytes) > output_bytes || at - from == CompactionConfig::MAX_INPUTS;
        if at > from && full {
            groups.push(&parts[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += part.size_bytes;
    }
    groups.extend((from < parts.len()).then(|| &parts[from..]));
    groups
}

/// Bytes of the parts in a group.
pub(super) fn bytes_of(group: &[Rc<CommittedObject>]) -> u64 {
    group.iter().map(|part| part.size_bytes).sum()
}

#[cfg(test)]
mod tests;
