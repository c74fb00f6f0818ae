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
}
