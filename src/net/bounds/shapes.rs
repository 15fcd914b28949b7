//! The shapes of the requests we serve, as Kafka's schemas give them for the versions offered.

/// One request.
pub(super) struct Shape {
    /// Its key.
    pub key: i16,
    /// First version with compact lengths and tagged fields (KIP-482).
    pub flexible: i16,
    /// Its body.
    pub fields: &'static [Field],
}

/// One field of a struct.
pub(super) struct Field {
    from: i16,
    to: i16,
    /// Its tag, when it is a tagged field.
    pub tag: Option<u32>,
    /// Its kind.
    pub kind: Kind,
}

impl Field {
    /// Whether `version` has it.
    pub fn is_in(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
}

/// What a field is made of. Strings, bytes and arrays may be null.
pub(super) enum Kind {
    /// That many bytes.
    Fixed(usize),
    /// A string: a length of 16 bits, or compact.
    Str,
    /// Bytes or records: a length of 32 bits, or compact.
    Bytes,
    /// An array of something that is no struct.
    List(&'static Kind),
    /// An array of structs.
    Structs(&'static [Field]),
    /// A struct.
    Struct(&'static [Field]),
    /// A struct that may be null, told by a byte in front.
    Optional(&'static [Field]),
}

use Kind::{Bytes, List, Optional, Str, Struct, Structs};

const BOOL: Kind = Kind::Fixed(1);
const I8: Kind = Kind::Fixed(1);
const I16: Kind = Kind::Fixed(2);
const I32: Kind = Kind::Fixed(4);
const I64: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);

const fn always(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn since(from: i16, kind: Kind) -> Field {
    between(from, i16::MAX, kind)
}

const fn until(to: i16, kind: Kind) -> Field {
    between(0, to, kind)
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { from, to, tag: None, kind }
}

const fn tagged(tag: u32, from: i16, kind: Kind) -> Field {
    Field { from, to: i16::MAX, tag: Some(tag), kind }
}

const fn shape(key: i16, flexible: i16, fields: &'static [Field]) -> Shape {
    Shape { key, flexible, fields }
}

/// No version of a request is flexible.
const NEVER: i16 = i16::MAX;

/// Every request that is served, by key.
pub(super) static SHAPES: &[Shape] = &[
    shape(0, 9, PRODUCE),
    shape(1, 12, FETCH),
    shape(2, 6, LIST_OFFSETS),
    shape(3, 9, METADATA),
    shape(8, 8, OFFSET_COMMIT),
    shape(9, 6, OFFSET_FETCH),
    shape(10, 3, &[until(3, Str), since(1, I8), since(4, List(&Str))]),
    shape(11, 6, JOIN_GROUP),
    shape(12, 4, &[always(Str), always(I32), always(Str), since(3, Str)]),
    shape(13, 4, &[always(Str), until(2, Str), since(3, Structs(&[always(Str), always(Str), since(5, Str)]))]),
    shape(14, 4, SYNC_GROUP),
    shape(15, 5, &[always(List(&Str)), since(3, BOOL)]),
    shape(16, 3, &[since(4, List(&Str)), since(5, List(&Str))]),
    shape(18, 3, &[since(3, Str), since(3, Str)]),
    shape(19, 5, CREATE_TOPICS),
    shape(20, 4, &[since(6, Structs(&[always(Str), always(UUID)])), until(5, List(&Str)), always(I32)]),
    shape(21, 2, DELETE_RECORDS),
    shape(22, 2, &[always(Str), always(I32), since(3, I64), since(3, I16)]),
    shape(23, 4, OFFSET_FOR_LEADER_EPOCH),
    shape(29, 2, ACL_FILTER),
    shape(
        30,
        2,
        &[always(Structs(&[always(I8), always(Str), always(I8), always(Str), always(Str), always(I8), always(I8)]))],
    ),
    shape(31, 2, &[always(Structs(ACL_FILTER))]),
    shape(32, 4, DESCRIBE_CONFIGS),
    shape(33, 2, ALTER_CONFIGS),
    shape(34, 2, &[always(Structs(&[always(Str), always(Structs(TOPIC_AND_INDEXES))]))]),
    shape(35, 2, &[always(Structs(TOPIC_AND_INDEXES))]),
    shape(37, 2, CREATE_PARTITIONS),
    shape(38, 2, &[since(3, Str), since(3, Str), always(Structs(&[always(Str), always(Str)])), always(I64)]),
    shape(39, 2, &[always(Bytes), always(I64)]),
    shape(40, 2, &[always(Bytes), always(I64)]),
    shape(41, 2, &[always(Structs(&[always(Str), always(Str)]))]),
    shape(42, 2, &[always(List(&Str))]),
    shape(43, 2, &[since(1, I8), always(Structs(TOPIC_AND_INDEXES)), always(I32)]),
    shape(44, 1, INCREMENTAL_ALTER_CONFIGS),
    shape(
        45,
        0,
        &[
            always(I32),
            since(1, BOOL),
            always(Structs(&[always(Str), always(Structs(&[always(I32), always(List(&I32))]))])),
        ],
    ),
    shape(46, 0, &[always(I32), always(Structs(TOPIC_AND_INDEXES))]),
    shape(47, NEVER, &[always(Str), always(Structs(&[always(Str), always(Structs(&[always(I32)]))]))]),
    shape(48, 1, &[always(Structs(&[always(Str), always(I8), always(Str)])), always(BOOL)]),
    shape(50, 0, &[always(Structs(&[always(Str)]))]),
    shape(
        51,
        0,
        &[
            always(Structs(&[always(Str), always(I8)])),
            always(Structs(&[always(Str), always(I8), always(I32), always(Bytes), always(Bytes)])),
        ],
    ),
    shape(55, 0, &[always(Structs(&[always(Str), always(Structs(&[always(I32)]))]))]),
    shape(60, 0, &[always(BOOL), since(1, I8), since(2, BOOL)]),
    shape(61, 0, &[always(Structs(TOPIC_AND_INDEXES))]),
    shape(64, 0, &[always(I32)]),
    shape(65, 0, &[always(List(&Str))]),
    shape(66, 0, &[always(List(&Str)), always(List(&I64)), since(1, I64), since(2, Str)]),
    shape(74, 0, &[since(1, List(&I8))]),
    shape(75, 0, &[always(Structs(&[always(Str)])), always(I32), always(Optional(&[always(Str), always(I32)]))]),
];

const PRODUCE: &[Field] = &[
    always(Str),
    always(I16),
    always(I32),
    always(Structs(&[until(12, Str), since(13, UUID), always(Structs(&[always(I32), always(Bytes)]))])),
];

const FETCH: &[Field] = &[
    until(14, I32),
    always(I32),
    always(I32),
    always(I32),
    always(I8),
    since(7, I32),
    since(7, I32),
    always(Structs(&[until(12, Str), since(13, UUID), always(Structs(FETCH_PARTITION))])),
    since(7, Structs(&[until(12, Str), since(13, UUID), always(List(&I32))])),
    since(11, Str),
    tagged(0, 12, Str),
    tagged(1, 15, Struct(&[always(I32), always(I64)])),
];

const FETCH_PARTITION: &[Field] = &[
    always(I32),
    since(9, I32),
    always(I64),
    since(12, I32),
    since(5, I64),
    always(I32),
    tagged(0, 17, UUID),
    tagged(1, 18, I64),
];

const LIST_OFFSETS: &[Field] = &[
    always(I32),
    since(2, I8),
    always(Structs(&[always(Str), always(Structs(&[always(I32), since(4, I32), always(I64)]))])),
    since(10, I32),
];

const METADATA: &[Field] =
    &[always(Structs(&[since(10, UUID), always(Str)])), since(4, BOOL), between(8, 10, BOOL), since(8, BOOL)];

const OFFSET_COMMIT: &[Field] = &[
    always(Str),
    always(I32),
    always(Str),
    since(7, Str),
    until(4, I64),
    always(Structs(&[always(Str), always(Structs(&[always(I32), always(I64), since(6, I32), always(Str)]))])),
];

const TOPIC_AND_INDEXES: &[Field] = &[always(Str), always(List(&I32))];

const ACL_FILTER: &[Field] = &[always(I8), always(Str), always(I8), always(Str), always(Str), always(I8), always(I8)];

const OFFSET_FETCH: &[Field] = &[
    until(7, Str),
    until(7, Structs(TOPIC_AND_INDEXES)),
    since(8, Structs(&[always(Str), since(9, Str), since(9, I32), always(Structs(TOPIC_AND_INDEXES))])),
    since(7, BOOL),
];

const JOIN_GROUP: &[Field] = &[
    always(Str),
    always(I32),
    since(1, I32),
    always(Str),
    since(5, Str),
    always(Str),
    always(Structs(&[always(Str), always(Bytes)])),
    since(8, Str),
];

const SYNC_GROUP: &[Field] = &[
    always(Str),
    always(I32),
    always(Str),
    since(3, Str),
    since(5, Str),
    since(5, Str),
    always(Structs(&[always(Str), always(Bytes)])),
];

const CREATE_TOPICS: &[Field] = &[
    always(Structs(&[
        always(Str),
        always(I32),
        always(I16),
        always(Structs(&[always(I32), always(List(&I32))])),
        always(Structs(&[always(Str), always(Str)])),
    ])),
    always(I32),
    always(BOOL),
];

const DELETE_RECORDS: &[Field] =
    &[always(Structs(&[always(Str), always(Structs(&[always(I32), always(I64)]))])), always(I32)];

const OFFSET_FOR_LEADER_EPOCH: &[Field] =
    &[since(3, I32), always(Structs(&[always(Str), always(Structs(&[always(I32), always(I32), always(I32)]))]))];

const DESCRIBE_CONFIGS: &[Field] =
    &[always(Structs(&[always(I8), always(Str), always(List(&Str))])), always(BOOL), since(3, BOOL)];

const CREATE_PARTITIONS: &[Field] =
    &[always(Structs(&[always(Str), always(I32), always(Structs(&[always(List(&I32))]))])), always(I32), always(BOOL)];

const ALTER_CONFIGS: &[Field] =
    &[always(Structs(&[always(I8), always(Str), always(Structs(&[always(Str), always(Str)]))])), always(BOOL)];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    always(Structs(&[always(I8), always(Str), always(Structs(&[always(Str), always(I8), always(Str)]))])),
    always(BOOL),
];
