//! The metadata's store: what an embedded database promises, and no more.
//!
//! A write is visible at once and durable after a sync; a crash keeps some of the transactions since the last one, in their
//! order. When the power goes during a call, no later call of that life has an effect.

use std::{
    cell::{Cell, RefCell},
    io,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
};

use thalweg::{
    broker::{MetadataParts, OpenMetadata, StartError},
    cluster::{
        Cluster, LogNotes, RebuildSettings, Rebuilt, rebuild_store,
        store::{Compare, MemoryStore, MetadataError, MetadataStore, Revision, Transacted, Versioned, Write},
        verify_store,
    },
};
use thalweg_shards::runtime::seeded::Stream;

use super::host::OneThread;
use crate::{
    bucket::Doorstep,
    fuse::{Counts, Fuse},
    plant::Plant,
};

/// The store; it outlives the broker.
#[derive(Clone)]
pub(crate) struct Metadata(Arc<Shared>);

struct Shared {
    content: MemoryStore,
    doorstep: Doorstep,
    plant: Plant,
    state: OneThread<State>,
}

struct State {
    /// Transactions since the last sync.
    unsynced: Cell<usize>,
    dead: Cell<bool>,
    fuse: Rc<Fuse>,
    random: RefCell<Stream>,
}

impl Metadata {
    /// An empty store. At the start of a broker the bucket is asked whose it is through `doorstep`, which answers at once.
    pub(crate) fn new(doorstep: Doorstep, random: Stream, fuse: Rc<Fuse>, plant: Plant) -> Metadata {
        let state = State { unsynced: Cell::new(0), dead: Cell::new(false), fuse, random: RefCell::new(random) };
        Metadata(Arc::new(Shared { content: MemoryStore::new(), doorstep, plant, state: OneThread::new(state) }))
    }

    /// It is lost wholly: an empty store in its place.
    pub(crate) fn lost(&self) -> Metadata {
        let random = Stream::new(self.0.state.get().random.borrow_mut().next(), 1);
        Metadata::new(self.0.doorstep.clone(), random, self.0.state.get().fuse.clone(), self.0.plant)
    }

    /// Makes the empty store anew from the bucket. What is made then must agree with every object that it names.
    pub(crate) fn rebuild(&self, settings: &RebuildSettings) -> Result<Rebuilt, String> {
        let store = Arc::new(self.0.content.clone());
        let rebuilt = rebuild_store(&self.0.doorstep, store, settings, &LogNotes).map_err(|e| e.to_string())?;
        self.verify().map(|()| rebuilt)
    }

    /// Every object that the metadata names is there, and what it should be.
    pub(crate) fn verify(&self) -> Result<(), String> {
        let found = verify_store(&self.0.doorstep, &self.0.content, &LogNotes).map_err(|e| e.to_string())?;
        if found.problems.is_empty() { Ok(()) } else { Err(found.problems.join("; ")) }
    }

    /// The process dies: of what was not synced, a beginning is kept.
    pub(crate) fn crash(&self) {
        let state = self.0.state.get();
        let kept = state.random.borrow_mut().below(state.unsynced.get() as u64 + 1);
        self.0.content.crash_keeping(kept as usize);
        state.unsynced.set(0);
        state.dead.set(false);
    }
}

impl Shared {
    /// Whether the power is there before the call has its effect.
    fn powered(&self) -> Result<(), MetadataError> {
        let state = self.state.get();
        state.fuse.count(Counts::Metadata);
        if state.fuse.blown() {
            state.dead.set(true);
        }
        if state.dead.get() { Err(gone()) } else { Ok(()) }
    }
}

fn gone() -> MetadataError {
    MetadataError::Io { path: PathBuf::from("simulated"), source: io::Error::other("simulated: the power is gone") }
}

impl OpenMetadata for Metadata {
    fn open(&self, parts: MetadataParts<'_>) -> Result<Cluster, StartError> {
        Ok(Cluster::open_on(self.0.clone(), (parts.settings)(), &self.0.doorstep)?)
    }
}

impl MetadataStore for Shared {
    fn revision(&self) -> Revision {
        self.content.revision()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, MetadataError> {
        self.content.get(key)
    }

    fn range(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, MetadataError> {
        self.content.range(prefix, after, limit)
    }

    fn transact(&self, compares: &[Compare], writes: &[Write]) -> Result<Transacted, MetadataError> {
        self.powered()?;
        let before = self.content.revision();
        let outcome = self.content.transact(compares, writes)?;
        let state = self.state.get();
        state.unsynced.set(state.unsynced.get() + usize::from(self.content.revision() > before));
        Ok(outcome)
    }

    fn skip_to(&self, revision: Revision) -> Result<(), MetadataError> {
        self.content.skip_to(revision)
    }

    fn sync(&self) -> Result<(), MetadataError> {
        self.powered()?;
        if self.plant != Plant::EarlySync {
            self.content.sync()?;
            self.state.get().unsynced.set(0);
        }
        Ok(())
    }
}
