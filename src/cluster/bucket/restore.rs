//! Puts rebuilt metadata in its place on the local disk.
//!
//! The store is made beside its place and moved there when it is complete and durable: a rebuild that is cut short is begun
//! anew. What lay there before is moved aside, never deleted.
#![expect(clippy::disallowed_methods, reason = "runs at the start or in a command, on a thread that may block")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures_lite::future::block_on;
use thalweg_objectstore::ObjectStore;
use thalweg_shards::meta::ObjectId;

use super::{
    progress::Progress,
    rebuild::{RebuildError, RebuildSettings, Rebuilt, rebuild},
    verify::{Verified, verify},
};
use crate::cluster::{
    error::ClusterError,
    open::{OpenStore, metadata_dir},
    store::{MemoryStore, MetadataStore},
};

/// Rebuilds the metadata below `data_dir` from the bucket. Answers what it made, and where earlier metadata was moved to.
///
/// # Errors
/// [`RebuildError`]; what lay there is as it was then.
pub fn restore(
    data_dir: &Path,
    open_store: &OpenStore,
    objects: &dyn ObjectStore,
    settings: &RebuildSettings,
    progress: &dyn Progress,
) -> Result<(Rebuilt, Option<PathBuf>), RebuildError> {
    let place = metadata_dir(data_dir);
    let draft = place.with_extension("rebuild");
    let failed = |what: &Path, source: io::Error| ClusterError::Io { what: what.display().to_string(), source };
    fs::create_dir_all(data_dir).map_err(|e| failed(data_dir, e))?;
    match fs::remove_dir_all(&draft) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&draft, e).into()),
        _ => {}
    }
    let rebuilt = rebuild_store(objects, open_store(&draft)?, settings, progress)?;
    let aside = put_in_place(&draft, &place).map_err(|e| failed(&draft, e))?;
    File::open(data_dir).and_then(|dir| dir.sync_all()).map_err(|e| failed(data_dir, e))?;
    Ok((rebuilt, aside))
}

/// Gives `draft` the name `place`; answers where what lay there was moved to. When it fails, that is back in its place.
fn put_in_place(draft: &Path, place: &Path) -> io::Result<Option<PathBuf>> {
    if !place.exists() {
        return fs::rename(draft, place).map(|()| None);
    }
    let aside = free_name(place);
    fs::rename(place, &aside)?;
    if let Err(error) = fs::rename(draft, place) {
        fs::rename(&aside, place).map_err(|second| {
            let aside = aside.display();
            io::Error::new(
                second.kind(),
                format!("{error}; and what lay in its place is {aside} now, and does not go back ({second})"),
            )
        })?;
        return Err(error);
    }
    Ok(Some(aside))
}

/// Fills the empty `store` from the bucket, for whoever keeps it. Blocks on `objects`.
///
/// # Errors
/// [`RebuildError`]; `store` is of no use then.
pub fn rebuild_store(
    objects: &dyn ObjectStore,
    store: Arc<dyn MetadataStore>,
    settings: &RebuildSettings,
    progress: &dyn Progress,
) -> Result<Rebuilt, RebuildError> {
    block_on(rebuild(objects, store, settings, progress))
}

/// Verifies `store`, whose broker is stopped. Blocks on `objects`.
///
/// # Errors
/// [`RebuildError`].
pub fn verify_store(
    objects: &dyn ObjectStore,
    store: &dyn MetadataStore,
    progress: &dyn Progress,
) -> Result<Verified, RebuildError> {
    block_on(verify(objects, store, None, progress))
}

/// Verifies what a rebuild would make of the bucket now; nothing is changed anywhere.
///
/// # Errors
/// [`RebuildError`].
pub fn verify_bucket(
    objects: &dyn ObjectStore,
    settings: &RebuildSettings,
    progress: &dyn Progress,
) -> Result<(Rebuilt, Verified), RebuildError> {
    let look = |only: Option<&BTreeSet<ObjectId>>| -> Result<(Rebuilt, Verified), RebuildError> {
        let store = Arc::new(MemoryStore::new());
        let rebuilt = rebuild_store(objects, store.clone(), settings, progress)?;
        Ok((rebuilt, block_on(verify(objects, &*store, only, progress))?))
    };
    let (rebuilt, mut found) = look(None)?;
    if !found.problems.is_empty() || !found.orphans.is_empty() {
        // A broker that runs writes and deletes meanwhile, and its snapshots tell of it before it deletes: what is wrong stays wrong.
        let (_, again) = look(Some(&found.suspects))?;
        found.problems = again.problems;
        found.orphans.retain(|key| again.orphans.contains(key));
    }
    Ok((rebuilt, found))
}

/// Verifies the metadata below `data_dir`, whose broker is stopped.
///
/// # Errors
/// [`RebuildError`].
pub fn verify_local(
    data_dir: &Path,
    open_store: &OpenStore,
    objects: &dyn ObjectStore,
    progress: &dyn Progress,
) -> Result<Verified, RebuildError> {
    let dir = metadata_dir(data_dir);
    if !dir.exists() {
        return Err(RebuildError::Bucket(format!("{} does not exist", dir.display())));
    }
    verify_store(objects, &*open_store(&dir)?, progress)
}

/// The first of `metadata.aside-1`, `metadata.aside-2`, ... that is free.
fn free_name(place: &Path) -> PathBuf {
    let mut n = 1;
    loop {
        let name = place.with_extension(format!("aside-{n}"));
        if !name.exists() {
            return name;
        }
        n += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lay_there_is_back_when_the_draft_does_not_come() {
        let dir = tempfile::tempdir().expect("a directory");
        let (draft, place) = (dir.path().join("draft"), dir.path().join("metadata"));
        fs::create_dir(&place).expect("made");
        fs::write(place.join("db"), "old").expect("written");
        put_in_place(&draft, &place).expect_err("there is no draft");
        assert_eq!(fs::read(place.join("db")).expect("there"), b"old");
        fs::create_dir(&draft).expect("made");
        assert_eq!(put_in_place(&draft, &place).expect("moved"), Some(dir.path().join("metadata.aside-1")));
        assert!(!place.join("db").exists());
    }
}
