//! Which worker processes are alive. The operating system releases a process's locks when the process ends.
//!
//! Beside the database `D` is a folder `D-workers`. A registered worker keeps `<owner>.lock` in it locked for as long as it
//! lives. A process that gets that lock, or finds no such file, knows that the worker's process has ended: regularly, by a
//! crash, or by `kill -9`. A stopped process (`SIGSTOP`) keeps its lock. So a restarted worker need not wait for the failover
//! time.
//!
//! The steps of registering, and what a crash after each leaves:
//! 1. Create `<owner>.new`. (A file that nothing ever reads.)
//! 2. Lock it. (The same.)
//! 3. Rename it to `<owner>.lock`; a lock belongs to the file, not to its name. (A file without a lock: the owner is gone.)
//!
//! So the `.lock` file of a live worker is locked whenever it is visible, and the worker never looks dead. A check takes the
//! lock *shared*, so that two checks at once do not take each other for the worker. A check that finds an owner gone deletes its
//! file. That is always safe, because an owner's name is never used again. A worker that registers deletes all such files.
//!
//! It does not own leases. A wrong answer could not break the commit protocol; it would only take a lease from a live worker.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::StoreError;
use crate::lease::LeaseOwner;

/// The extension of a registered worker's file.
const LOCK: &str = "lock";

/// The workers of one database, and the locks of those in this process.
pub(super) struct Workers {
    folder: PathBuf,
    registered: Mutex<BTreeMap<LeaseOwner, File>>,
}

impl Workers {
    /// The workers of the database at `path`.
    pub(super) fn beside(path: &Path) -> Self {
        let mut folder = path.as_os_str().to_owned();
        folder.push("-workers");
        Self { folder: folder.into(), registered: Mutex::default() }
    }

    /// Locks the file of `me` until [`deregister`](Self::deregister) or the end of the process.
    pub(super) fn register(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let Some(path) = self.path(me) else {
            return Err(self.invalid(me, "its name has a character other than a-z A-Z 0-9 _ -"));
        };
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if registered.contains_key(me) {
            return Ok(());
        }
        if path.exists() {
            return Err(self.invalid(me, "there is a worker of that name already"));
        }
        let locked = || {
            fs::create_dir_all(&self.folder)?;
            self.clear_away()?;
            let new = path.with_extension("new");
            let file = File::create_new(&new)?;
            file.try_lock()?;
            fs::rename(&new, &path)?;
            Ok(file)
        };
        let file = (locked)().map_err(|error: std::io::Error| self.unusable(&error))?;
        registered.insert(me.clone(), file);
        Ok(())
    }

    /// Deletes the file of `me`, which counts as gone from here on.
    pub(super) fn deregister(&self, me: &LeaseOwner) -> Result<(), StoreError> {
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        match (registered.remove(me), self.path(me)) {
            (Some(_file), Some(path)) => delete(&path).map_err(|error| self.unusable(&error)),
            _ => Ok(()),
        }
    }

    /// Whether the process of `owner` has ended for certain.
    pub(super) fn is_gone(&self, owner: &LeaseOwner) -> Result<bool, StoreError> {
        // Such an owner can't have registered here, so nothing is known of it.
        let Some(path) = self.path(owner) else { return Ok(false) };
        if self.folder_is_missing() {
            return Ok(false);
        }
        clear_if_gone(&path).map_err(|error| self.unusable(&error))
    }

    /// Whether the file of a worker of this process is missing. Nobody deletes a locked file, so then the folder was moved
    /// away or its disk unmounted. The files of the other workers are missing too, and nothing is known of them.
    fn folder_is_missing(&self) -> bool {
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        registered.keys().any(|me| self.path(me).is_some_and(|path| !path.exists()))
    }

    /// The file of `owner`; `None` if its name can't be a file name.
    fn path(&self, owner: &LeaseOwner) -> Option<PathBuf> {
        let plain = owner.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        plain.then(|| self.folder.join(owner.as_str()).with_extension(LOCK))
    }

    /// Deletes the files of all workers that are gone.
    fn clear_away(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == LOCK) {
                clear_if_gone(&path)?;
            }
        }
        Ok(())
    }

    fn unusable(&self, error: &std::io::Error) -> StoreError {
        StoreError::Unusable { store: self.folder.display().to_string(), problem: error.to_string() }
    }

    fn invalid(&self, me: &LeaseOwner, problem: &str) -> StoreError {
        StoreError::Invalid {
            operation: format!("register worker {me} in {}", self.folder.display()),
            problem: problem.to_owned(),
        }
    }
}

/// Whether the worker of the file at `path` is gone. If so, the file is deleted.
fn clear_if_gone(path: &Path) -> std::io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => delete(path).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Deletes a file that another process may have deleted already.
fn delete(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> LeaseOwner {
        LeaseOwner::new(name).unwrap()
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("db-workers")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_registered_worker_is_alive_until_it_deregisters_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let [mine, others] = [(); 2].map(|()| Workers::beside(&folder.path().join("db")));
        mine.register(&owner("me")).unwrap();
        assert_eq!(files(folder.path()), ["me.lock"]);
        assert!(!others.is_gone(&owner("me")).unwrap());
        assert!(!mine.is_gone(&owner("me")).unwrap());
        mine.deregister(&owner("me")).unwrap();
        assert!(others.is_gone(&owner("me")).unwrap());
        assert_eq!(files(folder.path()), [""; 0]);
    }

    #[test]
    fn registering_deletes_the_files_of_dead_workers_only() {
        let folder = tempfile::tempdir().unwrap();
        let [living, gone, next] = [(); 3].map(|()| Workers::beside(&folder.path().join("db")));
        living.register(&owner("living")).unwrap();
        gone.register(&owner("gone")).unwrap();
        drop(gone);
        next.register(&owner("next")).unwrap();
        let mut files = files(folder.path());
        files.sort();
        assert_eq!(files, ["living.lock", "next.lock"]);
    }

    #[test]
    fn two_checks_at_once_do_not_take_each_other_for_the_worker() {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::beside(&folder.path().join("db"));
        let path = workers.path(&owner("dead")).unwrap();
        fs::create_dir(&workers.folder).unwrap();
        let checking = File::create_new(&path).unwrap();
        checking.lock_shared().unwrap();
        assert!(workers.is_gone(&owner("dead")).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn no_worker_is_gone_while_the_folder_of_locks_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| Workers::beside(&folder.path().join("db")));
        one.register(&owner("one")).unwrap();
        two.register(&owner("two")).unwrap();
        fs::rename(folder.path().join("db-workers"), folder.path().join("away")).unwrap();
        assert!(!one.is_gone(&owner("two")).unwrap());
        assert!(!two.is_gone(&owner("one")).unwrap());
        fs::rename(folder.path().join("away"), folder.path().join("db-workers")).unwrap();
        drop(two);
        assert!(one.is_gone(&owner("two")).unwrap());
    }

    #[test]
    fn an_owner_that_never_registered_is_gone_unless_its_name_could_not_register() {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::beside(&folder.path().join("db"));
        assert!(workers.is_gone(&owner("stranger")).unwrap());
        for name in ["ip-10-0-0-1:4f2a", "../db", "a.b"] {
            assert!(!workers.is_gone(&owner(name)).unwrap());
            assert!(matches!(workers.register(&owner(name)), Err(StoreError::Invalid { .. })));
        }
    }

    #[test]
    fn only_one_process_registers_a_name_and_may_repeat_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| Workers::beside(&folder.path().join("db")));
        one.register(&owner("me")).unwrap();
        assert!(matches!(two.register(&owner("me")), Err(StoreError::Invalid { .. })));
        one.register(&owner("me")).unwrap();
        assert!(!two.is_gone(&owner("me")).unwrap());
    }
}
