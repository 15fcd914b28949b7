//! What an engine must do, as assertions. A failed one panics and says which rule was broken.

use std::num::NonZeroU64;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError};

/// What a server behind an engine is known not to do, so that the rest of the suite still runs against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contract {
    /// Whether of several racing conditional puts exactly one wins. Every real store must; one test server does not.
    pub atomic_if_absent: bool,
}

impl Default for Contract {
    fn default() -> Contract {
        Contract { atomic_if_absent: true }
    }
}

/// Runs the suite on an empty store (or prefix).
///
/// # Panics
/// When the engine breaks the contract.
pub async fn contract(store: &dyn ObjectStore, server: Contract) {
    whole_objects_and_ranges(store).await;
    ranges_that_are_not_there(store).await;
    parts_are_concatenated(store).await;
    replacing_is_atomic(store).await;
    absent_means_absent(store).await;
    if server.atomic_if_absent {
        one_of_many_wins(store).await;
    }
    what_is_not_there(store).await;
    listings(store).await;
    many_keys(store).await;
    large_objects(store).await;
    what_has_time(store).await;
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).expect("the suite's keys are keys")
}

async fn put(store: &dyn ObjectStore, name: &str, content: &[u8]) {
    let stored = store.put(&key(name), vec![Bytes::copy_from_slice(content)], PutCondition::Always).await;
    assert_eq!(stored, Ok(()), "put of {name}");
}

async fn whole_objects_and_ranges(store: &dyn ObjectStore) {
    put(store, "ranges/a", b"0123456789").await;
    let a = key("ranges/a");
    assert_eq!(store.head(&a).await, Ok(ObjectMeta { key: a.clone(), size_bytes: 10 }));
    for (range, content) in [(0..10, "0123456789"), (0..1, "0"), (9..10, "9"), (3..7, "3456")] {
        assert_eq!(store.get_range(&a, range).await.as_deref(), Ok(content.as_bytes()));
    }
    assert_eq!(store.put(&key("ranges/empty"), Vec::new(), PutCondition::Always).await, Ok(()));
    assert_eq!(store.head(&key("ranges/empty")).await.map(|m| m.size_bytes), Ok(0), "an empty object");
}

async fn ranges_that_are_not_there(store: &dyn ObjectStore) {
    put(store, "ranges/short", b"abc").await;
    for range in [0..4, 3..4, 2..5, 100..200, 1..1, 0..u64::MAX] {
        let read = store.get_range(&key("ranges/short"), range.clone()).await;
        assert!(matches!(read, Err(StoreError::Refused(_))), "range {range:?} of 3 bytes gave {read:?}");
    }
}

async fn parts_are_concatenated(store: &dyn ObjectStore) {
    let parts = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c"), Bytes::from_static(b"defg")];
    assert_eq!(store.put(&key("parts"), parts, PutCondition::Always).await, Ok(()));
    assert_eq!(store.get_range(&key("parts"), 0..7).await.as_deref(), Ok(&b"abcdefg"[..]));
}

async fn replacing_is_atomic(store: &dyn ObjectStore) {
    let name = key("replaced");
    let fill = |n: u8| Bytes::from(vec![n; 64 * 1024]);
    assert_eq!(store.put(&name, vec![fill(0)], PutCondition::Always).await, Ok(()));
    let writes = join_all((1..8u8).map(|n| store.put(&name, vec![fill(n)], PutCondition::Always)));
    let reads = join_all((0..8).map(|_| store.get_range(&name, 0..64 * 1024)));
    let (writes, reads) = futures_util::future::join(writes, reads).await;
    assert!(writes.iter().all(Result::is_ok), "{writes:?}");
    for read in reads {
        let read = read.expect("a replaced object is never absent");
        assert!(read.iter().all(|b| *b == read[0]), "a reader saw a mix of two objects");
    }
}

async fn absent_means_absent(store: &dyn ObjectStore) {
    let name = key("once");
    let first = vec![Bytes::from_static(b"first")];
    assert_eq!(store.put(&name, first, PutCondition::IfAbsent).await, Ok(()));
    let again = store.put(&name, vec![Bytes::from_static(b"second")], PutCondition::IfAbsent).await;
    assert_eq!(again, Err(StoreError::Exists(name.clone())));
    assert_eq!(store.get_range(&name, 0..5).await.as_deref(), Ok(&b"first"[..]), "the loser changed the object");
    assert_eq!(store.delete(&name).await, Ok(()));
    let anew = store.put(&name, vec![Bytes::from_static(b"third")], PutCondition::IfAbsent).await;
    assert_eq!(anew, Ok(()), "a deleted key is absent");
}

async fn one_of_many_wins(store: &dyn ObjectStore) {
    let name = key("raced");
    let race =
        join_all((0..8u8).map(|n| store.put(&name, vec![Bytes::from(vec![n; 1000])], PutCondition::IfAbsent))).await;
    let winners: Vec<usize> = (0..8).filter(|n| race[*n].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{race:?}");
    let stored = store.get_range(&name, 0..1000).await.expect("the winner's object");
    assert!(stored.iter().all(|b| usize::from(*b) == winners[0]), "what is stored is not the winner's");
}

async fn what_is_not_there(store: &dyn ObjectStore) {
    let none = key("none/at/all");
    assert_eq!(store.head(&none).await, Err(StoreError::NotFound(none.clone())));
    assert_eq!(store.get_range(&none, 0..1).await, Err(StoreError::NotFound(none.clone())));
    assert_eq!(store.delete(&none).await, Ok(()), "deleting nothing is done at once");
    put(store, "gone", b"x").await;
    assert_eq!(store.delete(&key("gone")).await, Ok(()));
    assert_eq!(store.delete(&key("gone")).await, Ok(()));
    assert_eq!(store.head(&key("gone")).await, Err(StoreError::NotFound(key("gone"))));
}

async fn names(store: &dyn ObjectStore, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(key);
    let listed = store.list(prefix, after.as_ref(), limit).await.expect("a listing");
    listed.into_iter().map(|meta| meta.key.to_string()).collect()
}

async fn listings(store: &dyn ObjectStore) {
    // '-' and '.' sort before '/', digits and letters after it: a directory walk by bare names gets this wrong.
    let all = ["l/a-b/1", "l/a.b", "l/a/1", "l/a/2", "l/a0", "l/b/c/d", "l/b/e"];
    for name in all.iter().rev() {
        put(store, name, name.as_bytes()).await;
    }
    assert_eq!(names(store, "l/", None, 1000).await, all, "key order");
    assert_eq!(names(store, "l/a", None, 1000).await, all[..5], "a prefix may end inside a segment");
    assert_eq!(names(store, "l/a/", None, 1000).await, all[2..4]);
    assert_eq!(names(store, "l/", None, 3).await, all[..3]);
    assert_eq!(names(store, "l/", Some("l/a/1"), 2).await, all[3..5], "after a key");
    assert_eq!(names(store, "l/", Some("l/a/11"), 1).await, all[3..4], "after a key that does not exist");
    assert_eq!(names(store, "l/b", Some("l/b/e"), 9).await, Vec::<String>::new());
    assert_eq!(names(store, "no-such", None, 9).await, Vec::<String>::new());
    let sizes = store.list("l/b/c", None, 1).await.expect("a listing");
    assert_eq!(sizes[0].size_bytes, 7);
}

async fn many_keys(store: &dyn ObjectStore) {
    for n in 0..30 {
        put(store, &format!("many/{:02}/{n:04}", n % 3), b"").await;
    }
    let (mut pages, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = names(store, "many/", after.as_deref(), 7).await;
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        pages.extend(page);
    }
    assert_eq!(pages.len(), 30, "paging loses and repeats nothing");
    assert!(pages.is_sorted());
}

async fn large_objects(store: &dyn ObjectStore) {
    // Above any engine's threshold of a multipart upload, in pieces that do not fit its parts.
    let piece: Bytes = (0..3_000_017u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let parts = vec![piece.clone(); 12];
    let whole = Bytes::from(parts.concat());
    let name = key("large");
    assert_eq!(store.put(&name, parts.clone(), PutCondition::IfAbsent).await, Ok(()));
    assert_eq!(store.head(&name).await.map(|m| m.size_bytes), Ok(whole.len() as u64));
    let eight_mib = 8 << 20;
    for range in [0..1, eight_mib - 5..eight_mib + 5, 3_000_000..20_000_000, 36_000_203..36_000_204] {
        let read = store.get_range(&name, range.start as u64..range.end as u64).await.expect("a range");
        assert!(read == whole[range.clone()], "range {range:?} of a large object differs");
    }
    let again = store.put(&name, parts, PutCondition::IfAbsent).await;
    assert_eq!(again, Err(StoreError::Exists(name.clone())), "a large object knows its condition too");
}

async fn what_has_time(store: &dyn ObjectStore) {
    let parts: Vec<Bytes> = (0..9u8).map(|n| Bytes::from(vec![n; 2_100_000])).collect();
    let pace = NonZeroU64::new(64 << 20).expect("not 0");
    for (name, parts) in [("slow/large", parts.clone()), ("slow/small", vec![Bytes::from_static(b"few")])] {
        let (name, whole) = (key(name), parts.concat());
        assert_eq!(store.put_slowly(&name, parts.clone(), PutCondition::IfAbsent, pace).await, Ok(()));
        let read = store.get_range(&name, 0..whole.len() as u64).await.expect("a range");
        assert!(read == whole, "{name} differs");
        let again = store.put_slowly(&name, parts, PutCondition::IfAbsent, pace).await;
        assert_eq!(again, Err(StoreError::Exists(name.clone())), "who has time knows the condition too");
    }
}
