//! How long work tells how far it has come: bytes done of those to do. Who shows it, and how, is the caller's matter.

/// Told by one thread at a time.
pub trait Progress {
    /// Work of about `bytes` begins.
    fn begin(&self, what: &str, bytes: u64);
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
    /// It is over.
    fn end(&self);
    /// Something the reader should know at once.
    fn note(&self, text: &str);
}

/// Tells the log, and nothing of how far things are.
#[derive(Clone, Copy, Debug)]
pub struct LogNotes;

impl Progress for LogNotes {
    fn begin(&self, what: &str, bytes: u64) {
        tracing::info!(bytes, "{what}");
    }

    fn advance(&self, _bytes: u64) {}

    fn end(&self) {}

    fn note(&self, text: &str) {
        tracing::warn!("{text}");
    }
}
