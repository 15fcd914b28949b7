//! `thalweg metadata rebuild` and `verify`: the commands beside a broker, and what they need of the settings.

use std::path::PathBuf;

use thalweg_objectstore::Access;
use thalweg_record::NodeId;

use super::{StartError, disk::Disk, metadata, slices, stores};
use crate::{
    cluster::{
        self, Cluster, ClusterError, OpenStore, Progress, RebuildError, RebuildSettings, Rebuilt, SliceRecord, Verified,
    },
    config::Config,
};

/// Makes the metadata below `data.dir` anew from the bucket, and says where earlier metadata was moved to.
///
/// # Errors
/// Metadata is there and can be read, and `replace` is not given; or why it cannot be rebuilt.
pub fn rebuild_metadata(
    config: &Config,
    open_store: &OpenStore,
    replace: bool,
    without_snapshot: bool,
    progress: &dyn Progress,
) -> Result<(Rebuilt, Option<PathBuf>), StartError> {
    let (_tokio, objects) = stores::open_for_command(config, Access::ReadOnly)?;
    if Cluster::present(&config.data_dir) {
        let dir = config.data_dir.join("metadata");
        match open_store(&dir) {
            Ok(store) if store.revision().0 > 0 && !replace => {
                let text = format!(
                    "{} is there and can be read: nothing has to be rebuilt. With --replace it is moved aside",
                    dir.display()
                );
                return Err(std::io::Error::other(text).into());
            }
            Ok(_) => {}
            Err(error) if !matches!(error, cluster::store::MetadataError::Corrupt { .. }) => {
                return Err(ClusterError::Store(error).into());
            }
            Err(_) => {}
        }
    }
    let here = slices::found(&Disk, &config.wal_path, NodeId(config.node_id));
    let here: Vec<SliceRecord> = here.into_iter().map(|(_, slice)| slice).collect();
    // Who types the command is told, and can still drain the slices.
    let settings = RebuildSettings {
        slices_hold: metadata::partitions_in(&here),
        accept_loss: true,
        ..metadata::rebuild_settings(config, here, without_snapshot)
    };
    cluster::restore(&config.data_dir, open_store, &*objects, &settings, progress).map_err(failed)
}

/// Compares the metadata with the bucket: what a rebuild would make of the bucket, or with `local` what lies below `data.dir`.
///
/// # Errors
/// It cannot be read.
pub fn verify_metadata(
    config: &Config,
    open_store: &OpenStore,
    local: bool,
    progress: &dyn Progress,
) -> Result<(Option<Rebuilt>, Verified), StartError> {
    let (_tokio, objects) = stores::open_for_command(config, Access::ReadOnly)?;
    if local {
        let verified = cluster::verify_local(&config.data_dir, open_store, &*objects, progress);
        return Ok((None, verified.map_err(failed)?));
    }
    let settings = metadata::rebuild_settings(config, Vec::new(), false);
    let (rebuilt, verified) = cluster::verify_bucket(&*objects, &settings, progress).map_err(failed)?;
    Ok((Some(rebuilt), verified))
}

fn failed(error: RebuildError) -> StartError {
    match error {
        RebuildError::Cluster(error) => error.into(),
        other => StartError::Store(other.to_string()),
    }
}
