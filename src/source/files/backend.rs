//! Files and folders as a kind of source: URL, checks and opening.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::StreamName;

use crate::lake::backends::LakeUrl;
use crate::lake::places::resolved;
use crate::settings::{Fallback, Key, Kind};
use crate::source::backend::{OpenSource, OpenedSource, SourceBackend};
use crate::source::{Arrival, FileSource, FilesConfig, SourceError};

/// How long a compressed or `.json` file must not have changed before it counts as complete, while files are followed.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a file that ends unexpectedly, or that is gone, must not have changed before it is final, while files are followed.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilesOptions {
    /// What the arrival time of records is.
    pub arrival: Arrival,
}

/// The keys of `[[source]]` that only files have.
pub(in crate::source) fn keys() -> Vec<Key<FilesOptions>> {
    vec![Key {
        name: "arrival",
        kind: Kind::Text {
            form: "`mtime` or `now`",
            read: |options, text| {
                options.arrival = match text {
                    "mtime" => Arrival::Modified,
                    "now" => Arrival::Now,
                    other => return Err(format!("arrival must be mtime or now, not '{other}'")),
                };
                Ok(())
            },
            show: |options| {
                let name = if options.arrival == Arrival::Modified { "mtime" } else { "now" };
                Some(name.to_owned())
            },
        },
        default: Fallback::Is("mtime"),
        doc: "The arrival time of records: the modification time of their file, or the time of reading. A modification time that is \
          earlier than the record's own time, in the future, or at the beginning of a calendar is replaced by the time of reading.",
    }]
}

/// A file, or a folder of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesUrl(PathBuf);

/// The kind's name in messages.
pub(in crate::source) const NAME: &str = "file";

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
impl<Options: AsRef<FilesOptions> + Sync> SourceBackend<Options> for FilesUrl {
    fn name(&self) -> &'static str {
        NAME
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

    fn check(&self, lake: &LakeUrl) -> Result<(), String> {
        let path = &self.0;
        if !path.exists() {
            return Err(format!("source {self}: there is no such file or folder"));
        }
        match lake.backend().folder() {
            Some(lake) if resolved(lake).starts_with(resolved(path)) => Err(format!(
                "the lake {} is inside the source {self}: the worker would read its own output",
                lake.display()
            )),
            _ => Ok(()),
        }
    }

    async fn open(&self, context: OpenSource<'_, Options>) -> Result<OpenedSource, SourceError> {
        let OpenSource { name, options, record_bytes_max, documents, complete, clock, lake, .. } = context;
        let files = FilesConfig {
            complete,
            settle: SETTLE,
            patience: PATIENCE,
            record_bytes_max,
            documents,
            arrival: options.as_ref().arrival,
            clock: Arc::clone(clock),
        };
        let source = FileSource::open(&self.0, name, files, Arc::clone(lake))?;
        Ok(OpenedSource { source: Arc::new(source), kcl_id: None })
    }
}
