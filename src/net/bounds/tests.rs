use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestKind};
use proptest::prelude::*;

use super::*;
use crate::api::table::{self, TABLE};

/// Writes a body by the table, every array with two elements, every known tag present, and one unknown tag per struct.
struct Populate {
    out: BytesMut,
    version: i16,
    flexible: bool,
}

impl Populate {
    fn length(&mut self, width: usize, length: usize) {
        match (self.flexible, width) {
            (true, _) => self.out.put_u8(length as u8 + 1),
            (false, 2) => self.out.put_i16(length as i16),
            (false, _) => self.out.put_i32(length as i32),
        }
    }

    fn fields(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.kind(&field.kind);
        }
        if !self.flexible {
            return;
        }
        let known = fields.iter().filter(|field| field.is_in(version)).filter_map(|f| Some((f.tag?, &f.kind)));
        let known: Vec<(u32, &'static Kind)> = known.collect();
        self.out.put_u8(known.len() as u8 + 1);
        for (tag, kind) in known {
            self.out.put_u8(tag as u8);
            let before = std::mem::take(&mut self.out);
            self.kind(kind);
            let value = std::mem::replace(&mut self.out, before);
            self.out.put_u8(value.len() as u8);
            self.out.put_slice(&value);
        }
        self.out.put_slice(&[99, 3, 7, 7, 7]);
    }

    fn kind(&mut self, kind: &'static Kind) {
        match kind {
            Kind::Fixed(len) => self.out.put_bytes(1, *len),
            Kind::Str => {
                self.length(2, 2);
                self.out.put_slice(b"ab");
            }
            Kind::Bytes => {
                self.length(4, 3);
                self.out.put_slice(b"xyz");
            }
            Kind::List(element) => {
                self.length(4, 2);
                self.kind(element);
                self.kind(element);
            }
            Kind::Structs(fields) => {
                self.length(4, 2);
                self.fields(fields);
                self.fields(fields);
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::Optional(fields) => {
                self.out.put_u8(1);
                self.fields(fields);
            }
        }
    }
}

fn populated(shape: &Shape, version: i16) -> Bytes {
    let mut populate = Populate { out: BytesMut::new(), version, flexible: version >= shape.flexible };
    populate.fields(shape.fields);
    populate.out.freeze()
}

fn every_version() -> impl Iterator<Item = (&'static Shape, ApiKey, i16)> {
    SHAPES.iter().flat_map(|shape| {
        let key = ApiKey::try_from(shape.key).expect("a key of the protocol");
        let known = key.valid_versions();
        let served = table::find(shape.key).map_or(known.min..=known.max, |api| api.served_from..=api.max);
        served.map(move |version| (shape, key, version))
    })
}

#[test]
fn every_key_that_is_served_has_a_shape() {
    for api in TABLE {
        assert!(SHAPES.iter().any(|shape| shape.key == api.key as i16), "{:?}", api.key);
    }
}

/// Bytes made by the table decode to their end in the crate, and what the crate encodes of them is walked to its end: so
/// both know the same fields, in the same order, of the same lengths.
#[test]
fn the_table_and_the_crate_agree_on_every_version() {
    for (shape, key, version) in every_version() {
        let body = populated(shape, version);
        let mut rest = body.clone();
        let decoded = RequestKind::decode(key, &mut rest, version).unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
        assert!(rest.is_empty(), "{key:?} {version}: the crate leaves {} bytes", rest.len());
        let mut encoded = BytesMut::new();
        decoded.encode(&mut encoded, version).unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
        assert_eq!(encoded, body, "{key:?} {version}");
        let mut walk = Walk::new(shape, version, &encoded);
        walk.fields(shape.fields).unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
        assert!(walk.rest.is_empty(), "{key:?} {version}: the walk leaves {} bytes", walk.rest.len());
    }
}

#[test]
fn every_cut_body_is_refused() {
    for (shape, key, version) in every_version() {
        let body = populated(shape, version);
        for cut in 0..body.len() {
            assert!(check(shape.key, version, &body[..cut]).is_err(), "{key:?} {version} cut at {cut}");
        }
    }
}

#[test]
fn claims_beyond_the_body_are_refused() {
    // Metadata 12: an array of 2^32-2 topics in 25 bytes.
    let mut huge = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    huge.extend([0; 20]);
    assert!(check(3, 12, &huge).is_err());
    // As many empty topics as there are bytes: 256 bytes of memory for two bytes of body.
    let count = 8 << 20;
    let mut many = Vec::new();
    many.put_i32(count);
    many.resize(4 + 2 * count as usize, 0);
    many.extend([0; 4]);
    assert!(check(3, 4, &many).is_err());
    assert!(check(3, 4, &[0xff, 0xff, 0xff, 0xfe, 0]).is_err(), "a length of -2");
    assert!(check(3, 4, &[0xff, 0xff, 0xff, 0xff, 0]).is_ok(), "null");
}

#[test]
fn a_known_tag_with_a_wrong_size_is_refused() {
    let body = populated(SHAPES.iter().find(|s| s.key == 1).expect("Fetch"), 12);
    let at = body.windows(6).rposition(|w| w == [0, 3, 3, b'a', b'b', 99]).expect("the cluster id's tag");
    for size in [2u8, 4] {
        let mut wrong = body.to_vec();
        wrong[at + 1] = size;
        assert!(check(1, 12, &wrong).is_err(), "size {size}");
    }
}

proptest! {
    #[test]
    fn what_passes_decodes_or_fails_but_never_aborts(
        pick in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let all: Vec<_> = every_version().collect();
        let (shape, key, version) = all[pick.index(all.len())];
        let mut body = populated(shape, version).to_vec();
        prop_assume!(!body.is_empty());
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        if check(shape.key, version, &body).is_ok() {
            let mut body = Bytes::from(body);
            let _decoded_or_not = crate::net::guarded(|| RequestKind::decode(key, &mut body, version));
        }
    }
}
