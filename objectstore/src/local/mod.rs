//! The directory engine: objects are files below one directory.
//!
//! File calls block, so they run on a small pool of threads of its own, reached through a flume lane; the port's futures
//! wait for the answer and may be polled on any executor. Puts that have time share a thread beside the pool. A future that is dropped does not undo its call.
//!
//! A put is atomic and durable: written to a temporary file, fsynced, renamed into place (or linked, which never
//! replaces), and the directory fsynced. What a crash leaves behind lies in the folder `~tmp`, whose name is no key's,
//! and is cleared when a broker opens the store.

mod engine;
mod files;
mod put;
mod room;
mod slow;
mod walk;

pub use engine::LocalStore;
