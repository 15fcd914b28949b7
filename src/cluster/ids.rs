//! New identities: version 4 UUIDs from the caller's randomness, and their text form in Kafka (22 characters).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use thalweg_record::TopicId;

/// 64 random bits at a time: the kernel's in production, seeded in the simulation.
pub type Random = Box<dyn FnMut() -> u64 + Send>;

/// A random UUID.
pub(super) fn uuid(random: &mut Random) -> [u8; 16] {
    let (high, low) = (random().to_be_bytes(), random().to_be_bytes());
    let bytes = std::array::from_fn(|i| if i < 8 { high[i] } else { low[i - 8] });
    uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes()
}

/// A random UUID whose text does not begin with `-`, which command-line tools would take for an option.
pub(super) fn cluster_uuid(random: &mut Random) -> [u8; 16] {
    loop {
        let id = uuid(random);
        if !to_text(id).starts_with('-') {
            return id;
        }
    }
}

/// A new topic's id.
pub(super) fn topic_id(random: &mut Random) -> TopicId {
    TopicId(uuid(random))
}

/// A UUID as Kafka writes it: URL-safe base64 without padding.
pub(super) fn to_text(id: [u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(id)
}

/// Kafka's cluster id of a UUID.
pub fn cluster_id_text(id: [u8; 16]) -> String {
    to_text(id)
}

/// The UUID of a text.
pub(super) fn from_text(text: &str) -> Option<[u8; 16]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_22_characters_and_come_back() {
        let mut state = 0u64;
        let mut random: Random = Box::new(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            state
        });
        let ids: Vec<[u8; 16]> = (0..100).map(|_| cluster_uuid(&mut random)).collect();
        for id in &ids {
            let text = to_text(*id);
            assert!(text.len() == 22 && !text.starts_with('-'), "{text}");
            assert_eq!(from_text(&text), Some(*id));
        }
        assert_ne!(ids[0], ids[1]);
        assert_eq!(from_text("too-short"), None);
    }
}
