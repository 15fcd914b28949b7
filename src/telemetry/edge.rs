//! What connections, request handlers and coordinators count. Each executor has its own handles.

use std::{cell::RefCell, collections::BTreeMap};

use metrics::{Counter, Gauge, Histogram};
use thalweg_record::ShardId;
use thalweg_shards::meters::buckets;

use crate::{
    api::{ErrorTally, table::TABLE},
    coordinator::group::{Census, GroupState},
};

thalweg_shards::meters! {
    /// Requests of one API key.
    pub struct RequestMeters(REQUEST_METRICS, labels: ["api"]) {
        /// Requests answered, by Kafka's name of the API.
        requests: Counter = "thalweg_requests_total", "requests";
        /// Bytes of requests, headers included.
        request_bytes: Counter = "thalweg_request_bytes_total", "bytes";
        /// Bytes of responses, headers included.
        response_bytes: Counter = "thalweg_response_bytes_total", "bytes";
        /// From the last byte of a request to its answer's being handed to the socket; a fetch that waits for records
        /// counts its wait.
        seconds: Histogram = "thalweg_request_seconds", "seconds", buckets::LATENCY;
    }
}

thalweg_shards::meters! {
    /// Errors of one API key and error code.
    pub struct ErrorMeters(ERROR_METRICS, labels: ["api", "code"]) {
        /// Error codes in responses, by Kafka's number; a response may hold several.
        errors: Counter = "thalweg_request_errors_total", "errors";
    }
}

thalweg_shards::meters! {
    /// Connections of one executor.
    pub struct ConnectionMeters(CONNECTION_METRICS, labels: ["shard"]) {
        /// Connections that are open.
        open: Gauge = "thalweg_connections", "connections";
        /// Connections accepted.
        accepted: Counter = "thalweg_connections_accepted_total", "connections";
        /// Connections refused because max.connections or max.connections.per.ip was reached, or descriptors are short.
        refused: Counter = "thalweg_connections_refused_total", "connections";
        /// Connections that the broker closed: bad input, idle, or a reader that stood still.
        dropped: Counter = "thalweg_connections_dropped_total", "connections";
    }
}

thalweg_shards::meters! {
    /// Fetch sessions of one executor's connections.
    pub struct SessionMeters(SESSION_METRICS, labels: ["shard"]) {
        /// Fetch sessions that are open (KIP-227).
        sessions: Gauge = "thalweg_fetch_sessions", "sessions";
        /// Partitions that fetch sessions remember.
        partitions: Gauge = "thalweg_fetch_session_partitions", "partitions";
        /// Fetch sessions closed to make room for others.
        evictions: Counter = "thalweg_fetch_session_evictions_total", "sessions";
    }
}

thalweg_shards::families! {
    /// One handle for each state of a consumer group.
    ByState by "state" {
        /// No members.
        empty,
        /// Members are called to join.
        preparing_rebalance,
        /// The leader assigns.
        completing_rebalance,
        /// All members have their assignment.
        stable,
        /// Being deleted.
        dead,
    }
}

thalweg_shards::meters! {
    /// Consumer groups of one executor's coordinator.
    pub struct GroupMeters(GROUP_METRICS, labels: ["shard"]) {
        /// Consumer groups that are known, by Kafka's states.
        groups: ByState<Gauge> = "thalweg_groups", "groups";
        /// Members of all groups.
        members: Gauge = "thalweg_group_members", "members";
        /// Rebalances that ended with a new generation.
        rebalances: Counter = "thalweg_group_rebalances_total", "rebalances";
        /// Offsets committed: partitions, not requests.
        offset_commits: Counter = "thalweg_group_offset_commits_total", "offsets";
    }
}

impl ConnectionMeters {
    /// One executor's handles.
    pub fn new(shard: ShardId) -> ConnectionMeters {
        ConnectionMeters::register(&[("shard", shard.0.to_string())])
    }
}

impl SessionMeters {
    /// One executor's handles.
    pub fn new(shard: ShardId) -> SessionMeters {
        SessionMeters::register(&[("shard", shard.0.to_string())])
    }

    /// Shows how many sessions there are, with how many partitions, and counts further evictions.
    pub fn show(&self, (sessions, partitions): (usize, usize), evictions: u64) {
        self.sessions.set(sessions as f64);
        self.partitions.set(partitions as f64);
        self.evictions.increment(evictions);
    }
}

impl GroupMeters {
    /// One executor's handles.
    pub fn new(shard: ShardId) -> GroupMeters {
        GroupMeters::register(&[("shard", shard.0.to_string())])
    }

    /// Counts the change from one census to another.
    pub fn moved(&self, before: &Census, after: &Census) {
        if before == after {
            return;
        }
        let change = |gauge: &Gauge, before: u64, after: u64| {
            if before != after {
                gauge.increment(after as f64 - before as f64);
            }
        };
        change(&self.members, before.members, after.members);
        for state in GroupState::ALL {
            change(self.in_state(state), before.in_state(state), after.in_state(state));
        }
    }

    fn in_state(&self, state: GroupState) -> &Gauge {
        match state {
            GroupState::Empty => &self.groups.empty,
            GroupState::PreparingRebalance => &self.groups.preparing_rebalance,
            GroupState::CompletingRebalance => &self.groups.completing_rebalance,
            GroupState::Stable => &self.groups.stable,
            GroupState::Dead => &self.groups.dead,
        }
    }
}

/// Everything that the connections of one executor count.
pub struct EdgeMeters {
    /// Its connections.
    pub connections: ConnectionMeters,
    /// Their fetch sessions.
    pub sessions: SessionMeters,
    requests: BTreeMap<i16, (String, RequestMeters)>,
    errors: RefCell<BTreeMap<(i16, i16), Counter>>,
}

impl EdgeMeters {
    /// The handles of the executor of `shard`, for every API key that is served.
    pub fn new(shard: ShardId) -> EdgeMeters {
        let requests = TABLE.iter().map(|api| {
            let name = format!("{:?}", api.key).trim_end_matches("Key").to_owned();
            let meters = RequestMeters::register(&[("api", name.clone())]);
            (api.key as i16, (name, meters))
        });
        EdgeMeters {
            connections: ConnectionMeters::new(shard),
            sessions: SessionMeters::new(shard),
            requests: requests.collect(),
            errors: RefCell::default(),
        }
    }

    /// The handles of an API key, if it is served.
    pub fn requests(&self, key: i16) -> Option<&RequestMeters> {
        self.requests.get(&key).map(|(_, meters)| meters)
    }

    /// Counts the error codes of a response. Codes are Kafka's, so there are few.
    pub fn errors(&self, key: i16, tally: &ErrorTally) {
        let Some((name, _)) = self.requests.get(&key) else { return };
        let mut errors = self.errors.borrow_mut();
        for (code, count) in tally.iter() {
            let counter = errors
                .entry((key, code))
                .or_insert_with(|| ErrorMeters::register(&[("api", name.clone()), ("code", code.to_string())]).errors);
            counter.increment(count);
        }
    }
}
