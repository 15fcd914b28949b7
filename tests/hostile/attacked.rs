//! A broker under attack, and what must hold of it afterwards.

use std::time::Duration;

use kafka_protocol::{
    messages::{
        ApiVersionsRequest, CreateTopicsRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
    },
    protocol::StrBytes,
};
use tempfile::TempDir;
use thalweg_rig::{Broker, Pulse, Setup, wait_for};
use uuid::Uuid;

/// Everything that is left to chance follows from this.
pub const SEED: u64 = 20_261_130;
/// The longest round of the healthy client while others misbehave.
pub const HEALTHY: Duration = Duration::from_secs(10);
/// What the broker may use beside its caches and what its limits let in.
const OWN_BYTES: u64 = 256 << 20;

const CACHE_BYTES: u64 = 1 << 20;
/// The longest request.
pub const REQUEST_BYTES: u64 = 8 << 20;
/// What both executors together may hold of requests, decoded requests and answers.
const IN_FLIGHT_BYTES: u64 = 2 * REQUEST_BYTES + 2 * (64 << 20) + (16 << 20);

/// A broker with small limits, and what it used before anybody was there.
pub struct Attacked {
    pub broker: Broker,
    descriptors: usize,
    _place: TempDir,
}

impl Attacked {
    pub fn start() -> Attacked {
        Attacked::start_with(|setup| setup)
    }

    pub fn start_with(adapt: impl FnOnce(Setup) -> Setup) -> Attacked {
        println!("seed {SEED}");
        let place = thalweg_rig::place(env!("CARGO_TARGET_TMPDIR"));
        let setup = Setup::new(env!("CARGO_BIN_EXE_thalweg"), place.path())
            .set("cache.tail.bytes", CACHE_BYTES)
            .set("cache.read.bytes", CACHE_BYTES)
            .set("socket.request.max.bytes", REQUEST_BYTES)
            .set("queued.max.request.bytes", 2 * REQUEST_BYTES)
            .set("queued.max.response.bytes", 16 << 20)
            .set("fetch.max.bytes", 4 << 20)
            .set("log.level", "warn");
        let broker = adapt(setup).start();
        let descriptors = broker.process().descriptors();
        Attacked { broker, descriptors, _place: place }
    }

    /// The healthy client.
    pub fn pulse(&self) -> Pulse {
        Pulse::start(self.broker.kafka[0], "healthy")
    }

    /// What is offered, as a client learns it: key, first and last version.
    pub fn offered(&self) -> Vec<(i16, i16, i16)> {
        let software = ApiVersionsRequest::default().with_client_software_name(str_of("rig"));
        let answer = self.broker.connect().ask(3, &software.with_client_software_version(str_of("1.0")));
        answer.expect("an answer").api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect()
    }

    /// Creates a topic, and answers its id.
    pub fn create(&self, topic: &str, partitions: i32, configs: &[(&'static str, &'static str)]) -> Uuid {
        let config = |(name, value): &(&'static str, &'static str)| {
            CreatableTopicConfig::default().with_name(str_of(name)).with_value(Some(str_of(value)))
        };
        let name = StrBytes::from_string(topic.to_owned());
        let create = CreatableTopic::default().with_name(name.into()).with_num_partitions(partitions);
        let create = create.with_replication_factor(-1).with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![create]).with_timeout_ms(10_000);
        let answer = self.broker.connect().ask(7, &request).expect("an answer");
        assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
        answer.topics[0].topic_id
    }

    /// A time, longer by as much as this machine keeps the broker waiting for its CPUs.
    pub fn on_this_machine(&self, time: Duration) -> Duration {
        time.mul_f64(self.broker.process().starved("shard-"))
    }

    /// Everything that must hold after an attack, with the bad clients gone: the process lives, the healthy client never
    /// waited long, memory stayed within bounds, and what was held is given back.
    pub fn check(mut self, pulse: Pulse, what: &str) {
        self.broker.check_alive(what);
        let report = pulse.finish();
        let process = self.broker.process();
        let peak = process.peak_resident_bytes();
        let healthy = self.on_this_machine(HEALTHY);
        println!("{what}: {report:?} of {healthy:?}, {} MiB at the peak", peak >> 20);
        assert!(report.worst < healthy, "{what}: the healthy client waited {:?}", report.worst);
        let allowed = 2 * CACHE_BYTES + IN_FLIGHT_BYTES + OWN_BYTES;
        assert!(peak < allowed, "{what}: {} MiB resident, {} MiB allowed", peak >> 20, allowed >> 20);
        let back = wait_for(Duration::from_secs(60), || process.descriptors() <= self.descriptors);
        assert!(back, "{what}: {} descriptors, {} before", process.descriptors(), self.descriptors);
        let open = || self.broker.metrics().sum("thalweg_connections", "");
        assert!(wait_for(Duration::from_secs(20), || open() == 0.0), "{what}: {} connections are left", open());
        self.broker.check_alive(what);
        self.broker.stop();
    }
}

/// A text for the wire.
pub fn str_of(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}
