//! Files and folders as a kind of source: URL, checks and opening.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::StreamName;

use crate::lake::places::resolved;
use crate::source::backend::{OpenSource, OpenedSource, SourceBackend};
use crate::source::{FileSource, FilesConfig, SourceError};

/// How long a `.json` file must not have changed before it counts as complete, while files are followed.
const SETTLE: Duration = Duration::from_secs(2);

/// A file, or a folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesUrl(PathBuf);

impl FilesUrl {
    /// What a URL looks like.
    pub const FORM: &'static str = "a file or folder";

    /// The source at a path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FilesUrl(path.into())
    }
}

impl fmt::Display for FilesUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.0.display().to_string();
        // Such a path would read back as another kind of URL.
        if path.contains("://") { write!(f, "file://{path}") } else { f.write_str(&path) }
    }
}

#[async_trait]
impl<Options: Sync> SourceBackend<Options> for FilesUrl {
    fn name(&self) -> &'static str {
        "file"
    }

    fn stream_name(&self) -> Option<&str> {
        None
    }

    fn local_stream_name(&self, name: Option<&str>) -> Option<StreamName> {
        FileSource::stream_of(&self.0, name).ok().map(|(stream, _)| stream)
    }

    fn counts_bytes(&self) -> bool {
        true
    }

    fn check(&self, lake: Option<&Path>) -> Result<(), String> {
        let path = &self.0;
        if !path.exists() {
            return Err(format!("source {self}: there is no such file or folder"));
        }
        match lake {
            Some(lake) if resolved(lake).starts_with(resolved(path)) => Err(format!(
                "the lake {} is inside the source {self}: the worker would read its own output",
                lake.display()
            )),
            _ => Ok(()),
        }
    }

    async fn open(&self, context: OpenSource<'_, Options>) -> Result<OpenedSource, SourceError> {
        let OpenSource { name, record_bytes_max, documents, complete, clock, lake, .. } = context;
        let files = FilesConfig { complete, settle: SETTLE, record_bytes_max, documents, clock: Arc::clone(clock) };
        let source = FileSource::open(&self.0, name, files, Arc::clone(lake))?;
        Ok(OpenedSource { source: Arc::new(source), kcl_id: None })
    }
}
