//! `wal inspect`: looks at slices of the write-ahead log beside, or without, a broker.

use std::{io::Write, path::Path};

use serde_json::{Value, json};
use thalweg_record::PartitionId;
use thalweg_wal::{InspectReport, PartitionExtent};

use super::metadata::line;
use crate::broker;

/// Tells what the slice at `path` holds, or each slice in it when it is a directory.
///
/// # Errors
/// A sentence that names the file.
pub fn inspect_wal(path: &Path, json: bool, out: &mut impl Write) -> Result<(), String> {
    let slices = broker::slice_paths(path).map_err(|e| format!("{}: {e}", path.display()))?;
    if slices.is_empty() {
        return Err(format!("{}: no slice of a write-ahead log (*.wal) is in it", path.display()));
    }
    for slice in slices {
        let told = broker::inspect_slice(&slice).map_err(|e| format!("{}: {e}", slice.display()))?;
        if json {
            line(out, &in_json(&slice, &told))?;
        } else {
            writeln!(out, "{}\n{told}", slice.display()).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

fn in_json(slice: &Path, told: &InspectReport) -> Value {
    let path = slice.display().to_string();
    let log = match &told.log {
        Ok(log) => log,
        Err(why) => return json!({"path": path, "bytes": told.device_bytes, "error": why}),
    };
    let partition = |(id, extent): (&PartitionId, &PartitionExtent)| {
        json!({"topic_id": id.topic.to_string(), "partition": id.index, "first_offset": extent.first.0,
            "last_offset": extent.last.0, "batches": extent.batches, "bytes": extent.bytes})
    };
    let partitions: Vec<Value> = log.partitions.iter().map(partition).collect();
    let identity = &log.newest.identity;
    json!({"path": path, "bytes": told.device_bytes, "node": identity.node.0, "shard": identity.shard.0,
        "trim_lsn": log.newest.trim.0, "end_lsn": log.end.0, "groups": log.groups, "closed": log.newest.clean,
        "damage": log.damage.as_ref().map(ToString::to_string), "partitions": partitions})
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn told(path: &Path) -> Result<String, String> {
        let mut out = Vec::new();
        inspect_wal(path, false, &mut out).map(|()| String::from_utf8(out).expect("text"))
    }

    #[test]
    fn every_slice_of_a_directory_is_told_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(told(dir.path()).expect_err("empty").contains("no slice"));
        for name in ["b.wal", "a.wal", "other"] {
            fs::write(dir.path().join(name), vec![0; 128 << 10]).expect("written");
        }
        let shown = told(dir.path()).expect("told");
        assert!(shown.find("a.wal").expect("first") < shown.find("b.wal").expect("second"), "{shown}");
        assert!(!shown.contains("other"), "{shown}");
        assert_eq!(fs::read(dir.path().join("a.wal")).expect("read"), vec![0; 128 << 10]);
    }

    #[test]
    fn what_is_no_slice_is_named() {
        let shown = told(Path::new("/no/such.wal")).expect_err("missing");
        assert!(shown.starts_with("/no/such.wal: No such file"), "{shown}");
    }
}
