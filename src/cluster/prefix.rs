//! The cluster-id object: whose the prefix in the object store is.
//!
//! Checked before anything is written there; on the start-up thread, which may block.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thalweg_objectstore::{ObjectKey, ObjectStore, PutCondition, StoreError};

use super::schema;

/// Far more than the object ever has: a foreign object of this name is not read into memory.
const MAX_BYTES: u64 = 4096;

#[derive(Serialize, Deserialize)]
pub(super) struct Owner {
    cluster_id: String,
}

pub(super) fn key() -> ObjectKey {
    ObjectKey::new("thalweg-cluster.json").expect("a valid key")
}

/// The cluster that owns the prefix, if any.
pub(super) async fn owner(store: &dyn ObjectStore) -> Result<Option<String>, StoreError> {
    let key = key();
    let size = match store.head(&key).await {
        Ok(meta) => meta.size_bytes,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let foreign = |why: String| StoreError::Refused(format!("object {key} is not a cluster id of Thalweg: {why}"));
    if size > MAX_BYTES {
        return Err(foreign(format!("it has {size} bytes")));
    }
    let bytes = store.get_range(&key, 0..size).await?;
    schema::decode::<Owner>(&bytes).map(|owner| Some(owner.cluster_id)).map_err(foreign)
}

/// Makes the prefix this cluster's unless somebody has it, and answers who has it now.
pub(super) async fn claim(store: &dyn ObjectStore, cluster_id: &str) -> Result<String, StoreError> {
    let body = Bytes::from(schema::encode(&Owner { cluster_id: cluster_id.to_owned() }));
    match store.put(&key(), vec![body], PutCondition::IfAbsent).await {
        Ok(()) => Ok(cluster_id.to_owned()),
        // Somebody was faster, or an earlier try of ours got through.
        Err(StoreError::Exists(_)) => Ok(owner(store).await?.unwrap_or_default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test's thread may block")]

    use futures_lite::future::block_on;
    use thalweg_objectstore::MemoryStore;

    use super::*;

    #[test]
    fn the_first_claim_wins() {
        let store = MemoryStore::new();
        assert_eq!(block_on(owner(&store)), Ok(None));
        assert_eq!(block_on(claim(&store, "mine")), Ok("mine".to_owned()));
        assert_eq!(block_on(claim(&store, "mine")), Ok("mine".to_owned()));
        assert_eq!(block_on(claim(&store, "theirs")), Ok("mine".to_owned()));
        assert_eq!(block_on(owner(&store)), Ok(Some("mine".to_owned())));
    }

    #[test]
    fn a_foreign_object_of_that_name_is_refused() {
        let store = MemoryStore::new();
        block_on(store.put(&key(), vec![Bytes::from_static(b"hello")], PutCondition::Always)).expect("memory");
        assert!(matches!(block_on(owner(&store)), Err(StoreError::Refused(_))));
        block_on(store.put(&key(), vec![vec![b' '; 5000].into()], PutCondition::Always)).expect("memory");
        assert!(matches!(block_on(owner(&store)), Err(StoreError::Refused(_))));
    }
}
