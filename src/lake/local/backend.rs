//! A folder as a kind of lake: URL, checks and opening.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::aws::Aws;
use crate::findings::{self, Findings};
use crate::lake::backend::LakeBackend;
use crate::lake::places::check_writable;
use crate::lake::{LakeError, LocalStore, ObjectStore};

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUrl(PathBuf);

impl LocalUrl {
    /// What a URL looks like.
    pub const FORM: &'static str = "a folder";

    /// The lake in a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        LocalUrl(folder.into())
    }
}

impl fmt::Display for LocalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display().to_string();
        // Such a path would read back as another kind of URL.
        if path.contains("://") { write!(f, "file://{path}") } else { f.write_str(&path) }
    }
}

/// The room that an epoch needs, in bytes.
const ROOM_MIN: u64 = 1 << 30;

/// Judges the free bytes, and the free files of all.
fn judge_room(free: u64, (free_files, files): (u64, u64), all: &mut Findings) {
    if free < ROOM_MIN {
        all.add(&findings::DISK_FULL, format!("{} MiB are free", free >> 20));
    }
    // Some file systems have no limit, and say 0.
    if files > 0 && free_files < 10_000 {
        all.add(&findings::DISK_FULL, format!("{free_files} more files can be made"));
    }
}

/// The name of a file system on the network, by its magic number (Linux, `statfs(2)`).
fn network_name(magic: u64) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517B => Some("SMB"),
        0xFF53_4D42 => Some("CIFS"),
        0xFE53_4D42 => Some("SMB2"),
        0x0102_1997 => Some("9P"),
        _ => None,
    }
}

#[async_trait]
impl<Options: Sync> LakeBackend<Options> for LocalUrl {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn catalog_url(&self) -> String {
        // The folder may not exist yet. A URL with a relative path would name a host.
        let path = self.0.canonicalize().or_else(|_| std::path::absolute(&self.0));
        format!("file://{}", path.unwrap_or_else(|_| self.0.clone()).display())
    }

    fn check(&self) -> Result<(), String> {
        if self.0.exists() && !self.0.is_dir() {
            return Err(format!("the lake {self} is not a directory"));
        }
        check_writable(&self.0).map_err(|problem| format!("the lake {self}: {problem}"))
    }

    async fn open(&self, _: &Options, _: Option<&Aws>, known: bool) -> Result<Arc<dyn ObjectStore>, LakeError> {
        let store = if known { LocalStore::open_again(&self.0)? } else { LocalStore::open(&self.0)? };
        Ok(Arc::new(store))
    }

    async fn examine(&self, _: &Options, _: Option<&Aws>) -> Findings {
        let mut all = Findings::default();
        match (rustix::fs::statvfs(&self.0), rustix::fs::statfs(&self.0)) {
            (Ok(room), Ok(kind)) => {
                judge_room(room.f_bavail.saturating_mul(room.f_frsize), (room.f_ffree, room.f_files), &mut all);
                // The lease table of a local lake is in it.
                if let Some(name) = network_name(u64::try_from(kind.f_type).unwrap_or_default()) {
                    all.add(&findings::NETWORK_DISK, format!("{self} is on {name}"));
                }
            }
            // It may not exist yet.
            (Err(error), _) | (_, Err(error)) if error == rustix::io::Errno::NOENT => {}
            (Err(error), _) | (_, Err(error)) => all.unknown("the disk of the lake", &error),
        }
        all
    }

    async fn open_existing(&self, _: &Options, _: Option<&Aws>) -> Result<Option<Arc<dyn ObjectStore>>, LakeError> {
        if !self.0.is_dir() {
            return Ok(None);
        }
        Ok(Some(Arc::new(LocalStore::open_existing(&self.0)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_few_files_and_network_disks_are_found() {
        let found = |free, files| {
            let mut all = Findings::default();
            judge_room(free, files, &mut all);
            all.found.len()
        };
        assert_eq!(found(ROOM_MIN, (20_000, 1_000_000)), 0);
        assert_eq!(found(ROOM_MIN - 1, (20_000, 1_000_000)), 1);
        assert_eq!(found(ROOM_MIN, (0, 0)), 0, "no limit");
        assert_eq!(found(0, (9, 1_000_000)), 2);
        assert_eq!((network_name(0x6969), network_name(0xEF53)), (Some("NFS"), None));
    }
}
