//! The newest offset of each key, in memory of a fixed size.
//!
//! Pure. A key is known by 128 bits of its SHA-256: two keys that have them in common would lose a record, and nobody can choose such
//! keys. An entry takes 24 bytes, whatever the key's length. Open addressing; nothing is ever taken out.

use sha2::{Digest, Sha256};
use thalweg_record::Offset;

/// Two words of hash and one of the offset, plus one: an entry of zeros is free.
const WORDS: usize = 3;
/// A map that is hardly filled would make a round of each few keys.
const LEAST_LOAD: f64 = 0.001;
/// Bytes of an entry.
pub(super) const ENTRY_BYTES: u64 = 8 * WORDS as u64;

/// Keys of the dirty section, up to [`KeyMap::end`].
#[derive(Debug)]
pub(super) struct KeyMap {
    words: Vec<u64>,
    used: usize,
    most: usize,
    start: Offset,
    end: Offset,
}

type Hash = [u64; 2];

fn hash(key: &[u8]) -> Hash {
    let digest = Sha256::digest(key);
    let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|n| digest[at + n]));
    #[cfg(feature = "planted-bugs")]
    if thalweg_wal::planted(thalweg_wal::Bug::ShortKeyHash) {
        return [0, word(0) % 4];
    }
    [word(0), word(8)]
}

impl KeyMap {
    /// A map of at most `bytes`, filled up to `load_factor`, of records from `start` on. It takes one key at least.
    pub(super) fn new(bytes: u64, load_factor: f64, start: Offset) -> KeyMap {
        let slots = usize::try_from(bytes / ENTRY_BYTES).unwrap_or(usize::MAX / 64).max(2);
        // One slot stays free: a search ends there.
        let most = ((slots as f64 * load_factor.max(LEAST_LOAD)) as usize).clamp(1, slots - 1);
        KeyMap { words: vec![0; slots * WORDS], used: 0, most, start, end: start }
    }

    /// Memory for so many keys.
    pub(super) fn bytes_for(keys: u64, load_factor: f64) -> u64 {
        // One slot stays free, and a fraction of one may be lost.
        let slots = (keys as f64 / load_factor.max(LEAST_LOAD)) as u64;
        slots.saturating_add(2).saturating_mul(ENTRY_BYTES)
    }

    /// Keys that a map of so many bytes takes, all of them different.
    pub(super) fn keys_in(bytes: u64, load_factor: f64) -> u64 {
        ((bytes / ENTRY_BYTES) as f64 * load_factor.max(LEAST_LOAD)) as u64
    }

    /// First offset of which the map says something.
    pub(super) fn start(&self) -> Offset {
        self.start
    }

    /// First offset of which it does not know.
    pub(super) fn end(&self) -> Offset {
        self.end
    }

    /// All below `end` was looked at.
    pub(super) fn reached(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Keys in it.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Where the key is, or would be.
    fn place(&self, hash: Hash) -> usize {
        let slots = self.words.len() / WORDS;
        let mut slot = (hash[0] ^ hash[1].rotate_left(32)) as usize % slots;
        loop {
            let entry = &self.words[slot * WORDS..(slot + 1) * WORDS];
            if entry[2] == 0 || entry[..2] == hash {
                return slot * WORDS;
            }
            slot = (slot + 1) % slots;
        }
    }

    /// Takes a record in, whose offset is higher than all before; false when there is no room for its key.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = hash(key);
        let at = self.place(hash);
        if self.words[at + 2] == 0 {
            if self.used == self.most {
                return false;
            }
            self.used += 1;
            self.words[at..at + 2].copy_from_slice(&hash);
        }
        self.words[at + 2] = offset.0 as u64 + 1;
        self.reached(offset.next());
        true
    }

    /// The newest offset of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let at = self.place(hash(key));
        self.words[at + 2].checked_sub(1).map(|offset| Offset(offset as i64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_knows_the_newest_offset_of_each_key() {
        let mut map = KeyMap::new(1000 * ENTRY_BYTES, 0.9, Offset(0));
        let mut model = BTreeMap::new();
        for n in 0..5_000i64 {
            let key = (n * n % 700).to_string();
            assert!(map.put(key.as_bytes(), Offset(n)));
            model.insert(key, n);
        }
        for (key, newest) in &model {
            assert_eq!(map.get(key.as_bytes()), Some(Offset(*newest)), "{key}");
        }
        assert_eq!((map.get(b"another"), map.get(b"")), (None, None));
        assert_eq!((map.len(), map.end()), (model.len(), Offset(5_000)));
    }

    #[test]
    fn a_full_map_takes_no_new_key_and_keeps_the_old_ones_current() {
        let mut map = KeyMap::new(10 * ENTRY_BYTES, 0.5, Offset(7));
        for n in 0..5 {
            assert!(map.put(&[n], Offset(7 + i64::from(n))));
        }
        assert!(map.put(&[0], Offset(12)));
        assert!(!map.put(&[9], Offset(13)));
        assert_eq!((map.get(&[0]), map.get(&[9]), map.end()), (Some(Offset(12)), None, Offset(13)));
    }

    #[test]
    fn a_map_of_the_right_size_takes_all_keys() {
        for (keys, load_factor) in [(0, 0.9), (1, 0.9), (1_000, 0.9), (1_000, 0.07), (777, 1.0)] {
            let mut map = KeyMap::new(KeyMap::bytes_for(keys, load_factor), load_factor, Offset(0));
            assert!((0..keys).all(|n| map.put(&n.to_be_bytes(), Offset(n as i64))), "{keys} {load_factor}");
        }
    }

    #[test]
    fn the_smallest_map_takes_one_key() {
        for (bytes, load_factor) in [(0, 0.9), (24, 0.0), (48, 1.0)] {
            let mut map = KeyMap::new(bytes, load_factor, Offset(0));
            assert!(map.put(b"k", Offset(0)) && !map.put(b"l", Offset(1)));
            assert_eq!((map.get(b"k"), map.get(b"l")), (Some(Offset(0)), None));
        }
    }
}
