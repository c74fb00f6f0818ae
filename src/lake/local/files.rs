//! What a file system says about files and folders.
//!
//! Owns: walking folders, what tells a file from another one of the same name, and which errors are temporary. Does not own: which files
//! are objects or uploads, writing them (`local`).

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use pipeline::layout::STAGING;

use crate::lake::{LakeError, ObjectInfo, ObjectKey};

/// Adds the objects below a folder of the lake that are wanted by their keys.
pub(super) fn list_below(
    root: &Path,
    folder: &Path,
    wanted: &dyn Fn(&str) -> bool,
    objects: &mut Vec<ObjectInfo>,
) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        let name = path.strip_prefix(root).ok().and_then(Path::to_str);
        if kind.is_dir() {
            // Staged uploads are not objects.
            if name != Some(STAGING) {
                list_below(root, &path, wanted, objects)?;
            }
        } else if let Some(key) = name.filter(|name| wanted(name)).and_then(|name| ObjectKey::new(name).ok()) {
            match entry.metadata() {
                Ok(metadata) => {
                    let modified_ms = modified_ms(&metadata);
                    objects.push(ObjectInfo { key, bytes: metadata.len(), modified_ms, storage_class: None });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// When a file was written: milliseconds since 1970.
pub(super) fn modified_ms(metadata: &fs::Metadata) -> i64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What distinguishes a file or folder from another one with the same name: device and inode.
#[cfg(unix)]
pub(super) type Identity = (u64, u64);
#[cfg(not(unix))]
pub(super) type Identity = ();

/// The identity of a file or folder; `None` if there is none.
pub(super) fn identity(path: &Path) -> io::Result<Option<Identity>> {
    match fs::metadata(path) {
        #[cfg(unix)]
        Ok(metadata) => {
            use std::os::unix::fs::MetadataExt;
            Ok(Some((metadata.dev(), metadata.ino())))
        }
        #[cfg(not(unix))]
        Ok(_) => Ok(Some(())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether two names are of one file; `false` if the platform cannot tell.
pub(super) fn same_file(left: &Path, right: &Path) -> io::Result<bool> {
    let left = identity(left)?;
    Ok(cfg!(unix) && left.is_some() && left == identity(right)?)
}

/// The error of a call, by what the file system says.
pub(super) fn lake_error(operation: String, error: &io::Error) -> LakeError {
    use io::ErrorKind as Kind;
    let problem = error.to_string();
    match error.kind() {
        Kind::StorageFull | Kind::QuotaExceeded => {
            LakeError::Refused { operation, problem: format!("{problem}; free some space and start again") }
        }
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem => LakeError::Refused {
            operation,
            problem: format!("{problem}; make the lake writable for this user and start again"),
        },
        Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::InvalidInput
        | Kind::InvalidFilename
        | Kind::FileTooLarge
        | Kind::NotFound => LakeError::Refused { operation, problem },
        _ => LakeError::Unavailable { operation, problem },
    }
}
