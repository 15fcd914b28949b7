//! From the text of a value to the type of its field.

use std::{collections::BTreeSet, path::PathBuf};

use thalweg_shards::msg::Millionths;
use url::Url;

use super::{endpoint::Endpoint, setting::Kind};

/// A type that a setting may have.
pub(super) trait Typed: Sized {
    const KIND: Kind;
    /// Bounds of numbers; ignored by the others.
    const MIN: i64 = i64::MIN;
    const MAX: i64 = i64::MAX;

    /// Reads a value. Numbers are within the setting's bounds already. The error says what is wrong, without the key.
    fn parse(text: &str) -> Result<Self, String>;
}

macro_rules! numbers {
    ($($ty:ty: $kind:ident, $min:expr, $max:expr;)*) => {$(
        impl Typed for $ty {
            const KIND: Kind = Kind::$kind;
            const MIN: i64 = $min;
            const MAX: i64 = $max;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("{text:?} is not a whole number"))
            }
        }
    )*};
}

numbers! {
    i32: Int, i32::MIN as i64, i32::MAX as i64;
    u16: Int, 0, u16::MAX as i64;
    u32: Int, 0, i32::MAX as i64;
    u64: Long, 0, i64::MAX;
}

/// A limit that may be absent: -1, or the greatest number there is.
impl Typed for Option<u64> {
    const KIND: Kind = Kind::Long;
    const MIN: i64 = -1;

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<i64>() {
            Ok(-1 | i64::MAX) => Ok(None),
            Ok(n) if n >= 0 => Ok(Some(n.unsigned_abs())),
            _ => Err(format!("{text:?} is neither -1 nor a whole number")),
        }
    }
}

/// A share: a number from 0 to 1.
impl Typed for Millionths {
    const KIND: Kind = Kind::Double;

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Millionths::of(share)),
            _ => Err(format!("{text:?} is not a number from 0 to 1")),
        }
    }
}

impl Typed for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Result<Self, String> {
        text.to_ascii_lowercase().parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }
}

impl Typed for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

/// A text that may be absent: the empty one.
impl Typed for Option<String> {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }
}

impl Typed for PathBuf {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("a path is needed".into()) } else { Ok(PathBuf::from(text)) }
    }
}

impl Typed for Url {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
        match url.scheme() {
            "file" if url.host_str().is_some() => {
                Err(format!("{text:?} names a host: write file:///absolute/path, with three slashes"))
            }
            "s3" if url.host_str().is_none_or(str::is_empty) => {
                Err(format!("{text:?} names no bucket: write s3://bucket/prefix?region=..."))
            }
            "file" | "s3" => Ok(url),
            other => Err(format!("{other:?} is no known object store: write file:///path or s3://bucket/prefix")),
        }
    }
}

impl Typed for Vec<Endpoint> {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Result<Self, String> {
        let list: Vec<Endpoint> = text.split(',').map(|t| Endpoint::parse(t.trim())).collect::<Result<_, _>>()?;
        Ok(list)
    }
}

impl Typed for Option<Endpoint> {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { Endpoint::parse(text).map(Some) }
    }
}

/// `log.cleanup.policy`: what becomes of old records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanupPolicy {
    /// They are deleted by age and size.
    pub delete: bool,
    /// Of each key the newest stays.
    pub compact: bool,
}

impl Typed for CleanupPolicy {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Result<Self, String> {
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        let policy = CleanupPolicy { delete: items.contains(&"delete"), compact: items.contains(&"compact") };
        if usize::from(policy.delete) + usize::from(policy.compact) == items.len() {
            return Ok(policy);
        }
        Err(format!("{text:?} is not delete, compact, or both, each once"))
    }
}

/// Principals, separated by semicolons, for their names may hold commas.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Principals(pub BTreeSet<String>);

impl Typed for Principals {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        let principals: BTreeSet<String> =
            text.split(';').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect();
        match principals.iter().find(|one| !one.contains(':')) {
            Some(odd) => Err(format!("{odd:?} is no principal: write Type:name, such as User:alice")),
            None => Ok(Principals(principals)),
        }
    }
}

macro_rules! choices {
    ($($(#[$outer:meta])* $ty:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* })*) => {$(
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $ty { $($(#[$doc])* $variant,)* }

        impl $ty {
            /// As it is written in the configuration.
            pub fn text(self) -> &'static str {
                match self { $($ty::$variant => $text,)* }
            }
        }

        impl Typed for $ty {
            const KIND: Kind = Kind::Text;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok($ty::$variant),)*
                    _ => Err(format!("{text:?} is not one of: {}", [$($text),*].join(", "))),
                }
            }
        }
    )*};
}

choices! {
    /// How a WAL write becomes durable.
    WalSync {
        /// The descriptor has O_DSYNC: each write is durable when it returns.
        Dsync = "dsync",
        /// Each write is followed by fdatasync.
        Fdatasync = "fdatasync",
    }
    /// Which library speaks to S3.
    S3Engine {
        /// `rusoto_s3`.
        Rusoto = "rusoto",
        /// `object_store` of Apache Arrow.
        ObjectStore = "object_store",
    }
    /// How log lines look.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line, for machines.
        Json = "json",
    }
    /// `compression.type`: how batches are stored.
    CompressionType {
        /// As the producer compressed it.
        Producer = "producer",
        /// Not at all.
        Uncompressed = "uncompressed",
        /// gzip.
        Gzip = "gzip",
        /// Snappy.
        Snappy = "snappy",
        /// LZ4.
        Lz4 = "lz4",
        /// Zstandard.
        Zstd = "zstd",
    }
    /// `replication.factor.check`: what CreateTopics says to a replication factor other than 1.
    FactorCheck {
        /// It is accepted, and 1 is reported: durability comes from the WAL and the object store.
        Lenient = "lenient",
        /// It is refused, as by a Kafka cluster of one broker.
        Strict = "strict",
    }
    /// `authorizer.class.name`: who decides what clients may do.
    AuthorizerClass {
        /// Nobody: everything is allowed.
        Nobody = "",
        /// The authorizer by access rules in the cluster's metadata, under the name that it has in Kafka.
        Standard = "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    }
    /// `log.message.timestamp.type`: whose timestamps records bear.
    TimestampType {
        /// The producer's.
        CreateTime = "CreateTime",
        /// The broker's, at the append.
        LogAppendTime = "LogAppendTime",
    }
}
