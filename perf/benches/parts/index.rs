//! Finding an offset in an object: parsing its index, and looking up in it.

use divan::{Bencher, black_box, counter::ItemsCount};
use thalweg_objectstore::format::{BlockIndex, FOOTER_BYTES, Footer};
use thalweg_record::Offset;

use crate::{
    object::{batches, encoded},
    sample::{Shape, partition},
};

/// The smallest batches have the most blocks' worth of offsets.
const SHAPE: Shape = Shape(64, 1024);

/// Footer and index bytes of an object.
fn footer_and_index() -> (Footer, Vec<u8>) {
    let object = encoded(&batches(SHAPE)).parts.concat();
    let footer = Footer::parse(&object[object.len() - FOOTER_BYTES..], object.len() as u64).expect("a footer");
    let range = footer.index_range();
    let index = object[range.start as usize..range.end as usize].to_vec();
    (footer, index)
}

#[divan::bench]
fn parse(bencher: Bencher<'_, '_>) {
    let (footer, bytes) = footer_and_index();
    let blocks = BlockIndex::parse(&footer, &bytes).expect("an index").entries().len();
    bencher
        .counter(ItemsCount::new(blocks))
        .bench_local(|| BlockIndex::parse(black_box(&footer), black_box(&bytes)).expect("an index"));
}

#[divan::bench]
fn look_up(bencher: Bencher<'_, '_>) {
    let (footer, bytes) = footer_and_index();
    let index = BlockIndex::parse(&footer, &bytes).expect("an index");
    let end = index.partition(partition(0)).last().expect("a block").last.0;
    let mut at = 0_i64;
    bencher.bench_local(|| {
        at = (at + 7919) % end;
        let blocks = index.from_offset(partition((at % 16) as i32), Offset(at));
        black_box(blocks.first().expect("a block").position)
    });
}
