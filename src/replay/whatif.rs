//! What a definition would make of the past: a replay into a folder of this machine, to be compared and nothing else.
//!
//! Owns: the folder, and that nothing else is written. Does not own: planning and running (`planning`, `run`), the comparison (`diff`).
//!
//! It is a replay with three differences. The aside lake is a folder of this machine. The leases are in memory. The lake is opened so that
//! every change of it is refused (`lake::ReadOnly`), whatever a source or a worker calls.
//!
//! Only what the lake has is read: the ranges of its epochs. Records that no epoch has read yet have nothing to be compared with.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use checkpoints::MemoryStore;

use crate::lake::{LakeError, LocalStore};
use crate::setup::replay::Aside;

/// A folder of this machine that a what-if writes into.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    /// Removes the folder at the end.
    temporary: Option<tempfile::TempDir>,
}

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// It has files.
    #[error("{} is not empty: name a folder that is, or one that does not exist", .0.display())]
    NotEmpty(PathBuf),
    /// It cannot be made or read.
    #[error("cannot use the folder {}: {problem}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What happened.
        problem: io::Error,
    },
}

impl Scratch {
    /// A folder that must be empty if it exists, and stays; `None`: a temporary one, which is removed at the end.
    ///
    /// # Errors
    /// It is not empty, or cannot be made.
    pub fn create(into: Option<&Path>) -> Result<Self, ScratchError> {
        let failed = |folder: &Path| {
            let folder = folder.to_owned();
            move |problem| ScratchError::Folder { folder, problem }
        };
        let Some(into) = into else {
            let place = std::env::temp_dir();
            let temporary = tempfile::Builder::new().prefix("shardlake-whatif-").tempdir_in(&place);
            let temporary = temporary.map_err(failed(&place))?;
            return Ok(Scratch { folder: temporary.path().to_owned(), temporary: Some(temporary) });
        };
        std::fs::create_dir_all(into).map_err(failed(into))?;
        if std::fs::read_dir(into).map_err(failed(into))?.next().is_some() {
            return Err(ScratchError::NotEmpty(into.to_owned()));
        }
        Ok(Scratch { folder: into.to_owned(), temporary: None })
    }

    /// The folder, if it stays.
    pub fn kept(&self) -> Option<&Path> {
        self.temporary.is_none().then_some(&*self.folder)
    }

    /// The aside lake in it, and leases in memory.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn aside(&self) -> Result<Aside, LakeError> {
        let lake = Arc::new(LocalStore::open(&self.folder)?);
        Ok(Aside { lake, leases: Arc::new(MemoryStore::new()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_files_is_refused_and_a_temporary_one_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        let scratch = Scratch::create(Some(&folder)).unwrap();
        assert_eq!(scratch.kept(), Some(&*folder));
        scratch.aside().unwrap();
        std::fs::write(folder.join("x"), "x").unwrap();
        assert!(matches!(Scratch::create(Some(&folder)), Err(ScratchError::NotEmpty(_))));
        assert_eq!(std::fs::read(folder.join("x")).unwrap(), b"x");
        let problem = Scratch::create(Some(&folder.join("x"))).unwrap_err().to_string();
        assert!(problem.starts_with("cannot use the folder "), "{problem}");

        let temporary = Scratch::create(None).unwrap();
        let path = temporary.folder.clone();
        assert!(path.is_dir() && temporary.kept().is_none());
        drop(temporary);
        assert!(!path.exists());
    }
}
