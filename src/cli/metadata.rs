//! `metadata rebuild`, `metadata verify` and `wal drain`: what they say in the end.

use std::{
    io::{self, Write},
    path::Path,
};

use super::progress::Shown;
use crate::{
    broker::{self, Ports, StartError},
    cluster::store::open_sled,
    config::Config,
};

/// Makes the metadata anew from the bucket.
///
/// # Errors
/// A sentence for the user.
pub fn rebuild_metadata(
    config: &Config,
    replace: bool,
    without_snapshot: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), String> {
    let shown = Shown::new(json);
    let (rebuilt, aside) =
        broker::rebuild_metadata(config, &open_sled, replace, without_snapshot, &shown).map_err(|e| e.to_string())?;
    let aside = aside.map(|path| path.display().to_string());
    if json {
        return line(out, &serde_json::json!({ "rebuilt": rebuilt, "aside": aside }));
    }
    let from = rebuilt.snapshot.map_or("objects alone".to_owned(), |sequence| format!("metadata snapshot {sequence}"));
    let told = writeln!(
        out,
        "rebuilt from {from}: {} topics, {} partitions, {} objects ({} of them after the snapshot), {} objects unused",
        rebuilt.topics,
        rebuilt.partitions,
        rebuilt.objects,
        rebuilt.tail_objects,
        rebuilt.unused_objects.len()
    );
    told.and_then(|()| aside.map_or(Ok(()), |aside| writeln!(out, "the earlier metadata was moved to {aside}")))
        .map_err(|e| e.to_string())
}

/// Compares the metadata with the bucket; `Ok(false)` when something is wrong.
///
/// # Errors
/// A sentence for the user, when it cannot be compared.
pub fn verify_metadata(config: &Config, local: bool, json: bool, out: &mut impl Write) -> Result<bool, String> {
    let shown = Shown::new(json);
    let (rebuilt, found) = broker::verify_metadata(config, &open_sled, local, &shown).map_err(|e| e.to_string())?;
    let sound = found.problems.is_empty();
    if json {
        return line(out, &serde_json::json!({ "rebuilt": rebuilt, "verified": found })).map(|()| sound);
    }
    let mut tell = || -> io::Result<()> {
        found.problems.iter().try_for_each(|problem| writeln!(out, "PROBLEM: {problem}"))?;
        found.orphans.iter().try_for_each(|key| writeln!(out, "orphan: {key}"))?;
        writeln!(
            out,
            "{} objects, {} bytes, {} blocks; {} problems, {} orphans, {} waiting to be deleted",
            found.objects,
            found.bytes,
            found.blocks,
            found.problems.len(),
            found.orphans.len(),
            found.garbage
        )
    };
    tell().map(|()| sound).map_err(|e| e.to_string())
}

/// Brings what an orphaned slice holds into the object store.
///
/// # Errors
/// A sentence for the user.
pub fn drain_wal(config: Config, path: &Path, json: bool, out: &mut impl Write) -> Result<(), String> {
    let drained = broker::drain(config, &Ports::default(), &open_sled, path, &Shown::new(json))
        .map_err(|e: StartError| e.to_string())?;
    if json {
        return line(out, &serde_json::json!({ "drained": drained }));
    }
    let mut tell = || -> io::Result<()> {
        for (topic, batches) in &drained.unknown_topics {
            writeln!(
                out,
                "{batches} batches of topic id {topic} were left: the metadata does not know it (it was deleted, or created \
                 after the last snapshot)"
            )?;
        }
        for (partition, batches) in &drained.superseded {
            writeln!(
                out,
                "{batches} batches of {partition} were left: objects hold other records at their offsets, for the partition went on \
                 without them under another leader epoch"
            )?;
        }
        writeln!(
            out,
            "drained {} slices: {} batches with {} bytes are in objects now, {} were before",
            drained.slices, drained.batches, drained.bytes, drained.known_batches
        )
    };
    tell().map_err(|e| e.to_string())
}

pub(super) fn line(out: &mut impl Write, value: &serde_json::Value) -> Result<(), String> {
    writeln!(out, "{value}").map_err(|e| e.to_string())
}
