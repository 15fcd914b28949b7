//! Bugs that are put into the product, one at a time: each is found within a stated number of seeds. docs/simulation.md has the table.

use thalweg_sim::{Plant, shard, whole};

fn whole(plant: Plant, seeds: u64) {
    let found = (1..=seeds).find_map(|seed| Some((seed, whole::run(seed, plant, false).err()?)));
    let (seed, violation) = found.unwrap_or_else(|| panic!("{plant:?} is not found within {seeds} seeds"));
    println!("{plant:?}: seed {seed}: {}", violation.0);
}

fn shard(plant: Plant, seeds: u64) {
    let found = (1..=seeds).find_map(|seed| Some((seed, shard::run(seed, plant, false).err()?)));
    let (seed, violation) = found.unwrap_or_else(|| panic!("{plant:?} is not found within {seeds} seeds"));
    println!("{plant:?}: seed {seed}: {}", violation.0);
}

#[test]
fn a_disk_that_says_ok_too_early() {
    whole(Plant::EarlyOk, 5);
}

#[test]
fn metadata_that_says_durable_too_early() {
    whole(Plant::EarlySync, 5);
}

#[test]
fn trimmed_before_the_metadata_is_durable() {
    whole(Plant::TrimBeforeFsync, 40);
}

#[test]
fn commits_out_of_order() {
    whole(Plant::CommitsOutOfOrder, 5);
}

#[test]
fn evicted_before_it_is_committed() {
    whole(Plant::EvictedBeforeCommitted, 5);
}

#[test]
fn an_offset_before_there_is_room() {
    whole(Plant::OffsetBeforeRoom, 5);
}

#[test]
fn shown_before_it_is_durable() {
    shard(Plant::PromotedEarly, 150);
}

#[test]
fn a_repetition_answered_before_the_original_is_durable() {
    shard(Plant::DuplicateEarly, 60);
}

#[test]
fn objects_deleted_by_their_age() {
    whole(Plant::DeletedByAge, 5);
}

#[test]
fn no_incarnation_and_no_chain() {
    shard(Plant::NoIncarnationNoChain, 800);
}

#[test]
fn the_ring_used_again_below_one_superblock() {
    shard(Plant::OneSuperblock, 120);
}

#[test]
fn compacted_without_comparing_what_is_replaced() {
    whole(Plant::InputChanged, 10);
}

#[test]
fn two_compacted_objects_of_one_name() {
    whole(Plant::OutputTwice, 5);
}

#[test]
fn a_split_that_leaves_a_block_behind() {
    whole(Plant::SplitLostBlock, 10);
}

#[test]
fn producers_left_behind_by_a_move() {
    whole(Plant::ProducersLeftBehind, 20);
}

#[test]
fn handed_over_before_it_is_durable() {
    whole(Plant::SealedBeforeDurable, 20);
}

#[test]
fn appended_after_the_seal() {
    whole(Plant::AppendedAfterSeal, 20);
}

#[test]
fn a_loan_that_a_start_forgets() {
    whole(Plant::LoanForgotten, 20);
}

#[test]
fn sent_ahead_of_what_comes_back() {
    whole(Plant::SentAhead, 20);
}

#[test]
fn uploaded_before_the_loan_is_over() {
    whole(Plant::LoanNotAwaited, 20);
}

#[test]
fn what_is_lent_is_read_from_too_far() {
    whole(Plant::LoanReadAhead, 20);
}

#[test]
fn keys_that_are_taken_for_one_another() {
    whole(Plant::ShortKeyHash, 5);
}

#[test]
fn a_tombstone_before_its_horizon() {
    whole(Plant::TombstoneEarly, 10);
}

#[test]
fn a_dirty_point_before_what_was_cleaned() {
    whole(Plant::DirtyPointEarly, 100);
}

#[test]
fn a_manifest_that_was_not_put() {
    whole(Plant::ManifestNotPut, 10);
}

#[test]
fn a_manifest_forgotten_with_what_it_lists() {
    whole(Plant::ManifestForgotten, 10);
}

#[test]
fn a_manifest_taken_for_an_orphan() {
    whole(Plant::ManifestOrphaned, 10);
}

#[test]
fn an_aborted_list_that_compaction_drops() {
    whole(Plant::AbortedDropped, 5);
}

#[test]
fn folded_without_comparing_what_is_taken() {
    whole(Plant::FoldUnchecked, 200);
}

#[test]
fn a_parked_fetch_that_nobody_wakes() {
    whole(Plant::LostWake, 40);
}
