//! What every engine of [`MetadataStore`] must do.

use super::port::{Compare, MetadataStore, Revision, Transacted, Versioned, Write};

type Store = Box<dyn MetadataStore>;

/// Runs every case against a fresh store each.
pub fn run(mut fresh: impl FnMut() -> Store) {
    for case in [
        an_empty_store_has_nothing,
        revisions_count_writing_transactions,
        comparisons_guard_all_writes,
        deleting_is_by_key_and_idempotent,
        ranges_are_ordered_limited_and_continue,
        values_of_any_bytes_and_sizes,
        many_threads_lose_no_increment,
    ] {
        case(fresh());
    }
}

fn put(key: &[u8], value: &[u8]) -> Write {
    Write::Put(key.to_vec(), value.to_vec())
}

fn apply(store: &Store, compares: &[Compare], writes: &[Write]) -> Revision {
    match store.transact(compares, writes).expect("engine") {
        Transacted::Applied(revision) => revision,
        Transacted::Refused => panic!("refused: {compares:?}"),
    }
}

fn refused(store: &Store, compares: &[Compare]) {
    let before = store.revision();
    let outcome = store.transact(compares, &[put(b"refused", b"x"), put(b"k", b"overwritten")]).expect("engine");
    assert_eq!(outcome, Transacted::Refused, "{compares:?}");
    assert_eq!(store.get(b"refused").expect("engine"), None);
    assert_eq!(store.revision(), before);
}

fn an_empty_store_has_nothing(store: Store) {
    assert_eq!(store.revision(), Revision(0));
    assert_eq!(store.get(b"k").expect("engine"), None);
    assert!(store.range(b"", None, 10).expect("engine").is_empty());
    store.sync().expect("engine");
    assert_eq!(apply(&store, &[Compare::Absent(b"k".to_vec())], &[]), Revision(0));
}

fn revisions_count_writing_transactions(store: Store) {
    assert_eq!(apply(&store, &[], &[put(b"a", b"1"), put(b"b", b"1")]), Revision(1));
    assert_eq!(apply(&store, &[], &[put(b"b", b"2")]), Revision(2));
    assert_eq!(apply(&store, &[], &[]), Revision(2));
    let of = |key: &[u8]| store.get(key).expect("engine").expect("written").revision;
    assert_eq!((of(b"a"), of(b"b"), store.revision()), (Revision(1), Revision(2), Revision(2)));
}

fn comparisons_guard_all_writes(store: Store) {
    let key = || b"k".to_vec();
    apply(&store, &[Compare::Absent(key())], &[put(b"k", b"1")]);
    refused(&store, &[Compare::Absent(key())]);
    refused(&store, &[Compare::Revision(key(), Revision(2))]);
    refused(&store, &[Compare::Revision(b"missing".to_vec(), Revision(0))]);
    refused(&store, &[Compare::Value(key(), b"2".to_vec())]);
    refused(&store, &[Compare::Value(b"missing".to_vec(), vec![])]);
    refused(&store, &[Compare::Value(key(), b"1".to_vec()), Compare::Absent(key())]);
    assert_eq!(store.get(b"k").expect("engine").expect("written").value, b"1");
    apply(&store, &[Compare::Value(key(), b"1".to_vec())], &[put(b"k", b"2")]);
    apply(&store, &[Compare::Revision(key(), Revision(2))], &[put(b"k", b"3")]);
    assert_eq!(store.get(b"k").expect("engine"), Some(Versioned { value: b"3".to_vec(), revision: Revision(3) }));
}

fn deleting_is_by_key_and_idempotent(store: Store) {
    apply(&store, &[], &[put(b"k", b"1")]);
    apply(&store, &[], &[Write::Delete(b"k".to_vec()), Write::Delete(b"never".to_vec())]);
    assert_eq!(store.get(b"k").expect("engine"), None);
    assert_eq!(apply(&store, &[Compare::Absent(b"k".to_vec())], &[put(b"k", b"2")]), Revision(3));
}

fn ranges_are_ordered_limited_and_continue(store: Store) {
    let keys: [&[u8]; 6] = [b"p/\xff", b"p/a", b"p/", b"p/b", b"p0", b"o/z"];
    apply(&store, &[], &keys.map(|k| put(k, k)));
    let names = |after: Option<&[u8]>, limit| -> Vec<Vec<u8>> {
        let found = store.range(b"p/", after, limit).expect("engine");
        found
            .into_iter()
            .map(|(key, v)| {
                assert_eq!(key, v.value);
                key
            })
            .collect()
    };
    assert_eq!(names(None, 10), [&b"p/"[..], b"p/a", b"p/b", b"p/\xff"]);
    assert_eq!(names(None, 2), [&b"p/"[..], b"p/a"]);
    assert_eq!(names(Some(b"p/a"), 2), [&b"p/b"[..], b"p/\xff"]);
    assert_eq!(names(Some(b"p/aa"), 1), [b"p/b"]);
    assert_eq!(names(Some(b"a"), 1), [b"p/"]);
    assert!(names(Some(b"p/\xff"), 10).is_empty());
    assert_eq!(store.range(b"", None, 100).expect("engine").len(), 6);
}

fn values_of_any_bytes_and_sizes(store: Store) {
    for size in [0, 1, 4096, 300_000, 3_000_000] {
        let value: Vec<u8> = (0..size).map(|i: u32| (i * 31 % 251) as u8).collect();
        apply(&store, &[], &[put(b"k", &value)]);
        store.sync().expect("engine");
        assert_eq!(store.get(b"k").expect("engine").expect("written").value, value);
    }
}

fn many_threads_lose_no_increment(store: Store) {
    let increment = || {
        for _ in 0..50 {
            loop {
                let (compare, next) = match store.get(b"n").expect("engine") {
                    None => (Compare::Absent(b"n".to_vec()), 1),
                    Some(v) => (Compare::Revision(b"n".to_vec(), v.revision), v.value[0] + 1),
                };
                let done = store.transact(&[compare], &[put(b"n", &[next])]).expect("engine");
                if matches!(done, Transacted::Applied(_)) {
                    break;
                }
            }
        }
    };
    std::thread::scope(|s| (0..4).for_each(|_| drop(s.spawn(increment))));
    assert_eq!(store.get(b"n").expect("engine").expect("written").value, [200]);
    assert_eq!(store.revision(), Revision(200));
}
