//! `wal inspect`: looks at slices of the write-ahead log beside, or without, a broker.
#![expect(clippy::disallowed_methods, reason = "a command without shards")]

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

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
    let slices = slices(path).map_err(|e| format!("{}: {e}", path.display()))?;
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

/// The files to look at, by name.
fn slices(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == "wal"));
    files.sort();
    Ok(files)
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
