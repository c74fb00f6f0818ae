//! Which worker processes are alive, known from locks that the operating system takes back when a process ends.
//!
//! Beside the database `D` is a folder `D-workers`. A registered worker keeps `<owner>.lock` in it locked for its life.
//! Whoever gets that lock, or finds no such file, knows that the worker's process has ended: by itself, by a crash, or by
//! `kill -9`. A stopped process (`SIGSTOP`) keeps its lock. So a restarted run need not wait for the failover time.
//!
//! The steps of registering, and what a crash after each leaves:
//! 1. Make `<owner>.new`. (A file that nothing ever reads.)
//! 2. Lock it. (The same.)
//! 3. Rename it to `<owner>.lock`; a lock belongs to the file, not to its name. (A file without a lock: the owner is gone.)
//!
//! So a `.lock` file of a live worker is locked from the moment that it can be seen, and there is no time in which it looks
//! dead. Asking takes the lock *shared*, so that two who ask at once do not take each other for the worker. Whoever finds an
//! owner gone deletes its file; that is safe at any time, because an owner's name is never used again, and a worker that
//! registers clears away all that it finds.
//!
//! It does not own leases: a wrong answer could not break the commit protocol, only take a lease from a live worker.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::StoreError;
use crate::lease::LeaseOwner;

/// The extension of a registered worker's file.
const LOCK: &str = "lock";

/// The workers of one database, and the locks of those that are in this process.
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
        // An owner that can't have registered here: nothing is known of it.
        let Some(path) = self.path(owner) else { return Ok(false) };
        if self.is_blind() {
            return Ok(false);
        }
        clear_if_gone(&path).map_err(|error| self.unusable(&error))
    }

    /// Whether the file of a worker of this process can't be found, though nobody deletes what is locked: the folder was moved
    /// away, or its disk unmounted. Then the files of others are missing as well, and nothing is known of them.
    fn is_blind(&self) -> bool {
        let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        registered.keys().any(|me| self.path(me).is_some_and(|path| !path.exists()))
    }

    /// Where the file of `owner` is; `None` if its name is not one for a file.
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

/// Deletes a file that another may have deleted already.
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
    fn a_registered_worker_is_there_until_it_deregisters_and_leaves_no_file() {
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
    fn registering_clears_away_the_gone_and_leaves_the_living() {
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
    fn one_who_asks_is_not_taken_for_the_worker_by_another_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::beside(&folder.path().join("db"));
        let path = workers.path(&owner("dead")).unwrap();
        fs::create_dir(&workers.folder).unwrap();
        let asking = File::create_new(&path).unwrap();
        asking.lock_shared().unwrap();
        assert!(workers.is_gone(&owner("dead")).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn nobody_is_gone_for_one_whose_own_file_is_gone() {
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
    fn an_owner_that_never_registered_is_gone_unless_it_could_not_have() {
        let folder = tempfile::tempdir().unwrap();
        let workers = Workers::beside(&folder.path().join("db"));
        assert!(workers.is_gone(&owner("stranger")).unwrap());
        for name in ["ip-10-0-0-1:4f2a", "../db", "a.b"] {
            assert!(!workers.is_gone(&owner(name)).unwrap());
            assert!(matches!(workers.register(&owner(name)), Err(StoreError::Invalid { .. })));
        }
    }

    #[test]
    fn a_name_is_registered_by_one_process_which_may_repeat_it() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = [(); 2].map(|()| Workers::beside(&folder.path().join("db")));
        one.register(&owner("me")).unwrap();
        assert!(matches!(two.register(&owner("me")), Err(StoreError::Invalid { .. })));
        one.register(&owner("me")).unwrap();
        assert!(!two.is_gone(&owner("me")).unwrap());
    }
}
