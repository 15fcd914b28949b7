//! What may be wrong with a body: its end is missing, a length is absurd, bits are flipped.

use thalweg_rig::Chance;

/// What a body was made into.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// What was done, for the message of a failure.
    pub what: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether no broker may answer it: it ends too early.
    pub must_close: bool,
}

/// Lengths that no field has, as fields of two and of four bytes, and as varints.
const ABSURD: &[(&str, &[u8])] = &[
    ("i32::MAX", &[0x7f, 0xff, 0xff, 0xff]),
    ("-2 in 32 bits", &[0xff, 0xff, 0xff, 0xfe]),
    ("i32::MIN", &[0x80, 0, 0, 0]),
    ("a million", &[0, 0x0f, 0x42, 0x40]),
    ("i16::MAX", &[0x7f, 0xff]),
    ("-2 in 16 bits", &[0xff, 0xfe]),
];

/// Varints that claim too much; each takes the place of one byte, which is what the small lengths of samples have.
const ABSURD_VARINTS: &[(&str, &[u8])] = &[
    ("varint 2^32-1", &[0xff, 0xff, 0xff, 0xff, 0x0f]),
    ("varint 2^31", &[0x80, 0x80, 0x80, 0x80, 0x08]),
    ("varint 2^35", &[0xff, 0xff, 0xff, 0xff, 0x7f]),
    ("varint without end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ("varint 70,000", &[0xf0, 0xa2, 0x04]),
];

/// Texts are made of these: one that is plain, one that grows when it is escaped in a message.
const FILLERS: [u8; 2] = [b'a', 1];
/// The longest text of a version with lengths of 16 bits.
const LONGEST: usize = i16::MAX as usize;
/// Kafka takes no longer ones in any version; here the length alone would not forbid it.
const LONGER_THAN_KAFKAS: usize = 40_000;

/// Where texts are, by their looks: place and length.
fn texts(body: &[u8], flexible: bool) -> Vec<(usize, usize)> {
    let length_at = |at: usize| match flexible {
        true => body.get(at).map(|byte| (1, usize::from(*byte).saturating_sub(1))).filter(|(_, length)| *length < 127),
        false => body.get(at..at + 2).map(|raw| (2, usize::from(u16::from_be_bytes([raw[0], raw[1]])))),
    };
    let text = |at: usize| {
        let (head, length) = length_at(at)?;
        let content = body.get(at + head..at + head + length)?;
        let looks = length >= 3 && content.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        looks.then_some((at, length))
    };
    (0..body.len()).filter_map(text).collect()
}

/// Every cut, every absurd length at every place, every bit of a small body (a sample of a large one's), and some bodies
/// with several bits flipped.
pub fn of(body: &[u8], flexible: bool, chance: &mut Chance) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    let mut add = |what: String, body: Vec<u8>, must_close| mutations.push(Mutation { what, body, must_close });
    for end in 0..body.len() {
        add(format!("cut after {end} bytes"), body[..end].to_vec(), true);
    }
    for at in 0..body.len() {
        for (what, bytes) in ABSURD.iter().filter(|(_, bytes)| at + bytes.len() <= body.len()) {
            let mut changed = body.to_vec();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            add(format!("{what} at {at}"), changed, false);
        }
        for (what, bytes) in ABSURD_VARINTS.iter().filter(|_| flexible) {
            let changed = [&body[..at], bytes, &body[at + 1..]].concat();
            add(format!("{what} at {at}"), changed, false);
        }
    }
    for (at, length) in texts(body, flexible) {
        let head = if flexible { 1 } else { 2 };
        for filler in FILLERS {
            let long = if flexible { LONGER_THAN_KAFKAS } else { LONGEST };
            let mut changed = body[..at].to_vec();
            match flexible {
                true => {
                    changed.extend([(long + 1) as u8 | 0x80, ((long + 1) >> 7) as u8 | 0x80, ((long + 1) >> 14) as u8])
                }
                false => changed.extend((long as u16).to_be_bytes()),
            }
            changed.extend(std::iter::repeat_n(filler, long));
            changed.extend(&body[at + head + length..]);
            add(format!("the text at {at} of {long} bytes {filler:#x}"), changed, false);
        }
    }
    for _ in 0..body.len().min(100) {
        let (mut changed, flips) = (body.to_vec(), 1 + chance.below(3));
        let bits: Vec<usize> = (0..flips).map(|_| chance.below(body.len() * 8)).collect();
        bits.iter().for_each(|bit| changed[bit / 8] ^= 1 << (bit % 8));
        add(format!("bits {bits:?} flipped"), changed, false);
    }
    mutations
}
