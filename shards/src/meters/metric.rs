//! What a metric is, and how its handles are made.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

/// What a metric does with what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by bucket.
    Histogram,
}

/// One row of a table of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with the unit.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Unit of its values.
    pub unit: &'static str,
    /// Names of the labels that its whole struct shares.
    pub shared_labels: &'static [&'static str],
    /// Name of the label by which a family's members differ.
    pub family_label: Option<&'static str>,
    /// Its meaning.
    pub help: &'static str,
    /// Upper bounds of a histogram's buckets; empty for the others.
    pub buckets: &'static [f64],
}

impl Metric {
    /// Names of its labels.
    pub fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.shared_labels.iter().copied().chain(self.family_label)
    }
}

/// Bounds of histograms' buckets.
pub mod buckets {
    /// Latencies of requests and of the device: 50 us to 10 s.
    pub const LATENCY: &[f64] =
        &[0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
    /// Turns of a shard: 1 us to 100 ms.
    pub const TURN: &[f64] = &[0.000001, 0.000003, 0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
    /// Calls of the object store: 1 ms to 60 s.
    pub const STORE: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
    /// Sizes: 4 KiB to 16 MiB, by factors of four.
    pub const BYTES: &[f64] = &[4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
}

/// Label values that all handles of a struct share.
pub type Labels<'a> = &'a [(&'static str, String)];

/// One handle, or a family of them that differ in a label.
pub trait Handle: Sized {
    /// The family's kind.
    const KIND: Kind;
    /// The family's label, if it is one.
    const LABEL: Option<&'static str> = None;

    /// Registers with the recorder in force.
    fn register(name: &'static str, labels: Labels<'_>) -> Self;
}

const METADATA: Metadata<'static> = Metadata::new("thalweg", Level::INFO, None);

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(label, value)| Label::new(*label, value.clone())).collect();
    Key::from_parts(name, labels)
}

impl Handle for Counter {
    const KIND: Kind = Kind::Counter;

    fn register(name: &'static str, labels: Labels<'_>) -> Counter {
        with_recorder(|r| r.register_counter(&key(name, labels), &METADATA))
    }
}

impl Handle for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn register(name: &'static str, labels: Labels<'_>) -> Gauge {
        with_recorder(|r| r.register_gauge(&key(name, labels), &METADATA))
    }
}

impl Handle for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn register(name: &'static str, labels: Labels<'_>) -> Histogram {
        with_recorder(|r| r.register_histogram(&key(name, labels), &METADATA))
    }
}

/// Makes families of handles that differ in one label, whose values are the names of the members.
#[macro_export]
macro_rules! families {
    ($($(#[$outer:meta])* $family:ident by $label:literal { $($(#[$doc:meta])* $member:ident,)* })*) => {$(
        $(#[$outer])*
        #[derive(Debug)]
        pub struct $family<H> { $($(#[$doc])* pub $member: H,)* }

        impl<H: $crate::meters::Handle> $crate::meters::Handle for $family<H> {
            const KIND: $crate::meters::Kind = H::KIND;
            const LABEL: Option<&'static str> = Some($label);

            fn register(name: &'static str, labels: $crate::meters::Labels<'_>) -> Self {
                let with = |value: &str| {
                    let labels: Vec<_> = labels.iter().cloned().chain([($label, value.to_owned())]).collect();
                    H::register(name, &labels)
                };
                $family { $($member: with(stringify!($member)),)* }
            }
        }
    )*};
}

crate::families! {
    /// One handle for each tier that a read may be answered from.
    ByTier by "tier" {
        /// Memory.
        tail,
        /// The WAL ring.
        ring,
        /// The object store.
        object,
    }
    /// One handle for each reason to compact.
    ByKind by "kind" {
        /// What many uploads hold.
        minor,
        /// A partition that fills an object.
        major,
        /// What is live in an object that is mostly dead.
        split,
    }
    /// One handle for each reason why a log's start moves.
    ByReason by "reason" {
        /// `retention.ms`.
        time,
        /// `retention.bytes`.
        size,
        /// DeleteRecords.
        delete_records,
    }
    /// One handle for each call of the object store.
    ByOperation by "operation" {
        /// Write an object.
        put,
        /// Read a range.
        get,
        /// Delete.
        delete,
        /// List keys.
        list,
    }
}

/// Makes a struct of handles and the table that describes them.
///
/// ```text
/// meters! {
///     /// The struct.
///     pub struct Name(TABLE, labels: ["shard"]) {
///         /// What it counts, for /metrics and docs/metrics.md.
///         field: Counter = "thalweg_things_total", "things";
///         /// A histogram names its buckets.
///         latency: Histogram = "thalweg_thing_seconds", "seconds", buckets::LATENCY;
///     }
/// }
/// ```
#[macro_export]
macro_rules! meters {
    (
        $(#[$outer:meta])*
        pub struct $meters:ident($table:ident, labels: $labels:expr) {
            $($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $name:literal, $unit:literal $(, $buckets:expr)?;)*
        }
    ) => {
        $(#[$outer])*
        pub struct $meters { $($(#[doc = $doc])+ pub $field: $ty,)* }

        #[doc = concat!("What the handles of [`", stringify!($meters), "`] are.")]
        pub static $table: &[$crate::meters::Metric] = &[$({
            const HELP: &str = concat!($($doc),+).trim_ascii();
            const BUCKETS: &[&[f64]] = &[$($buckets)?];
            $crate::meters::Metric {
                name: $name,
                kind: <$ty as $crate::meters::Handle>::KIND,
                unit: $unit,
                shared_labels: &$labels,
                family_label: <$ty as $crate::meters::Handle>::LABEL,
                help: HELP,
                buckets: if BUCKETS.is_empty() { &[] } else { BUCKETS[0] },
            }
        }),*];

        impl $meters {
            /// Registers every handle with the recorder in force.
            fn register(labels: $crate::meters::Labels<'_>) -> $meters {
                $meters { $($field: <$ty as $crate::meters::Handle>::register($name, labels),)* }
            }
        }
    };
}
