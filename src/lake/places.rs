//! Paths of this machine: whether something can be written there.
//!
//! Owns: checks before anything is opened. They see a missing or protected folder, and not a full disk. Does not own: what is
//! kept at a path.

use std::path::{Path, PathBuf};

/// The path with links and dots resolved, for the part of it that exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    if let Ok(path) = path.canonicalize() {
        return path;
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match path.file_name() {
        Some(name) if parent != path => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Checks that a folder can be written, or be made where it is to be.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn check_writable(folder: &Path) -> Result<(), String> {
    let folder = resolved(folder);
    let Some(existing) = folder.ancestors().find(|above| above.exists()) else { return Ok(()) };
    let shown = existing.display();
    if !existing.is_dir() {
        return Err(format!("{shown} is not a directory"));
    }
    #[cfg(unix)]
    if let Err(error) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        let error = std::io::Error::from(error);
        return Err(format!(
            "{shown} is not writable ({error}); make it writable for this user, or choose another place"
        ));
    }
    Ok(())
}

/// How much of a disk is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// Bytes that this user may still write.
    pub(crate) free_bytes: u64,
    /// All bytes.
    pub(crate) bytes: u64,
    /// Files that may still be made.
    pub(crate) free_files: u64,
    /// All files; 0 if the file system has no limit.
    pub(crate) files: u64,
}

/// Free bytes below which a disk counts as nearly full, whatever its size.
const FREE_BYTES_MIN: u64 = 1 << 30;

impl DiskSpace {
    /// What is nearly used up, as the end of a sentence; `None` if there is enough.
    pub(crate) fn problem(&self) -> Option<String> {
        let few = |free: u64, all: u64| all > 0 && free < all / 20;
        if few(self.free_bytes, self.bytes) || self.free_bytes < FREE_BYTES_MIN {
            return Some(format!("has {} MiB of {} MiB free", self.free_bytes >> 20, self.bytes >> 20));
        }
        few(self.free_files, self.files)
            .then(|| format!("can have {} more files (inodes) of {}", self.free_files, self.files))
    }
}

/// How much is free where a path is, or will be.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn disk_space(path: &Path) -> Result<DiskSpace, String> {
    let path = resolved(path);
    let existing = path.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(existing).map_err(|error| format!("{}: {error}", existing.display()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let (free_bytes, bytes) = (bytes(found.f_bavail), bytes(found.f_blocks));
        Ok(DiskSpace { free_bytes, bytes, free_files: found.f_favail, files: found.f_files })
    }
    #[cfg(not(unix))]
    Err(format!("{}: this system does not say", existing.display()))
}

/// The kind of network file system that a path is on; `None` for a local disk, and where this system does not say.
pub(crate) fn network_file_system(path: &Path) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    {
        let path = resolved(path);
        let existing = path.ancestors().find(|above| above.exists())?;
        let found = rustix::fs::statfs(existing).ok()?;
        network_kind(u64::try_from(found.f_type).ok()?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

/// The network file system with this magic number, as `statfs(2)` lists them.
fn network_kind(magic: u64) -> Option<&'static str> {
    // The number is of 32 bits, and some systems extend its sign.
    match magic & 0xffff_ffff {
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => Some("SMB"),
        0x0102_1997 => Some("9P"),
        0x5346_414f => Some("AFS"),
        0x00c3_6400 => Some("Ceph"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_resolved_up_to_what_exists() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        assert_eq!(resolved(&folder.path().join("a/../b")), real.join("a").join("..").join("b"));
        assert_eq!(resolved(&folder.path().join("new/lake")), real.join("new/lake"));
        assert_eq!(resolved(folder.path()), real);
    }

    #[test]
    fn a_folder_below_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check_writable(&folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let message = check_writable(&folder.path().join("file/lake")).unwrap_err();
        assert!(message.ends_with("file is not a directory"), "{message}");
    }

    #[test]
    fn a_disk_is_nearly_full_when_bytes_or_files_are() {
        let sound = DiskSpace { free_bytes: 50 << 30, bytes: 100 << 30, free_files: 500, files: 1000 };
        assert_eq!(sound.problem(), None);
        assert_eq!(DiskSpace { files: 0, free_files: 0, ..sound }.problem(), None, "it has no limit");
        for full in [
            DiskSpace { free_bytes: 4 << 30, ..sound },
            DiskSpace { free_bytes: 1 << 29, bytes: 1 << 30, ..sound },
            DiskSpace { free_files: 49, ..sound },
        ] {
            assert!(full.problem().is_some(), "{full:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let space = disk_space(&folder.path().join("not/made/yet")).unwrap();
        assert!(space.bytes > space.free_bytes && space.free_bytes > 0, "{space:?}");
    }

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        assert_eq!(network_kind(0x6969), Some("NFS"));
        assert_eq!(network_kind(0xffff_ffff_ff53_4d42), Some("SMB"), "with its sign extended");
        for local in [0xef53, 0x0102_1994, 0x9123_683e, 0x794c_7630] {
            assert_eq!(network_kind(local), None, "ext4, tmpfs, btrfs, overlayfs");
        }
        assert_eq!(network_file_system(tempfile::tempdir().unwrap().path()), None);
    }
}
