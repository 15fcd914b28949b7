//! Metadata snapshots as objects: their keys, and listing, reading and writing them.

use bytes::{Bytes, BytesMut};
use thalweg_objectstore::{ObjectKey, ObjectMeta, ObjectStore, PutCondition, StoreError};

use super::{
    format::{Fault, Head, MAX_HEAD_BYTES, MetadataSnapshot},
    progress::Progress,
};

/// The folder of all snapshots, below the store's prefix.
const FOLDER: &str = "metadata/";
/// Keys asked for at once.
const PAGE: usize = 1_000;
/// Bytes read at once.
const READ_BYTES: u64 = 8 << 20;
/// A larger object is no snapshot.
const MAX_BYTES: u64 = 16 << 30;

/// Where the snapshot `sequence` lies. Key order is the order of sequences, and two writers of one sequence meet.
pub(in crate::cluster) fn key(sequence: u64) -> ObjectKey {
    ObjectKey::new(format!("{FOLDER}{sequence:016x}")).expect("a valid key")
}

fn parse(key: &ObjectKey) -> Option<u64> {
    let hex = key.as_str().strip_prefix(FOLDER)?;
    (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())?
}

/// The sequences of all snapshots there are, oldest first.
pub(in crate::cluster) async fn list(store: &dyn ObjectStore) -> Result<Vec<u64>, StoreError> {
    let mut found = Vec::new();
    each(store, FOLDER, |meta| found.extend(parse(&meta.key))).await?;
    Ok(found)
}

/// Calls `take` for every object whose key begins with `prefix`, in key order.
pub(in crate::cluster) async fn each(
    store: &dyn ObjectStore,
    prefix: &str,
    mut take: impl FnMut(ObjectMeta),
) -> Result<(), StoreError> {
    let mut after: Option<ObjectKey> = None;
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE).await?;
        let (full, last) = (page.len() == PAGE, page.last().map(|meta| meta.key.clone()));
        page.into_iter().for_each(&mut take);
        if !full {
            return Ok(());
        }
        after = last;
    }
}

/// Creates a snapshot; [`StoreError::Exists`] when somebody has written that sequence.
pub(in crate::cluster) async fn write(
    store: &dyn ObjectStore,
    sequence: u64,
    parts: Vec<Bytes>,
) -> Result<(), StoreError> {
    store.put(&key(sequence), parts, PutCondition::IfAbsent).await
}

/// Why a snapshot cannot be read.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub(in crate::cluster) enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Who wrote a snapshot, and when.
pub(in crate::cluster) async fn head(store: &dyn ObjectStore, sequence: u64) -> Result<Head, ReadError> {
    let key = key(sequence);
    let size = store.head(&key).await?.size_bytes.min(MAX_HEAD_BYTES as u64);
    if size == 0 {
        return Err(Fault::Magic.into());
    }
    let (head, _) = Head::decode(&store.get_range(&key, 0..size).await?)?;
    if head.sequence != sequence { Err(Fault::Invalid("another's sequence").into()) } else { Ok(head) }
}

/// Number of the newest snapshot whose head can be read, and the epoch of its writer.
pub(in crate::cluster) async fn newest_written(store: &dyn ObjectStore) -> Result<Option<(u64, i32)>, StoreError> {
    for sequence in list(store).await?.into_iter().rev() {
        match head(store, sequence).await {
            Ok(head) => return Ok(Some((sequence, head.node_epoch))),
            Err(ReadError::Store(StoreError::NotFound(_)) | ReadError::Fault(_)) => {}
            Err(ReadError::Store(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Reads and checks a whole snapshot.
pub(in crate::cluster) async fn read(
    store: &dyn ObjectStore,
    sequence: u64,
    progress: &dyn Progress,
) -> Result<MetadataSnapshot, ReadError> {
    let key = key(sequence);
    let size = store.head(&key).await?.size_bytes;
    if size == 0 || size > MAX_BYTES {
        return Err(Fault::Magic.into());
    }
    progress.begin("reading the metadata snapshot", size);
    let mut bytes = BytesMut::new();
    while (bytes.len() as u64) < size {
        let from = bytes.len() as u64;
        let piece = store.get_range(&key, from..size.min(from + READ_BYTES)).await?;
        bytes.extend_from_slice(&piece);
        progress.advance(piece.len() as u64);
    }
    progress.end();
    let snapshot = MetadataSnapshot::decode(&bytes)?;
    if snapshot.head.sequence != sequence {
        return Err(Fault::Invalid("another's sequence").into());
    }
    Ok(snapshot)
}
