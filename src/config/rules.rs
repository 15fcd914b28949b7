//! Combinations of settings that cannot work.

use std::{collections::BTreeSet, path::absolute};

use tracing_subscriber::EnvFilter;

use super::{problem::Problem, table::Config};

/// Largest part of a WAL group that is not records.
const GROUP_OVERHEAD_BYTES: u32 = 4096;
/// Slower than this, compaction would not keep up with anybody: each doubling of its pace takes gigabytes that wait.
const LEAST_COMPACTION_BYTES_PER_SECOND: u64 = 1 << 20;
/// Superblocks of a WAL slice.
const SUPERBLOCK_BYTES: u64 = 2 * 4096;

/// Adds a problem for each broken rule; each names the key to change first.
pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let mut broken = |key: &str, text: String| {
        let origin = config.entry(key).map_or(super::Origin::Default, |e| e.origin.clone());
        problems.push(Problem { key: key.to_owned(), origin, text });
    };
    listeners(config, &mut broken);
    sizes(config, &mut broken);
    paces(config, &mut broken);
    places(config, &mut broken);
    if let Err(e) = EnvFilter::builder().parse(&config.log_level) {
        broken("log.level", format!("{:?} is no level and no directives: {e}", config.log_level));
    }
    if config.compression_gzip_level == 0 {
        broken("compression.gzip.level", "0 does not compress: 1 to 9, or -1 for the library's default".into());
    }
    if config.group_min_session_timeout_ms > config.group_max_session_timeout_ms {
        let max = config.group_max_session_timeout_ms;
        broken("group.min.session.timeout.ms", format!("is above group.max.session.timeout.ms ({max})"));
    }
}

fn listeners(config: &Config, broken: &mut impl FnMut(&str, String)) {
    let (listeners, advertised) = (&config.listeners, &config.advertised_listeners);
    let mut seen = BTreeSet::new();
    let twice = listeners.iter().chain(&config.http_listen).find(|e| e.port != 0 && !seen.insert(e.to_string()));
    if let Some(endpoint) = twice {
        let key = if config.http_listen.as_ref() == Some(endpoint) { "http.listen" } else { "listeners" };
        broken(key, format!("{endpoint} is listened on twice"));
    }
    let overlap = listeners.iter().find(|e| {
        let others = listeners.iter().filter(|other| other != e);
        e.port != 0 && others.clone().any(|other| other.port == e.port && e.covers(other))
    });
    if let (Some(endpoint), None) = (overlap, twice) {
        broken(
            "listeners",
            format!("{endpoint} is every address with that port, and another listener has the port too"),
        );
    }
    if listeners.len() != advertised.len() {
        let (have, need) = (advertised.len(), listeners.len());
        broken("advertised.listeners", format!("has {have} addresses for {need} listeners: one each, in order"));
    }
    if let Some(endpoint) = advertised.iter().find(|e| e.is_unspecified()) {
        let text = format!("clients cannot connect to {endpoint}: set the address by which they reach this machine");
        broken("advertised.listeners", text);
    }
}

fn sizes(config: &Config, broken: &mut impl FnMut(&str, String)) {
    let (message, group) = (config.message_max_bytes, config.wal_max_group_bytes);
    if message > group - GROUP_OVERHEAD_BYTES {
        let most = group - GROUP_OVERHEAD_BYTES;
        broken(
            "message.max.bytes",
            format!("{message} does not fit into wal.max.group.bytes ({group}): at most {most}"),
        );
    }
    let request = config.socket_request_max_bytes;
    if message > request {
        broken("message.max.bytes", format!("{message} is above socket.request.max.bytes ({request})"));
    }
    if u64::from(request) > config.queued_max_request_bytes {
        let queued = config.queued_max_request_bytes;
        broken("queued.max.request.bytes", format!("{queued} is below socket.request.max.bytes ({request})"));
    }
    if u64::from(message) > config.queued_max_response_bytes {
        let queued = config.queued_max_response_bytes;
        broken("queued.max.response.bytes", format!("{queued} is below message.max.bytes ({message})"));
    }
    let (slice, shards) = (config.wal_slice_bytes(), config.shards);
    let need = 4 * u64::from(group.next_multiple_of(4096)) + SUPERBLOCK_BYTES;
    if slice < need {
        let least = need * u64::from(shards);
        broken(
            "wal.capacity.bytes",
            format!(
                "{} gives each of {shards} shards {slice} bytes, less than four groups of wal.max.group.bytes ({group}): \
                 at least {least}, or fewer shards",
                config.wal_capacity_bytes
            ),
        );
    }
    if u64::from(config.object_block_bytes) > config.object_upload_bytes {
        let (block, upload) = (config.object_block_bytes, config.object_upload_bytes);
        broken("object.block.bytes", format!("{block} is above object.upload.bytes ({upload})"));
    }
}

fn paces(config: &Config, broken: &mut impl FnMut(&str, String)) {
    let (copied, least) = (config.object_compaction_bytes_per_second, LEAST_COMPACTION_BYTES_PER_SECOND);
    if (1..least).contains(&copied) {
        let text = format!("{copied} is too slow: at least {least}, or 0 for as fast as it goes");
        broken("object.compaction.bytes.per.second", text);
    }
}

fn places(config: &Config, broken: &mut impl FnMut(&str, String)) {
    if config.object_store_url.scheme() != "file" {
        return;
    }
    let Ok(objects) = config.object_store_url.to_file_path() else {
        let url = &config.object_store_url;
        return broken("object.store.url", format!("{url} is not a path of this machine: write file:///absolute/path"));
    };
    for (key, dir) in [("data.dir", &config.data_dir), ("wal.path", &config.wal_path)] {
        let dir = absolute(dir).unwrap_or_else(|_| dir.clone());
        if objects == dir || (key == "wal.path" && objects.starts_with(&dir)) || dir.starts_with(&objects) {
            let text = format!("{} and {key} ({}) must be separate directories", objects.display(), dir.display());
            return broken("object.store.url", text);
        }
    }
}
