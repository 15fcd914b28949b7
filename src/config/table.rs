//! The table of all settings: field, type, key, default, bounds, and what it does.
//!
//! Only settings that act are listed. Where a setting of Kafka's has one value that we support, other values are
//! refused, never ignored. The comments are the settings' documentation in `print-config` and DescribeConfigs.

use std::{collections::BTreeMap, path::PathBuf};

use thalweg_shards::msg::Millionths;
use url::Url;

use super::{
    endpoint::Endpoint,
    load::{Entry, Values},
    problem::Problem,
    setting::{Setting, Synonym},
    typed::{
        AuthorizerClass, CleanupPolicy, CompressionType, FactorCheck, LogFormat, Principals, S3Engine, TimestampType,
        Typed, WalSync,
    },
};

const I32: i64 = i32::MAX as i64;
const GIB: i64 = 1 << 30;
const TIB: i64 = 1 << 40;

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $row:expr;)*) => {
        /// The broker's settings, one field per key of [`SETTINGS`].
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $field: $ty,)*
            pub(super) entries: BTreeMap<&'static str, Entry>,
        }

        /// All settings, by topic.
        pub static SETTINGS: &[Setting] = &[
            $($row.typed(
                <$ty as Typed>::KIND, <$ty as Typed>::MIN, <$ty as Typed>::MAX, concat!($($doc),+).trim_ascii_start(),
            ),)*
        ];

        impl Config {
            /// Reads every field; what is wrong is added to `problems`.
            pub(super) fn read(values: &Values, problems: &mut Vec<Problem>) -> Option<Config> {
                $(let $field = values.typed::<$ty>($row.key, problems);)*
                Some(Config { $($field: $field?,)* entries: values.entries() })
            }
        }
    };
}

settings! {
    /// Id of this broker in its cluster. It is stored with the data: another id on the same data directory is refused.
    node_id: i32 = Setting::of("node.id", "1").range(0, I32);
    /// Rack or availability zone of this broker, as clients see it in Metadata (KIP-36). Empty: none.
    broker_rack: Option<String> = Setting::of("broker.rack", "");
    /// Where Kafka clients connect: `host:port` or `PLAINTEXT://host:port`, several separated by commas. An empty host or
    /// 0.0.0.0 is every interface; port 0 lets the system choose.
    listeners: Vec<Endpoint> = Setting::of("listeners", "127.0.0.1:9092");
    /// The address that clients are told to connect to, one for each listener, in the same order. Needed when a listener
    /// is on every interface, behind a load balancer, or in a container.
    advertised_listeners: Vec<Endpoint> = Setting::of("advertised.listeners", "<listeners>").computed();
    /// Where the HTTP endpoint (`/metrics`, `/healthz`, `/readyz`) listens. Empty: no endpoint.
    http_listen: Option<Endpoint> = Setting::of("http.listen", "127.0.0.1:9644");
    /// Connections of the whole broker; further ones are closed at once.
    max_connections: u32 = Setting::of("max.connections", "10000").range(1, I32);
    /// Connections from one address; further ones are closed at once.
    max_connections_per_ip: u32 = Setting::of("max.connections.per.ip", "2147483647").range(1, I32);
    /// A connection without a request for this long is closed.
    connections_max_idle_ms: u64 = Setting::of("connections.max.idle.ms", "600000").unit("ms").range(1000, i64::MAX);
    /// The longest request; a longer one costs its sender the connection.
    socket_request_max_bytes: u32 =
        Setting::of("socket.request.max.bytes", "104857600").unit("bytes").range(65_536, I32);
    /// Bytes of requests of all connections that may be under way; beyond them connections are not read.
    queued_max_request_bytes: u64 =
        Setting::of("queued.max.request.bytes", "268435456").unit("bytes").range(1 << 20, TIB);
    /// Bytes of answers of all connections that may wait for their readers; beyond them fetches get less, then wait. Half as
    /// much again may be read for them from the log's device and the object store.
    queued_max_response_bytes: u64 =
        Setting::of("queued.max.response.bytes", "268435456").unit("bytes").range(1 << 20, TIB);

    /// Directory of everything this broker keeps on local disk.
    data_dir: PathBuf = Setting::of("data.dir", "./thalweg-data");
    /// Shards, one pinned thread each. 0: one for each core that this process may use. May differ at every start.
    shards: u16 = Setting::of("shards", "0").range(0, 1024);
    /// How often it is looked whether partitions should move between shards, so that each has as much to do, 1000 for example. 0: never.
    shards_balance_interval_ms: u64 = Setting::of("shards.balance.interval.ms", "0").unit("ms").range(0, 3_600_000);
    /// How far the busiest shard may be above the mean of all, in bytes, requests or time of its core, before partitions move.
    shards_balance_threshold_percent: u32 = Setting::of("shards.balance.threshold.percent", "20").range(1, 100_000);
    /// How long a partition stays on the shard that it moved to. For a sixth of it, the shard it came from gives nothing more away.
    shards_balance_cooldown_ms: u64 = Setting::of("shards.balance.cooldown.ms", "60000").unit("ms");
    /// How long a stop may take to upload what the WAL still holds. What is left stays there for the next start.
    shutdown_timeout_ms: u64 = Setting::of("shutdown.timeout.ms", "30000").unit("ms");

    /// Partitions of a topic created without a count.
    num_partitions: i32 = Setting::of("num.partitions", "1").range(1, 10_000);
    /// Replication factor of a topic created without one. Durability comes from the WAL and the object store, so 1 is
    /// the only value.
    default_replication_factor: i32 = Setting::of("default.replication.factor", "1").range(1, 1);
    /// `lenient`: topics may be created with any replication factor, as tools written for clusters of three brokers ask
    /// for; 1 is what is reported. `strict`: other factors than 1 are refused.
    replication_factor_check: FactorCheck = Setting::of("replication.factor.check", "lenient");
    /// Whether a client that asks for an unknown topic creates it.
    auto_create_topics_enable: bool = Setting::of("auto.create.topics.enable", "true");
    /// Whether topics can be deleted.
    delete_topic_enable: bool = Setting::of("delete.topic.enable", "true");
    /// Age past which records may be deleted. -1: never. `log.retention.minutes` and `log.retention.hours` say the same.
    log_retention_ms: Option<u64> = Setting::of("log.retention.ms", "604800000")
        .unit("ms")
        .topic_key("retention.ms")
        .synonyms(&[
            Synonym { key: "log.retention.minutes", factor: 60_000 },
            Synonym { key: "log.retention.hours", factor: 3_600_000 },
        ]);
    /// Size of a partition past which its oldest records may be deleted. -1: no limit.
    log_retention_bytes: Option<u64> =
        Setting::of("log.retention.bytes", "-1").unit("bytes").topic_key("retention.bytes");
    /// How often retention is looked at.
    log_retention_check_interval_ms: u64 =
        Setting::of("log.retention.check.interval.ms", "300000").unit("ms").range(1, i64::MAX);
    /// What becomes of old records: `delete`, `compact` (of each key the newest stays) or both. With `compact` records need keys.
    log_cleanup_policy: CleanupPolicy = Setting::of("log.cleanup.policy", "delete").topic_key("cleanup.policy");
    /// Whether logs are cleaned whose `cleanup.policy` has `compact`.
    log_cleaner_enable: bool = Setting::of("log.cleaner.enable", "true");
    /// How often a shard looks for a log to clean.
    log_cleaner_backoff_ms: u64 = Setting::of("log.cleaner.backoff.ms", "15000").unit("ms").range(0, i64::MAX);
    /// Memory for the keys of logs that are cleaned, of all shards together; a key takes 24 bytes. What does not fit is cleaned in
    /// several rounds.
    log_cleaner_dedupe_buffer_size: u64 =
        Setting::of("log.cleaner.dedupe.buffer.size", "134217728").range(1 << 20, TIB);
    /// How full that memory may get, 0 to 1.
    log_cleaner_io_buffer_load_factor: Millionths = Setting::of("log.cleaner.io.buffer.load.factor", "0.9");
    /// A log is cleaned when more than this share of its bytes is new since the last time, 0 to 1.
    log_cleaner_min_cleanable_ratio: Millionths =
        Setting::of("log.cleaner.min.cleanable.ratio", "0.5").topic_key("min.cleanable.dirty.ratio");
    /// So long a record stays as it is, by its timestamp.
    log_cleaner_min_compaction_lag_ms: u64 =
        Setting::of("log.cleaner.min.compaction.lag.ms", "0").unit("ms").topic_key("min.compaction.lag.ms");
    /// A log with a record of this age that was not cleaned is cleaned, however little is new. 9223372036854775807: never for that.
    log_cleaner_max_compaction_lag_ms: Option<u64> =
        Setting::of("log.cleaner.max.compaction.lag.ms", "9223372036854775807")
            .unit("ms")
            .range(1, i64::MAX)
            .topic_key("max.compaction.lag.ms");
    /// How long a tombstone (a record with a key and no value) stays after its log was cleaned.
    log_cleaner_delete_retention_ms: u64 =
        Setting::of("log.cleaner.delete.retention.ms", "86400000").unit("ms").topic_key("delete.retention.ms");
    /// The largest record batch that is accepted, as it is sent and as it is stored.
    message_max_bytes: u32 =
        Setting::of("message.max.bytes", "1048588").unit("bytes").range(1024, GIB).topic_key("max.message.bytes");
    /// How far a record's timestamp may lie in the past. 9223372036854775807: any.
    log_message_timestamp_before_max_ms: Option<u64> =
        Setting::of("log.message.timestamp.before.max.ms", "9223372036854775807")
            .unit("ms")
            .range(0, i64::MAX)
            .topic_key("message.timestamp.before.max.ms");
    /// How far a record's timestamp may lie in the future (KIP-1030). 9223372036854775807: any.
    log_message_timestamp_after_max_ms: Option<u64> =
        Setting::of("log.message.timestamp.after.max.ms", "3600000")
            .unit("ms")
            .range(0, i64::MAX)
            .topic_key("message.timestamp.after.max.ms");
    /// Which timestamp is stored: `CreateTime`, the producer's, or `LogAppendTime`, the broker's.
    log_message_timestamp_type: TimestampType =
        Setting::of("log.message.timestamp.type", "CreateTime").topic_key("message.timestamp.type");
    /// How batches are stored: `producer`, as they were sent; or `uncompressed`, `gzip`, `snappy`, `lz4`, `zstd`.
    compression_type: CompressionType = Setting::of("compression.type", "producer").topic_key("compression.type");
    /// Level of gzip where the broker compresses. -1: the library's default.
    compression_gzip_level: i32 =
        Setting::of("compression.gzip.level", "-1").range(-1, 9).topic_key("compression.gzip.level");
    /// Level of lz4 where the broker compresses.
    compression_lz4_level: i32 =
        Setting::of("compression.lz4.level", "9").range(1, 17).topic_key("compression.lz4.level");
    /// Level of zstd where the broker compresses.
    compression_zstd_level: i32 =
        Setting::of("compression.zstd.level", "3").range(-131_072, 22).topic_key("compression.zstd.level");
    /// How long an idempotent producer that sends nothing is remembered.
    producer_id_expiration_ms: u64 =
        Setting::of("producer.id.expiration.ms", "86400000").unit("ms").range(1, i64::MAX);
    /// The most a fetch returns, whatever it asks for.
    fetch_max_bytes: u32 = Setting::of("fetch.max.bytes", "57671680").unit("bytes").range(1024, I32);
    /// Fetch sessions (KIP-227) kept at most, each executor its part. A client that gets none names all its partitions in
    /// every fetch. 0: none.
    max_incremental_fetch_session_cache_slots: u32 =
        Setting::of("max.incremental.fetch.session.cache.slots", "1000").range(0, I32);

    /// How long the first join of an empty consumer group waits for further members.
    group_initial_rebalance_delay_ms: u32 =
        Setting::of("group.initial.rebalance.delay.ms", "0").unit("ms").range(0, I32);
    /// The shortest session timeout a group member may ask for.
    group_min_session_timeout_ms: u32 = Setting::of("group.min.session.timeout.ms", "6000").unit("ms").range(0, I32);
    /// The longest session timeout a group member may ask for.
    group_max_session_timeout_ms: u32 =
        Setting::of("group.max.session.timeout.ms", "1800000").unit("ms").range(0, I32);
    /// Members of one group; further ones are refused.
    group_max_size: u32 = Setting::of("group.max.size", "2147483647").range(1, I32);
    /// How long offsets of a group without members are kept.
    offsets_retention_minutes: u32 =
        Setting::of("offsets.retention.minutes", "10080").unit("minutes").range(1, I32);
    /// Partitions of `__consumer_offsets`. In force when that topic is created, with the first group.
    offsets_topic_num_partitions: i32 = Setting::of("offsets.topic.num.partitions", "50").range(1, 10_000);
    /// The longest text that a consumer may store with an offset.
    offset_metadata_max_bytes: u32 = Setting::of("offset.metadata.max.bytes", "4096").unit("bytes").range(0, I32);

    /// Directory of the write-ahead log: one file for each shard.
    wal_path: PathBuf = Setting::of("wal.path", "<data.dir>/wal").computed();
    /// Size of the write-ahead log, shared by all shards. It is allocated in full. An outage of the object store lasts
    /// as long as it has room.
    wal_capacity_bytes: u64 = Setting::of("wal.capacity.bytes", "4294967296").unit("bytes").range(1 << 20, 16 * TIB);
    /// The most that one write to the log carries. The largest batch must fit, and four of these must fit into each
    /// shard's part of the log.
    wal_max_group_bytes: u32 = Setting::of("wal.max.group.bytes", "4194304").unit("bytes").range(8192, GIB);
    /// How writes become durable: `dsync` (O_DSYNC) or `fdatasync` (a call after each write).
    wal_sync: WalSync = Setting::of("wal.sync", "dsync");
    /// Operations per second that the log of all shards may ask of its disk (a gp3 volume gives 3000). When they are scarce,
    /// writes get larger. 0: no limit.
    wal_max_iops: u64 = Setting::of("wal.max.iops", "0").range(0, I32);
    /// Bytes per second that the log of all shards may write and read (a gp3 volume gives 125000000). 0: no limit.
    wal_max_bytes_per_second: u64 = Setting::of("wal.max.bytes.per.second", "0").range(0, i64::MAX);
    /// Whether the log may lie on tmpfs, which forgets everything when the machine stops. For tests.
    wal_allow_tmpfs: bool = Setting::of("wal.allow.tmpfs", "false");

    /// Where objects are kept: `file:///absolute/path`, or `s3://bucket/prefix?region=...&endpoint=...` with credentials as
    /// AWS's SDKs find them: environment, web identity, profile, container, the instance's role.
    object_store_url: Url = Setting::of("object.store.url", "file://<data.dir>/objects").computed();
    /// Which library speaks to S3, for `s3://`: `object_store` (Apache Arrow), or `rusoto`. Credentials, retries, timeouts and
    /// everything that the URL says are the same with both, and so are the objects.
    object_store_s3_engine: S3Engine = Setting::of("object.store.s3.engine", "object_store");
    /// A shard uploads when it has this much, ...
    object_upload_bytes: u64 = Setting::of("object.upload.bytes", "67108864").unit("bytes").range(65_536, 5 * GIB);
    /// ... or when its oldest record has waited this long, or when a quarter of its log is full.
    object_upload_interval_ms: u64 =
        Setting::of("object.upload.interval.ms", "60000").unit("ms").range(1, i64::MAX);
    /// A partition with more than this in one upload gets an object of its own.
    object_split_bytes: u64 = Setting::of("object.split.bytes", "16777216").unit("bytes").range(65_536, 5 * GIB);
    /// Size of the blocks in an object, the unit of cold reads. A larger batch has a block of its own.
    object_block_bytes: u32 = Setting::of("object.block.bytes", "524288").unit("bytes").range(4096, 1 << 28);
    /// Whether what many uploads hold is brought together in larger objects, by partition, in the background. Each byte is written
    /// once more, and the small objects are deleted.
    object_compaction_enable: bool = Setting::of("object.compaction.enable", "true");
    /// How often a shard looks for such work.
    object_compaction_interval_ms: u64 =
        Setting::of("object.compaction.interval.ms", "10000").unit("ms").range(1, i64::MAX);
    /// It begins when so many uploads of a shard wait, ...
    object_compaction_objects: u32 = Setting::of("object.compaction.objects", "50").range(2, 60);
    /// ... or when one partition has this much in them, which then gets an object of its own. Shared objects become about as large.
    /// Each shard may hold about so much in memory for it, at most twice.
    object_compaction_bytes: u64 =
        Setting::of("object.compaction.bytes", "268435456").unit("bytes").range(65_536, 5 * GIB);
    /// A partition with this much in what is brought together gets an object of its own.
    object_compaction_split_bytes: u64 =
        Setting::of("object.compaction.split.bytes", "67108864").unit("bytes").range(65_536, 5 * GIB);
    /// So many bytes each shard copies a second while little waits, log cleaning included; twice as many with each
    /// `object.compaction.objects` full uploads that do, as far as the object store can. 0: as fast as it goes.
    object_compaction_bytes_per_second: u64 =
        Setting::of("object.compaction.bytes.per.second", "16777216").range(0, i64::MAX);
    /// The most objects of a partition that the metadata and memory keep one by one. Beyond that the older half goes to lists in the
    /// object store (manifests), which are read when somebody needs what they list. What compaction still brings together stays.
    metadata_partition_entries_max: u32 = Setting::of("metadata.partition.entries.max", "200").range(2, 100_000);
    /// How often the metadata is written to the object store, when it has changed: what a broker that lost its disk begins
    /// with (`thalweg metadata rebuild`). While nothing but uploads was committed, which their objects tell, every second time is enough.
    metadata_snapshot_interval_ms: u64 =
        Setting::of("metadata.snapshot.interval.ms", "60000").unit("ms").range(1, i64::MAX);
    /// Whether a start makes the metadata anew from the object store when it is damaged on the local disk, or missing there
    /// beside the log of this broker. What was there is moved aside.
    auto_metadata_rebuild_enable: bool = Setting::of("auto.metadata.rebuild.enable", "true");
    /// Room on the disk of `data.dir` that a file of that size, `ballast`, keeps for the metadata: given up when less than half as much
    /// is free. Objects in a directory on the same disk leave as much free. 0: none.
    metadata_ballast_bytes: u64 =
        Setting::of("metadata.ballast.bytes", "33554432").unit("bytes").range(0, TIB);

    /// Memory for the newest records, of all shards together. Consumers that keep up read from here.
    cache_tail_bytes: u64 = Setting::of("cache.tail.bytes", "268435456").unit("bytes").range(65_536, TIB);
    /// Memory for what is read back from objects: indexes, and blocks read ahead; of all shards together.
    cache_read_bytes: u64 = Setting::of("cache.read.bytes", "134217728").unit("bytes").range(65_536, TIB);

    /// Who decides what clients may do. Empty: nobody, everything is allowed.
    /// `org.apache.kafka.metadata.authorizer.StandardAuthorizer`: access rules (ACLs), as in Kafka; what no rule allows is refused.
    authorizer_class_name: AuthorizerClass = Setting::of("authorizer.class.name", "");
    /// Principals who may do everything, separated by semicolons: `User:alice;User:bob`. Without authentication every client is
    /// `User:ANONYMOUS`.
    super_users: Principals = Setting::of("super.users", "");
    /// Whether a resource without any access rule is everybody's.
    allow_everyone_if_no_acl_found: bool = Setting::of("allow.everyone.if.no.acl.found", "false");

    /// How log lines look, on stderr: `text` or `json`.
    log_format: LogFormat = Setting::of("log.format", "text");
    /// Which log lines are written: `error`, `warn`, `info`, `debug`, `trace`, or directives by module such as
    /// `info,thalweg::net=debug`. The variable RUST_LOG goes before it.
    log_level: String = Setting::of("log.level", "info");
}
