//! 60,000 records of 100 bytes a second, linger 1 ms: the load under which every record costs more than its bytes.

use super::bench::{Bench, PARTITIONS, of_paced};
use crate::client::{
    open::{self, Open},
    schedule::Spread,
};

const RECORDS_PER_S: f64 = 60_000.0;
const SMALL_BYTES: u32 = 100;

pub(super) fn run(bench: &mut Bench<'_>) {
    for (name, spread) in [("60,000/s of 100 B, no keys", Spread::Sticky), ("60,000/s of 100 B, keys", Spread::Keyed)] {
        let load = Open { records_per_s: RECORDS_PER_S, record_bytes: SMALL_BYTES, spread, ..bench.open(0.0) };
        bench.cell("small", name, |bench| {
            let topic = bench.topic(PARTITIONS)?;
            let (paced, cost) = bench.measured(|| open::produce(&topic, load, open::start_clock()))?;
            Ok(of_paced(&paced, &load, cost))
        });
    }
}
