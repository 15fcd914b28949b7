//! Batches that were read together, and what stays of them. Pure.

use bytes::Bytes;
use thalweg_record::{Batch, BatchHead, Offset};

use super::filter::{Outcome, Rules, Unfit};

/// Blocks of an object side by side, read.
pub(super) struct Run {
    pub base: Offset,
    pub last: Offset,
    pub bytes: Bytes,
}

/// What stays of a run.
#[derive(Default)]
pub(super) struct Left {
    pub kept: Vec<Bytes>,
    pub changed: bool,
    pub records_before: u64,
    pub records_after: u64,
}

/// Filters the batches of a run; the one that ends at `must_end` stays in any case.
pub(super) fn sift(rules: &Rules, run: Run, must_end: Offset) -> Result<Left, Unfit> {
    let mut left = Left::default();
    let (mut bytes, mut next) = (run.bytes, run.base);
    walk(&mut bytes, |whole, batch| {
        let (base, last) = (batch.head.base_offset(), batch.head.last_offset());
        if base < next || last < base || last > run.last {
            return Err(Unfit(format!("the batch at offset {base} is not in its place")));
        }
        next = last.next();
        left.records_before += u64::try_from(batch.head.record_count()).unwrap_or(0);
        let batch_left = match rules.filter(batch, last == must_end)? {
            Outcome::Whole => whole,
            Outcome::Rest(rest) => {
                left.changed = true;
                rest
            }
            Outcome::Gone => {
                left.changed = true;
                return Ok(true);
            }
        };
        let count = BatchHead::parse(&batch_left).map_or(0, |head| head.record_count());
        left.records_after += u64::try_from(count).unwrap_or(0);
        left.kept.push(batch_left);
        Ok(true)
    })?;
    Ok(left)
}

/// Shows each batch, as it is and split, until one is the last; whether none was.
pub(super) fn walk(
    bytes: &mut Bytes,
    mut show: impl FnMut(Bytes, &Batch) -> Result<bool, Unfit>,
) -> Result<bool, Unfit> {
    while !bytes.is_empty() {
        let whole = bytes.clone();
        let batch = Batch::split_from(bytes).map_err(|e| Unfit(format!("a block that is not batches: {e}")))?;
        if !show(whole.slice(..batch.size_bytes()), &batch)? {
            return Ok(false);
        }
    }
    Ok(true)
}
