//! One fetch: ranged reads, tried again while the store stumbles, and checked before anybody sees them.

use std::{ops::Range, rc::Rc, time::Duration};

use bytes::Bytes;
use thalweg_objectstore::{
    Backoff, StoreError,
    format::{BlockEntry, BlockIndex, FOOTER_BYTES, Footer, FormatError, MAX_MANIFEST_BYTES, Properties},
};
use thalweg_record::PartitionId;

use super::ColdError;
use crate::{
    meta::{CommittedObject, ManifestRef},
    runtime::Runtime,
    store::StoreLane,
};

/// Waits between attempts.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(2) };
/// How much of an object's end is read at first: in most objects footer, properties and index fit.
const TAIL_BYTES: u64 = 64 * 1024;

/// What a fetch needs.
pub(crate) struct Fetcher {
    pub(crate) runtime: Rc<dyn Runtime>,
    pub(crate) store: StoreLane,
    pub(crate) retry_for: Duration,
}

/// Why one attempt failed.
enum Attempt {
    /// A passing fault, or damage on the way: try again.
    Again(String),
    /// Trying again does not help.
    Final(ColdError),
}

impl Fetcher {
    async fn get(&self, object: &CommittedObject, range: std::ops::Range<u64>) -> Result<Bytes, Attempt> {
        self.store.get_range(object.key.clone(), range).await.map_err(|error| match error {
            StoreError::NotFound(_) => Attempt::Final(ColdError::Gone(object.object)),
            StoreError::Retry(why) => Attempt::Again(why),
            refused => Attempt::Final(ColdError::Storage(refused.to_string())),
        })
    }

    /// Waits before the next attempt; at the deadline the fetch is over.
    async fn again(&self, attempt: &mut u32, since: thalweg_record::Mono, why: String) -> Result<(), ColdError> {
        let now = self.runtime.mono();
        if now.since(since) >= self.retry_for {
            return Err(ColdError::Storage(why));
        }
        let wait = BACKOFF.wait(*attempt, self.runtime.random());
        *attempt += 1;
        self.runtime.sleep_until(now.plus(wait)).await;
        Ok(())
    }
}

fn damaged(object: &CommittedObject, error: FormatError) -> Attempt {
    tracing::warn!(object = object.key.as_str(), %error, "an object reads wrong");
    Attempt::Again(format!("{}: {error}", object.key))
}

/// The index of `object`.
pub(crate) async fn fetch_index(fetcher: &Fetcher, object: &CommittedObject) -> Result<Rc<BlockIndex>, ColdError> {
    let (mut attempt, since) = (0, fetcher.runtime.mono());
    loop {
        match try_index(fetcher, object).await {
            Ok(index) => return Ok(Rc::new(index)),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(why)) => fetcher.again(&mut attempt, since, why).await?,
        }
    }
}

async fn try_index(fetcher: &Fetcher, object: &CommittedObject) -> Result<BlockIndex, Attempt> {
    let tail = Tail::fetch(fetcher, object).await?;
    let index = tail.section(fetcher, object, tail.footer.index_range()).await?;
    BlockIndex::parse(&tail.footer, &index).map_err(|e| damaged(object, e))
}

/// The index of `object`, and its properties.
pub(crate) async fn fetch_about(
    fetcher: &Fetcher,
    object: &CommittedObject,
) -> Result<(BlockIndex, Properties), ColdError> {
    let (mut attempt, since) = (0, fetcher.runtime.mono());
    loop {
        match try_about(fetcher, object).await {
            Ok(about) => return Ok(about),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(why)) => fetcher.again(&mut attempt, since, why).await?,
        }
    }
}

async fn try_about(fetcher: &Fetcher, object: &CommittedObject) -> Result<(BlockIndex, Properties), Attempt> {
    let tail = Tail::fetch(fetcher, object).await?;
    let index = tail.section(fetcher, object, tail.footer.index_range()).await?;
    let index = BlockIndex::parse(&tail.footer, &index).map_err(|e| damaged(object, e))?;
    let properties = tail.section(fetcher, object, tail.footer.properties_range()).await?;
    let properties = Properties::parse(&tail.footer, &properties).map_err(|e| damaged(object, e))?;
    Ok((index, properties))
}

/// What a manifest lists.
pub(crate) async fn fetch_manifest(
    fetcher: &Fetcher,
    partition: PartitionId,
    manifest: &ManifestRef,
) -> Result<Vec<CommittedObject>, ColdError> {
    let (mut attempt, since) = (0, fetcher.runtime.mono());
    if manifest.bytes > MAX_MANIFEST_BYTES {
        return Err(ColdError::Storage(format!("{}: {} bytes are no manifest", manifest.key, manifest.bytes)));
    }
    loop {
        let why = match fetcher.store.get_range(manifest.key.clone(), 0..manifest.bytes).await {
            Ok(bytes) => match manifest.entries(partition, &bytes) {
                Ok(entries) => return Ok(entries),
                Err(why) => {
                    tracing::warn!(manifest = manifest.key.as_str(), why, "a manifest reads wrong");
                    format!("{}: {why}", manifest.key)
                }
            },
            Err(StoreError::NotFound(_)) => return Err(ColdError::Gone(manifest.id)),
            Err(StoreError::Retry(why)) => why,
            Err(refused) => return Err(ColdError::Storage(refused.to_string())),
        };
        fetcher.again(&mut attempt, since, why).await?;
    }
}

/// The end of an object, and its footer.
struct Tail {
    at: u64,
    bytes: Bytes,
    footer: Footer,
}

impl Tail {
    async fn fetch(fetcher: &Fetcher, object: &CommittedObject) -> Result<Tail, Attempt> {
        let size = object.object_bytes;
        let at = size.saturating_sub(TAIL_BYTES);
        let bytes = fetcher.get(object, at..size).await?;
        let footer =
            Footer::parse(&bytes[bytes.len().saturating_sub(FOOTER_BYTES)..], size).map_err(|e| damaged(object, e))?;
        if footer.object != object.object.0 {
            return Err(damaged(object, FormatError::Invalid("it is another object than the one committed")));
        }
        Ok(Tail { at, bytes, footer })
    }

    /// A section of the object, which lies in its end or is fetched.
    async fn section(&self, fetcher: &Fetcher, object: &CommittedObject, range: Range<u64>) -> Result<Bytes, Attempt> {
        match range.start.checked_sub(self.at) {
            Some(at) => Ok(self.bytes.slice(at as usize..at as usize + (range.end - range.start) as usize)),
            None if range.is_empty() => Ok(Bytes::new()),
            None => fetcher.get(object, range).await,
        }
    }
}

/// `blocks`, side by side in `object`, in one buffer; the CRC of each is right.
pub(crate) async fn fetch_run(
    fetcher: &Fetcher,
    object: &CommittedObject,
    blocks: &[BlockEntry],
) -> Result<Bytes, ColdError> {
    let (mut attempt, since) = (0, fetcher.runtime.mono());
    loop {
        match try_run(fetcher, object, blocks).await {
            Ok(run) => return Ok(run),
            Err(Attempt::Final(error)) => return Err(error),
            Err(Attempt::Again(why)) => fetcher.again(&mut attempt, since, why).await?,
        }
    }
}

async fn try_run(fetcher: &Fetcher, object: &CommittedObject, blocks: &[BlockEntry]) -> Result<Bytes, Attempt> {
    let start = blocks.first().map_or(0, |b| b.position);
    let end = blocks.last().map_or(0, |b| b.position + u64::from(b.size_bytes));
    let run = fetcher.get(object, start..end).await?;
    for block in blocks {
        let from = (block.position - start) as usize;
        block.verify(&run[from..from + block.size_bytes as usize]).map_err(|e| damaged(object, e))?;
        // The CRC of a block takes tens of microseconds.
        fetcher.runtime.breathe().await;
    }
    Ok(run)
}
