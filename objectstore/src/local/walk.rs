//! Listing a directory tree in the order of object keys.
#![expect(clippy::disallowed_methods, reason = "runs on the directory engine's threads")]

use std::{fs, io, path::Path};

use crate::{ObjectKey, ObjectMeta};

/// Up to `limit` objects below `root` whose key starts with `prefix`, after `after`, in key order.
pub(super) fn list(root: &Path, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> io::Result<Vec<ObjectMeta>> {
    let mut walk = Walk { root, prefix, after: after.map_or("", ObjectKey::as_str), limit, found: Vec::new() };
    if limit > 0 {
        walk.folder("")?;
    }
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: &'a str,
    limit: usize,
    found: Vec<ObjectMeta>,
}

impl Walk<'_> {
    /// Walks the folder whose path ends in `/`, or is empty for the root.
    fn folder(&mut self, path: &str) -> io::Result<()> {
        for name in sorted(&self.root.join(path))? {
            if self.found.len() == self.limit {
                break;
            }
            let here = format!("{path}{name}");
            if here.ends_with('/') {
                if self.may_hold(&here) {
                    self.folder(&here)?;
                }
            } else if here.as_str() > self.after && here.starts_with(self.prefix) {
                self.file(here)?;
            }
        }
        Ok(())
    }

    /// Whether a key below `folder` can be asked for.
    fn may_hold(&self, folder: &str) -> bool {
        let prefixed = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        prefixed && (folder > self.after || self.after.starts_with(folder))
    }

    fn file(&mut self, key: String) -> io::Result<()> {
        // A name that is no key is not ours: an operator's note, the folder of unfinished puts.
        let Ok(key) = ObjectKey::new(key) else { return Ok(()) };
        match fs::metadata(self.root.join(key.as_str())) {
            Ok(found) => self.found.push(ObjectMeta { key, size_bytes: found.len() }),
            // Deleted since its folder was read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// The names in a folder, in key order: a sub-folder sorts as its name and the `/` that follows it.
fn sorted(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if let Ok(mut name) = entry.file_name().into_string() {
            if entry.file_type()?.is_dir() {
                name.push('/');
            }
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
