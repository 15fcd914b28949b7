//! From a store's URL to an engine of this crate. The wiring knows further schemes (`s3://`) and their crates.

use std::{path::PathBuf, sync::Arc};

use url::Url;

use crate::{LocalStore, ObjectStore};

/// What the opener means to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A broker: creates what is missing, clears what a crash left behind, reads and writes.
    ReadWrite,
    /// A tool beside a broker: changes nothing; writing calls are refused.
    ReadOnly,
}

/// Why a store cannot be opened, as a sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one.
    #[error("{url}: not a store URL ({why}); use file:///absolute/path or s3://bucket/prefix")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No engine for its scheme.
    #[error("{0}: no engine for this scheme; use file:///absolute/path or s3://bucket/prefix")]
    Scheme(String),
    /// The directory cannot be used.
    #[error("object store directory {path}: cannot {action}: {source}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Opens the store at a `file://` URL. Data objects leave `keep_free_bytes` of its disk to others.
///
/// # Errors
/// [`OpenError`], whose text tells the user what to mend.
pub fn open(url: &str, access: Access, keep_free_bytes: u64) -> Result<Arc<dyn ObjectStore>, OpenError> {
    let parsed = Url::parse(url).map_err(|e| OpenError::Url { url: url.to_owned(), why: e.to_string() })?;
    match parsed.scheme() {
        "file" => {
            let path = parsed.to_file_path().map_err(|()| OpenError::Url {
                url: url.to_owned(),
                why: "a file URL has three slashes and an absolute path".to_owned(),
            })?;
            Ok(Arc::new(LocalStore::open(&path, access, keep_free_bytes)?))
        }
        _ => Err(OpenError::Scheme(url.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_be_opened_say_why() {
        for (url, says) in [
            ("objects", "not a store URL"),
            ("file://host/path", "three slashes"),
            ("ftp://host/path", "no engine"),
            ("file:///proc/no-such", "cannot create"),
        ] {
            let error = open(url, Access::ReadWrite, 0).err().expect("refused").to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
