//! Every rule of fetch sessions, one by one.

use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000_000_000;

/// One executor of one, with some slots and a clock.
struct Bench {
    sessions: Sessions,
    now: Mono,
    random: u64,
}

fn name(topic: &str, index: i32) -> PartKey {
    PartKey { topic: TopicKey::Name(topic.into()), index }
}

fn by_id(topic: u8, index: i32) -> PartKey {
    PartKey { topic: TopicKey::Id(TopicId([topic; 16])), index }
}

fn wish(offset: i64) -> Wish {
    Wish { offset, max_bytes: 1000, leader_epoch: -1 }
}

/// A partition without records, at this high watermark.
fn at(high_watermark: i64) -> Told {
    Told { high_watermark, log_start: 0, in_error: false, has_records: false }
}

const ERROR: Told = Told { high_watermark: -1, log_start: -1, in_error: true, has_records: false };

fn records(high_watermark: i64) -> Told {
    Told { has_records: true, ..at(high_watermark) }
}

fn asked(id: i32, epoch: i32, parts: &[(PartKey, Wish)], forgotten: &[PartKey]) -> Asked {
    let by_id = parts.iter().map(|(key, _)| key).chain(forgotten).any(|key| matches!(key.topic, TopicKey::Id(_)));
    Asked { id, epoch, by_id, parts: parts.to_vec(), forgotten: forgotten.to_vec() }
}

/// Some partitions of a topic, wanted from offset 0.
fn some(topic: &str, count: i32) -> Vec<(PartKey, Wish)> {
    (0..count).map(|index| (name(topic, index), wish(0))).collect()
}

impl Bench {
    fn new(slots: usize) -> Bench {
        Bench { sessions: Sessions::new(ShardId(0), 1, slots), now: Mono(MINUTE), random: 0 }
    }

    fn begin(&mut self, asked: Asked) -> Result<Begun, ResponseError> {
        self.sessions.begin(asked, self.now)
    }

    fn finish(&mut self, begun: &Begun, told: &[Told]) -> Result<Finished, (ResponseError, i32)> {
        self.random += 1;
        let finished = self.sessions.finish(begun, told, self.now, self.random);
        self.check();
        finished
    }

    /// A full fetch of these partitions, all empty at offset 0; the session's id.
    fn open(&mut self, parts: &[(PartKey, Wish)]) -> i32 {
        let begun = self.begin(asked(0, 0, parts, &[])).expect("a full fetch is never refused");
        let finished = self.finish(&begun, &vec![at(0); parts.len()]).expect("answered");
        assert_eq!(finished.changed, None, "a full fetch tells everything");
        finished.session
    }

    /// An incremental fetch without changes, of partitions that stay as they are.
    fn poll(&mut self, id: i32, epoch: i32) -> Result<(), ResponseError> {
        let begun = self.begin(asked(id, epoch, &[], &[]))?;
        self.finish(&begun, &vec![at(0); begun.parts.len()]).expect("answered");
        Ok(())
    }

    /// What an incremental fetch fetches, and which parts of it its answer holds.
    fn step(&mut self, asked: Asked, told: impl Fn(&PartKey) -> Told) -> (Vec<PartKey>, Vec<PartKey>) {
        let id = asked.id;
        let begun = self.begin(asked).expect("the session goes on");
        let keys: Vec<PartKey> = begun.parts.iter().map(|(key, _)| key.clone()).collect();
        let told: Vec<Told> = keys.iter().map(told).collect();
        let finished = self.finish(&begun, &told).expect("answered");
        assert_eq!(finished.session, id);
        let changed = finished.changed.expect("an incremental answer");
        (keys.clone(), keys.into_iter().zip(changed).filter_map(|(key, changed)| changed.then_some(key)).collect())
    }

    /// The three orders and the sums agree.
    fn check(&self) {
        let Sessions { by_id, last_used, evictable, partitions, slots, most_partitions, ids, .. } = &self.sessions;
        assert!(by_id.len() <= *slots && *partitions <= *most_partitions);
        assert!(by_id.keys().all(|id| ids.contains(id)));
        let used: BTreeSet<(Mono, i32)> = by_id.iter().map(|(id, session)| (session.used, *id)).collect();
        assert_eq!(&used, last_used);
        assert!(evictable.iter().all(|(size, id)| by_id[id].size == *size));
        assert_eq!(by_id.values().map(|session| session.size).sum::<usize>(), *partitions);
        for session in by_id.values() {
            assert_eq!(session.parts.len(), session.places.len());
            assert!(session.places.iter().all(|(key, place)| session.parts[place].key == *key));
        }
    }
}

#[test]
fn epoch_minus_one_asks_for_no_session_and_zero_for_a_new_one() {
    let mut bench = Bench::new(10);
    let begun = bench.begin(asked(0, -1, &some("t", 2), &[])).expect("begun");
    assert_eq!((begun.context, begun.parts.len()), (Context::Sessionless, 2));
    let all = Finished { session: NO_SESSION, changed: None };
    assert_eq!(bench.finish(&begun, &[at(0), at(0)]), Ok(all));
    assert_eq!(bench.sessions.figures(), (0, 0));

    let begun = bench.begin(asked(0, 0, &some("t", 2), &[])).expect("begun");
    assert_eq!(begun.context, Context::Full { by_id: false });
    assert_eq!(bench.sessions.figures(), (0, 0), "only when it is answered");
    assert!(bench.finish(&begun, &[at(0), at(0)]).expect("answered").session > 0);
    assert_eq!(bench.sessions.figures(), (1, 2));
}

#[test]
fn a_full_request_ends_the_session_that_it_names() {
    let mut bench = Bench::new(10);
    let first = bench.open(&some("t", 2));
    bench.begin(asked(first, -1, &some("t", 1), &[])).expect("begun");
    assert_eq!(bench.sessions.figures(), (0, 0));
    assert_eq!(bench.poll(first, 1), Err(ResponseError::FetchSessionIdNotFound));
    let second = bench.open(&some("t", 2));
    let begun = bench.begin(asked(second, 0, &some("t", 3), &[])).expect("begun");
    let third = bench.finish(&begun, &[at(0); 3]).expect("answered").session;
    assert_ne!(second, third);
    assert_eq!(bench.sessions.figures(), (1, 3));
    bench.begin(asked(99, 0, &[], &[])).expect("one that is not known does no harm");
}

#[test]
fn requests_go_on_by_their_epoch() {
    let mut bench = Bench::new(10);
    assert_eq!(bench.poll(0, 1), Err(ResponseError::FetchSessionIdNotFound));
    let id = bench.open(&some("t", 1));
    assert_eq!(bench.poll(id + 1, 1), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!(bench.poll(id, 2), Err(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(bench.poll(id, 1), Ok(()));
    assert_eq!(bench.poll(id, 1), Err(ResponseError::InvalidFetchSessionEpoch), "it was answered already");
    assert_eq!(bench.poll(id, -2), Err(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(bench.poll(id, 2), Ok(()), "the errors changed nothing");
    assert_eq!([next_epoch(0), next_epoch(7), next_epoch(i32::MAX), next_epoch(-1)], [1, 8, 1, -1]);
}

#[test]
fn a_session_names_topics_in_one_way() {
    let mut bench = Bench::new(10);
    let names = bench.open(&some("t", 1));
    let ids = bench.open(&[(by_id(1, 0), wish(0))]);
    let poll = |id, by_id| Asked { by_id, ..asked(id, 1, &[], &[]) };
    assert_eq!(bench.begin(poll(names, true)).unwrap_err(), ResponseError::FetchSessionTopicIdError);
    assert_eq!(bench.begin(poll(ids, false)).unwrap_err(), ResponseError::FetchSessionTopicIdError);
    assert!(bench.begin(poll(names, false)).is_ok() && bench.begin(poll(ids, true)).is_ok());
}

#[test]
fn only_what_has_changed_is_told() {
    let mut bench = Bench::new(10);
    let parts = some("t", 5);
    let id = bench.open(&parts);
    let told = |key: &PartKey| match key.index {
        0 => at(0),
        1 => records(0),
        2 => at(7),
        3 => Told { log_start: 3, ..at(0) },
        _ => ERROR,
    };
    let (fetched, changed) = bench.step(asked(id, 1, &[], &[]), told);
    assert_eq!(fetched.len(), 5, "all are fetched, none was named");
    assert_eq!(changed, [1, 2, 3, 4].map(|index| name("t", index)));
    // What was told is not told again; records and errors always are.
    let (_, changed) = bench.step(asked(id, 2, &[], &[]), told);
    assert_eq!(BTreeSet::from_iter(changed), BTreeSet::from([name("t", 1), name("t", 4)]));
    // An error that goes away is told, even to the watermark from before.
    let (_, changed) = bench.step(asked(id, 3, &[], &[]), |key| if key.index == 4 { at(0) } else { told(key) });
    assert_eq!(BTreeSet::from_iter(changed), BTreeSet::from([name("t", 1), name("t", 4)]));
}

#[test]
fn an_error_in_the_opening_answer_is_told_when_it_goes_away() {
    let mut bench = Bench::new(10);
    let begun = bench.begin(asked(0, 0, &some("t", 2), &[])).expect("begun");
    let id = bench.finish(&begun, &[ERROR, at(4)]).expect("answered").session;
    let (_, changed) = bench.step(asked(id, 1, &[], &[]), |key| if key.index == 0 { at(0) } else { at(4) });
    assert_eq!(changed, [name("t", 0)]);
}

#[test]
fn partitions_are_added_renewed_and_forgotten() {
    let mut bench = Bench::new(10);
    let id = bench.open(&some("t", 2));
    let change = [(name("t", 1), wish(50)), (name("u", 0), wish(9))];
    let begun = bench.begin(asked(id, 1, &change, &[name("t", 0), name("gone", 3)])).expect("begun");
    assert_eq!(begun.parts, [(name("t", 1), wish(50)), (name("u", 0), wish(9))]);
    let finished = bench.finish(&begun, &[at(0), at(0)]).expect("answered");
    assert_eq!(finished.changed, Some(vec![false, true]), "a new one is told whatever it is");
    assert_eq!(bench.sessions.figures(), (1, 2));
    // One that is named and forgotten at once is forgotten.
    let begun = bench.begin(asked(id, 2, &[(name("v", 0), wish(1))], &[name("v", 0)])).expect("begun");
    assert_eq!(begun.parts.len(), 2);
}

#[test]
fn a_partition_named_twice_is_one() {
    let mut bench = Bench::new(10);
    let parts = [(name("t", 0), wish(1)), (name("t", 0), wish(2))];
    let id = bench.open(&parts);
    assert_eq!(bench.sessions.figures(), (1, 1));
    let begun = bench.begin(asked(id, 1, &[], &[])).expect("begun");
    assert_eq!(begun.parts, [(name("t", 0), wish(2))], "the last word holds");
}

#[test]
fn a_session_without_partitions_is_closed() {
    let mut bench = Bench::new(10);
    let id = bench.open(&some("t", 1));
    let begun = bench.begin(asked(id, 1, &[], &[name("t", 0)])).expect("begun");
    assert_eq!((begun.context, begun.parts.len()), (Context::Sessionless, 0));
    assert_eq!(bench.finish(&begun, &[]), Ok(Finished { session: NO_SESSION, changed: None }));
    assert_eq!(bench.poll(id, 2), Err(ResponseError::FetchSessionIdNotFound));
}

#[test]
fn partitions_keep_the_order_in_which_they_were_named() {
    let mut bench = Bench::new(10);
    let id = bench.open(&[(name("t", 7), wish(0)), (name("a", 3), wish(0)), (name("t", 2), wish(0))]);
    let change = [(name("b", 0), wish(0)), (name("a", 3), wish(5)), (name("a", 1), wish(0))];
    let (fetched, _) = bench.step(asked(id, 1, &change, &[name("t", 7)]), |_| records(9));
    assert_eq!(fetched, [name("a", 3), name("t", 2), name("b", 0), name("a", 1)]);
}

#[test]
fn whoever_lost_the_session_meanwhile_is_told() {
    let mut bench = Bench::new(10);
    let id = bench.open(&some("t", 2));
    let parked = bench.begin(asked(id, 1, &[], &[])).expect("begun");
    let other = bench.begin(asked(id, 2, &[], &[])).expect("another connection goes on");
    assert_eq!(bench.finish(&parked, &[at(1), at(1)]), Err((ResponseError::InvalidFetchSessionEpoch, id)));
    let finished = bench.finish(&other, &[at(1), at(0)]).expect("answered");
    assert_eq!(finished.changed, Some(vec![true, false]), "the other answer changed nothing");
    // Closed meanwhile: all is told, and the next request learns that the session is gone.
    let parked = bench.begin(asked(id, 3, &[], &[])).expect("begun");
    bench.begin(asked(id, -1, &[], &[])).expect("closed");
    assert_eq!(bench.finish(&parked, &[at(1), at(0)]), Ok(Finished { session: id, changed: None }));
    assert_eq!(bench.poll(id, 4), Err(ResponseError::FetchSessionIdNotFound));
}

#[test]
fn without_a_slot_there_is_no_session_and_nobody_young_is_evicted() {
    let mut bench = Bench::new(2);
    let ids = [bench.open(&some("t", 1)), bench.open(&some("t", 1))];
    bench.now.0 += 2 * MINUTE;
    assert_eq!(bench.open(&some("t", 9)), NO_SESSION, "two minutes are not enough");
    assert_eq!(bench.sessions.take_evictions(), 0);
    assert!(ids.iter().all(|id| bench.poll(*id, 1).is_ok()));
    assert_eq!(Bench::new(0).open(&some("t", 1)), NO_SESSION);
}

#[test]
fn the_stalest_makes_room_for_any() {
    let mut bench = Bench::new(2);
    let (first, second) = (bench.open(&some("t", 5)), bench.open(&some("t", 5)));
    bench.now.0 += MINUTE;
    bench.poll(first, 1).expect("used");
    bench.now.0 += MINUTE + 1;
    let third = bench.open(&some("t", 1));
    assert_ne!(third, NO_SESSION, "smaller, but the second was not used for more than two minutes");
    assert_eq!(bench.poll(second, 1), Err(ResponseError::FetchSessionIdNotFound));
    assert_eq!((bench.poll(first, 2), bench.poll(third, 1)), (Ok(()), Ok(())));
    assert_eq!((bench.sessions.take_evictions(), bench.sessions.take_evictions()), (1, 0));
}

#[test]
fn an_old_one_makes_room_for_a_larger_one_only() {
    let mut bench = Bench::new(2);
    let (small, large) = (bench.open(&some("t", 2)), bench.open(&some("t", 5)));
    bench.now.0 += 2 * MINUTE + 1;
    bench.poll(small, 1).expect("used");
    bench.poll(large, 1).expect("used");
    assert_eq!(bench.open(&some("t", 2)), NO_SESSION, "as large is not larger");
    let larger = bench.open(&some("t", 3));
    assert_ne!(larger, NO_SESSION);
    assert_eq!(bench.poll(small, 2), Err(ResponseError::FetchSessionIdNotFound), "the smallest goes");
    assert_eq!(bench.open(&some("t", 4)), NO_SESSION, "the new one is too young, the other larger");
    assert!(bench.poll(large, 2).is_ok());
    assert_eq!(bench.sessions.take_evictions(), 1);
}

#[test]
fn the_size_that_counts_is_that_of_the_last_request() {
    let mut bench = Bench::new(1);
    let id = bench.open(&some("t", 1));
    bench.now.0 += 2 * MINUTE + 1;
    let begun = bench.begin(asked(id, 1, &some("u", 9), &[])).expect("begun");
    bench.finish(&begun, &[at(0); 10]).expect("answered");
    assert_eq!(bench.sessions.figures(), (1, 10));
    assert_eq!(bench.open(&some("t", 10)), NO_SESSION);
    assert_ne!(bench.open(&some("t", 11)), NO_SESSION);
}

#[test]
fn partitions_remembered_have_a_bound() {
    let mut bench = Bench::new(10);
    bench.sessions.most_partitions = 10;
    assert_eq!(bench.open(&some("t", 11)), NO_SESSION);
    let (first, second) = (bench.open(&some("t", 6)), bench.open(&some("t", 4)));
    assert!(first != NO_SESSION && second != NO_SESSION);
    assert_eq!(bench.open(&some("t", 1)), NO_SESSION);
    // A session that grows beyond is closed: its client opens a new one, and may get none.
    let grow = asked(second, 1, &some("u", 1), &[]);
    assert_eq!(bench.begin(grow).unwrap_err(), ResponseError::FetchSessionIdNotFound);
    assert_eq!(bench.sessions.figures(), (1, 6));
    // Several may have to go for a large one.
    bench.open(&some("t", 4));
    bench.now.0 += 2 * MINUTE + 1;
    assert_ne!(bench.open(&some("t", 10)), NO_SESSION);
    assert_eq!((bench.sessions.figures(), bench.sessions.take_evictions()), ((1, 10), 2));
}

#[test]
fn ids_are_positive_and_tell_their_executor() {
    for shards in [1, 2, 3, 7, 1024] {
        let stores: Vec<Sessions> =
            (0..shards).map(|home| Sessions::new(ShardId(home), usize::from(shards), 1000)).collect();
        assert!(stores[0].ids.start >= 1);
        assert!(stores.windows(2).all(|pair| pair[0].ids.end <= pair[1].ids.start), "ranges do not meet");
        assert_eq!(stores.iter().map(|store| store.slots).sum::<usize>(), 1000, "every slot belongs to somebody");
        let (least, most) = (stores.iter().map(|s| s.slots).min(), stores.iter().map(|s| s.slots).max());
        assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1));
    }
}

#[test]
fn an_id_in_use_is_not_given_again() {
    let mut bench = Bench::new(10);
    bench.sessions.ids = 5..8;
    let mut opened: Vec<i32> = Vec::new();
    for _ in 0..3 {
        bench.random = 0;
        opened.push(bench.open(&some("t", 1)));
    }
    opened.sort_unstable();
    assert_eq!(opened, [5, 6, 7]);
}

proptest! {
    /// Whatever clients do, the orders agree, and what a client can know from the answers is what there is.
    #[test]
    fn the_client_always_knows_what_there_is(
        steps in prop::collection::vec((0u8..6, 0i32..6, 0i64..4, 0u64..3), 1..60),
    ) {
        let mut bench = Bench::new(3);
        let mut truth: BTreeMap<PartKey, i64> = (0..6).map(|index| (name("t", index), 0)).collect();
        let mut known: BTreeMap<PartKey, i64> = BTreeMap::new();
        let mut session = (NO_SESSION, 0);
        for (what, index, value, minutes) in steps {
            bench.now.0 += minutes * MINUTE;
            let key = name("t", index);
            let request = match (session, what) {
                ((NO_SESSION, _), _) | (_, 0) => {
                    known.clear();
                    asked(session.0, 0, &[(key, wish(0))], &[])
                }
                ((id, epoch), 1) => asked(id, epoch, &[(key, wish(value))], &[]),
                ((id, epoch), 2) => {
                    known.remove(&key);
                    asked(id, epoch, &[], &[key])
                }
                ((id, epoch), 3) => {
                    truth.insert(key, value);
                    asked(id, epoch, &[], &[])
                }
                ((id, epoch), 4) => {
                    // Others come and go.
                    bench.open(&some("other", index));
                    asked(id, epoch, &[], &[])
                }
                ((id, epoch), _) => asked(id, epoch, &[], &[]),
            };
            let epoch = request.epoch;
            let Ok(begun) = bench.begin(request) else {
                session = (NO_SESSION, 0);
                continue;
            };
            let told: Vec<Told> = begun.parts.iter().map(|(key, _)| at(truth[key])).collect();
            let finished = bench.finish(&begun, &told).expect("nobody else uses the session");
            for (place, (key, _)) in begun.parts.iter().enumerate() {
                if finished.changed.as_ref().is_none_or(|changed| changed[place]) {
                    known.insert(key.clone(), truth[key]);
                }
            }
            let fetched: BTreeMap<PartKey, i64> =
                begun.parts.iter().map(|(key, _)| (key.clone(), truth[key])).collect();
            prop_assert_eq!(&known, &fetched);
            session = (finished.session, next_epoch(epoch));
        }
    }
}
