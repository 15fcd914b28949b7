//! `object inspect`: what an object in the store says about itself.

use std::io::Write;

use serde_json::{Value, json};
use thalweg_objectstore::{
    Access,
    format::{BlockEntry, Inspection, PartitionProperties, inspect},
    open, split_object_url,
};
use thalweg_objectstore_s3::Limits;
use thalweg_objectstore_s3_arrow as s3;
use tokio::runtime::Builder;

use super::metadata::line;

/// Tells what the object at `url` holds: its partitions, offsets and blocks. Changes nothing.
///
/// # Errors
/// A sentence that says what is wrong with the URL, the store or the object.
pub fn inspect_object(url: &str, json: bool, out: &mut impl Write) -> Result<(), String> {
    let (store_url, key) = split_object_url(url)?;
    // The S3 transport lives in the tokio world; a directory needs no more than a thread that waits.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|e| e.to_string())?;
    let store = if store_url.starts_with("s3:") {
        s3::open(&store_url, Access::ReadOnly, runtime.handle(), Limits::default()).map_err(|e| e.to_string())?
    } else {
        open(&store_url, Access::ReadOnly, 0).map_err(|e| e.to_string())?
    };
    let told = runtime.block_on(inspect(store.as_ref(), &key));
    let told = told.map_err(|e| format!("{url}: {e}"))?;
    if json {
        return line(out, &in_json(&told));
    }
    write!(out, "{told}").map_err(|e| e.to_string())
}

fn in_json(told: &Inspection) -> Value {
    let about = &told.properties;
    let block = |b: &BlockEntry| {
        json!({"position": b.position, "bytes": b.size_bytes, "first_offset": b.base.0, "last_offset": b.last.0,
            "records": b.records, "leader_epoch": b.leader_epoch.0, "max_timestamp": b.max_timestamp.0, "crc": b.crc})
    };
    let partition = |p: &PartitionProperties| {
        let epochs: Vec<Value> = p.epochs.iter().map(|(e, o)| json!([e.0, o.0])).collect();
        let producers: Vec<i64> = p.producers.iter().map(|p| p.producer_id).collect();
        let blocks: Vec<Value> = told.index.partition(p.partition).iter().map(block).collect();
        json!({"topic": p.topic_name, "topic_id": p.partition.topic.to_string(), "partition": p.partition.index,
            "settings_version": p.settings_version, "leader_epoch": p.leader_epoch.0, "log_start": p.log_start.0,
            "epochs": epochs, "producers": producers, "blocks": blocks})
    };
    let partitions: Vec<Value> = about.partitions.iter().map(partition).collect();
    json!({"key": told.key.as_str(), "object": told.footer.object, "bytes": told.size_bytes,
        "cluster_id": about.cluster_id, "node": about.node.0, "node_epoch": about.node_epoch, "shard": about.shard.0,
        "upload_sequence": about.upload_sequence, "partitions": partitions})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("store");
        std::fs::create_dir_all(store.join("data/00")).expect("made");
        std::fs::write(store.join("data/00/x"), "short").expect("written");
        let url = |key: &str| format!("file://{}/{key}", store.display());
        let told = |url: &str| inspect_object(url, false, &mut Vec::new()).expect_err("refused");
        assert!(told(&url("data/00/x")).starts_with(&url("data/00/x")));
        assert!(told(&url("data/00/y")).contains("does not exist"));
        assert!(!told("file:///nowhere").is_empty());
    }
}
