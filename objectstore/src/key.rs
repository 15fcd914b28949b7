//! How objects are named: `data/HH/ID-nNODE-eEPOCH`, and lists of older ones (manifests) `manifests/HH/ID-nNODE-eEPOCH`.
//!
//! `HH` is a hash of the id, so that neither an S3 partition nor a directory gets all new objects. The id comes next, so
//! that what was written under a reservation can be listed by the id alone; the writer's node and epoch tell a late
//! writer's object from anybody else's. Other objects of a cluster (its id, metadata snapshots) lie beside the folder.

use thalweg_record::NodeId;

use crate::ObjectKey;

/// The folder of all data objects, below the store's prefix.
pub const DATA_FOLDER: &str = "data";
/// The folder of all manifests.
pub const MANIFEST_FOLDER: &str = "manifests";

/// The key of the data object `id` as written by `node` in its epoch `node_epoch`.
pub fn data_key(id: u64, node: NodeId, node_epoch: u64) -> ObjectKey {
    key(DATA_FOLDER, id, node, node_epoch)
}

/// The key of the manifest `id`; ids of both come from the same reservations.
pub fn manifest_key(id: u64, node: NodeId, node_epoch: u64) -> ObjectKey {
    key(MANIFEST_FOLDER, id, node, node_epoch)
}

fn key(folder: &str, id: u64, node: NodeId, node_epoch: u64) -> ObjectKey {
    let key = format!("{}n{}-e{node_epoch}", prefix(folder, id), node.0);
    ObjectKey::new(key).expect("made of digits, letters and dashes")
}

/// What the keys of data object `id` start with, whoever wrote it; for listing.
pub fn data_key_prefix(id: u64) -> String {
    prefix(DATA_FOLDER, id)
}

fn prefix(folder: &str, id: u64) -> String {
    // Fibonacci hashing: neighbouring ids land far apart.
    let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
    format!("{folder}/{spread:02x}/{id:016x}-")
}

/// Id, writer's node and its epoch of a data object's key; `None` for any other key.
pub fn parse_data_key(key: &ObjectKey) -> Option<(u64, i32, u64)> {
    parse(DATA_FOLDER, key)
}

/// The same of a manifest's key.
pub fn parse_manifest_key(key: &ObjectKey) -> Option<(u64, i32, u64)> {
    parse(MANIFEST_FOLDER, key)
}

fn parse(folder: &str, found: &ObjectKey) -> Option<(u64, i32, u64)> {
    let name = found.as_str().strip_prefix(folder)?.rsplit('/').next()?;
    let (id, writer) = name.split_once("-n")?;
    let (node, epoch) = writer.rsplit_once("-e")?;
    let (id, node, epoch) = (u64::from_str_radix(id, 16).ok()?, node.parse().ok()?, epoch.parse().ok()?);
    (key(folder, id, NodeId(node), epoch) == *found).then_some((id, node, epoch))
}

/// Splits the URL of one data object (`file:///store/data/3f/...`, `s3://bucket/prefix/data/...?region=`) into the
/// store's URL, query included, and the object's key.
///
/// # Errors
/// A sentence for the user when the URL does not lead to a data object.
pub fn split_object_url(object_url: &str) -> Result<(String, ObjectKey), String> {
    let (path, query) = match object_url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (object_url, None),
    };
    let folder = format!("/{DATA_FOLDER}/");
    let at = path.rfind(&folder).ok_or_else(|| format!("{object_url} does not lead into a store's {folder} folder"))?;
    let key = ObjectKey::new(&path[at + 1..]).map_err(|key| format!("{key} is not the key of an object"))?;
    let store = query.map_or_else(|| path[..at].to_owned(), |query| format!("{}?{query}", &path[..at]));
    Ok((store, key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_spread_and_found_by_id() {
        assert_eq!(data_key(1, NodeId(7), 3).as_str(), "data/9e/0000000000000001-n7-e3");
        assert!(data_key(1, NodeId(-1), 3).as_str().starts_with(&data_key_prefix(1)));
        let spread: BTreeSet<String> = (0..256).map(|id| data_key_prefix(id)[5..7].to_owned()).collect();
        for (id, node, epoch) in [(1, 7, 3), (u64::MAX, -1, 0)] {
            let (data, manifest) = (data_key(id, NodeId(node), epoch), manifest_key(id, NodeId(node), epoch));
            assert_eq!(parse_data_key(&data), Some((id, node, epoch)));
            assert_eq!(parse_manifest_key(&manifest), Some((id, node, epoch)));
            assert_eq!((parse_data_key(&manifest), parse_manifest_key(&data)), (None, None));
        }
        for other in ["data/9f/0000000000000001-n7-e3", "data/9e/01-n7-e3", "metadata/0000000000000001", "data/x"] {
            assert_eq!(parse_data_key(&ObjectKey::new(other).expect("a key")), None, "{other}");
        }
        assert!(spread.len() > 150, "256 consecutive ids use {} of 256 folders", spread.len());
    }

    #[test]
    fn an_object_url_splits_into_store_and_key() {
        let (store, key) = split_object_url("s3://b/data/p/data/9e/01-n7-e3?region=x").expect("an object");
        assert_eq!((store.as_str(), key.as_str()), ("s3://b/data/p?region=x", "data/9e/01-n7-e3"));
        let (store, _) = split_object_url("file:///var/objects/data/9e/01-n7-e3").expect("an object");
        assert_eq!(store, "file:///var/objects");
        assert!(split_object_url("file:///var/objects").is_err());
        assert!(split_object_url("file:///var/data/a b").is_err());
    }
}
