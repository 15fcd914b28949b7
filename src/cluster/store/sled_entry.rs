//! How entries lie in sled: each with a CRC and its revision, and one state entry that sums up all others.

use super::port::{Revision, Versioned};

const FORMAT: u8 = 1;
const STATE_LEN: usize = 29;

/// A decoded entry.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) versioned: Versioned,
    /// CRC-32C over key, revision and value.
    pub(super) crc: u32,
}

impl Entry {
    /// `crc: u32, revision: u64, value`, little endian; the CRC is returned too.
    pub(super) fn encode(key: &[u8], revision: Revision, value: &[u8]) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&revision.0.to_le_bytes());
        bytes.extend_from_slice(value);
        let crc = crc32c::crc32c_append(crc32c::crc32c(key), &bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// Checks and decodes; the error says what is wrong.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Entry, String> {
        let name = || String::from_utf8_lossy(key).into_owned();
        let Some((crc, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(format!("entry {} is too short", name()));
        };
        let crc = u32::from_le_bytes(*crc);
        if crc32c::crc32c_append(crc32c::crc32c(key), rest) != crc {
            return Err(format!("entry {} has a wrong checksum", name()));
        }
        let Some((revision, value)) = rest.split_first_chunk::<8>() else {
            return Err(format!("entry {} is too short", name()));
        };
        let revision = Revision(u64::from_le_bytes(*revision));
        Ok(Entry { versioned: Versioned { value: value.to_vec(), revision }, crc })
    }
}

/// What the newest transaction left: how far the store is, and what it must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    /// Number of entries, this one left out.
    pub(super) count: u64,
    /// Sum of the entries' CRCs: it does not depend on their order, and follows each write in constant time.
    pub(super) digest: u64,
}

impl State {
    pub(super) fn add(&mut self, crc: u32) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(u64::from(crc));
    }

    pub(super) fn forget(&mut self, entry: &Entry) {
        self.count -= 1;
        self.digest = self.digest.wrapping_sub(u64::from(entry.crc));
    }

    /// `format: u8, revision, count, digest: u64, crc: u32`, little endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        for n in [self.revision.0, self.count, self.digest] {
            bytes.extend_from_slice(&n.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        bytes
    }

    /// Checks and decodes; the error says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<State, String> {
        if let Some(format) = bytes.first().filter(|f| **f != FORMAT) {
            return Err(format!("it has format {format}, this version of Thalweg reads {FORMAT}"));
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or("the state entry is too short")?;
        if bytes.len() != STATE_LEN || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
            return Err("the state entry is damaged".into());
        }
        let number = |i: usize| u64::from_le_bytes(std::array::from_fn(|b| body[1 + 8 * i + b]));
        Ok(State { revision: Revision(number(0)), count: number(1), digest: number(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_states_come_back_and_damage_shows() {
        let (bytes, crc) = Entry::encode(b"key", Revision(7), b"value");
        let entry = Entry::decode(b"key", &bytes).expect("intact");
        assert_eq!(
            (entry.crc, entry.versioned.revision, entry.versioned.value.as_slice()),
            (crc, Revision(7), &b"value"[..])
        );
        assert!(Entry::decode(b"kez", &bytes).is_err());
        let mut state = State { revision: Revision(9), ..State::default() };
        state.add(crc);
        let encoded = state.encode();
        assert_eq!(State::decode(&encoded), Ok(state));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Entry::decode(b"key", &damaged).is_err(), "at {at}");
            assert!(Entry::decode(b"key", &bytes[..at]).is_err(), "cut at {at}");
        }
        for at in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 1;
            assert!(State::decode(&damaged).is_err(), "at {at}");
            assert!(State::decode(&encoded[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn forgetting_undoes_adding() {
        let (bytes, crc) = Entry::encode(b"key", Revision(1), b"");
        let mut state = State::default();
        state.add(crc);
        assert_ne!(state, State::default());
        state.forget(&Entry::decode(b"key", &bytes).expect("intact"));
        assert_eq!(state, State::default());
    }
}
