//! `object inspect`: what an object in the store says about itself.

use std::io::Write;

use thalweg_objectstore::{Access, format::inspect, open, split_object_url};
use thalweg_objectstore_s3 as s3;
use tokio::runtime::Builder;

/// Tells what the object at `url` holds: its partitions, offsets and blocks. Changes nothing.
///
/// # Errors
/// A sentence that says what is wrong with the URL, the store or the object.
pub fn inspect_object(url: &str, out: &mut impl Write) -> Result<(), String> {
    let (store_url, key) = split_object_url(url)?;
    // The S3 transport lives in the tokio world; a directory needs no more than a thread that waits.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|e| e.to_string())?;
    let store = if store_url.starts_with("s3:") {
        s3::open(&store_url, runtime.handle(), s3::Limits::default()).map_err(|e| e.to_string())?
    } else {
        open(&store_url, Access::ReadOnly).map_err(|e| e.to_string())?
    };
    let told = runtime.block_on(inspect(store.as_ref(), &key));
    let told = told.map_err(|e| format!("{url}: {e}"))?;
    write!(out, "{told}").map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = dir.path().join("store");
        std::fs::create_dir_all(store.join("data/00")).expect("made");
        std::fs::write(store.join("data/00/x"), "short").expect("written");
        let url = |key: &str| format!("file://{}/{key}", store.display());
        let told = |url: &str| inspect_object(url, &mut Vec::new()).expect_err("refused");
        assert!(told(&url("data/00/x")).starts_with(&url("data/00/x")));
        assert!(told(&url("data/00/y")).contains("does not exist"));
        assert!(!told("file:///nowhere").is_empty());
    }
}
