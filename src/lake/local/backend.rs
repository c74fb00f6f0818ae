//! A folder as a kind of lake: URL, checks and opening.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::aws::Aws;
use crate::diagnosis::{Diagnosis, FindingKind};
use crate::lake::backend::LakeBackend;
use crate::lake::places::{check_writable, disk_space};
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

    async fn open_existing(&self, _: &Options, _: Option<&Aws>) -> Result<Option<Arc<dyn ObjectStore>>, LakeError> {
        if !self.0.is_dir() {
            return Ok(None);
        }
        Ok(Some(Arc::new(LocalStore::open_existing(&self.0)?)))
    }

    async fn diagnose(&self, _: &Options, _: Option<&Aws>, diagnosis: &mut Diagnosis) {
        match disk_space(&self.0) {
            Ok(space) => {
                if let Some(problem) = space.problem() {
                    let what = format!("the disk of {} {problem}", self.0.display());
                    diagnosis.find(FindingKind::DiskNearlyFull, what);
                }
            }
            Err(why) => diagnosis.cannot_check(format!("how full the disk of {} is", self.0.display()), why),
        }
    }
}
