//! When the broker crashes: after so many device operations or store calls, or when its time is over.

use std::cell::Cell;

/// What a fuse counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counts {
    /// Beginnings and ends of device writes and reads.
    Device,
    /// Beginnings and ends of store calls.
    Store,
    /// Transactions and syncs of the metadata.
    Metadata,
}

/// One fuse for all; set anew for each life of the broker.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    device: Cell<u64>,
    store: Cell<u64>,
    metadata: Cell<u64>,
    blown: Cell<bool>,
}

impl Fuse {
    /// Blows at the `n`-th event (> 0) of the kind counted, and not before.
    pub(crate) fn set(&self, counts: Counts, n: u64) {
        self.clear();
        match counts {
            Counts::Device => self.device.set(n),
            Counts::Store => self.store.set(n),
            Counts::Metadata => self.metadata.set(n),
        }
    }

    /// Never blows.
    pub(crate) fn clear(&self) {
        self.device.set(0);
        self.store.set(0);
        self.metadata.set(0);
        self.blown.set(false);
    }

    /// Counts an event.
    pub(crate) fn count(&self, kind: Counts) {
        let left = match kind {
            Counts::Device => &self.device,
            Counts::Store => &self.store,
            Counts::Metadata => &self.metadata,
        };
        match left.get() {
            0 => {}
            1 => {
                left.set(0);
                self.blown.set(true);
            }
            more => left.set(more - 1),
        }
    }

    /// Blows now.
    pub(crate) fn blow(&self) {
        self.blown.set(true);
    }

    pub(crate) fn blown(&self) -> bool {
        self.blown.get()
    }
}
