//! The kinds of sources: every one is registered here, and nothing outside this file names one.
//!
//! A source's own folder has a `backend` file, which reads its URL, opens it, tries the permissions it needs and says how the
//! commands show it. To add a source: its folder, the variant and the entries below, and the `mod` line in `source`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use checkpoints::StreamName;

use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Aws, Created};
use crate::clock::SharedClock;
use crate::lake::ObjectStore;
use crate::settings::url::Url;
use crate::settings::{Setting, Within};
use crate::source::files::backend::FilesUrl;
use crate::source::kinesis::backend::{self as kinesis, KinesisOptions, KinesisUrl};
use crate::source::{ShardSource, SourceError};

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// A file, or a folder of files.
    Files(FilesUrl),
    /// A Kinesis stream.
    Kinesis(KinesisUrl),
}

/// The options of all kinds of sources; each kind reads its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Of a Kinesis stream.
    pub kinesis: KinesisOptions,
}

impl SourceUrl {
    /// Files at a path.
    pub fn files(path: impl Into<std::path::PathBuf>) -> Self {
        SourceUrl::Files(FilesUrl::new(path))
    }

    /// Reads a source's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::new(text);
        match url.scheme {
            KinesisUrl::SCHEME => KinesisUrl::parse(&url).map(SourceUrl::Kinesis),
            "s3" => Err(format!("'{url}': reading objects as a source is not implemented; copy them into a folder")),
            _ => match url.path() {
                Some(path) => Ok(SourceUrl::files(path)),
                None => {
                    Err(format!("'{url}' is not a valid source: expected {} or {}", KinesisUrl::FORM, FilesUrl::FORM))
                }
            },
        }
    }

    /// The kind of source.
    pub fn backend(&self) -> &dyn SourceBackend {
        match self {
            SourceUrl::Files(url) => url,
            SourceUrl::Kinesis(url) => url,
        }
    }
}

/// The keys of `[[source]]` that belong to one kind of source, each with the kind's name.
pub(crate) fn keys() -> Vec<(&'static str, Box<dyn Setting<SourceOptions>>)> {
    let kinesis = kinesis::keys().into_iter().map(|key| {
        let setting =
            Within { key: Box::new(key), part: |options: &mut SourceOptions| &mut options.kinesis, only: None };
        (KinesisUrl::NAME, Box::new(setting) as Box<dyn Setting<SourceOptions>>)
    });
    kinesis.collect()
}

/// The permissions that any kind of source may need.
pub fn permissions() -> Vec<Permission> {
    kinesis::PERMISSIONS.to_vec()
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend().fmt(f)
    }
}

/// A kind of source, by the URL of one source.
#[async_trait]
pub trait SourceBackend: fmt::Display + Send + Sync {
    /// Its name in messages and in the documentation.
    fn name(&self) -> &'static str;

    /// The stream's name in the lake, if the configuration gives none; `None` if it depends on the machine.
    fn stream_name(&self) -> Option<&str>;

    /// The stream's name in the lake as this machine has it; `None` if there is no such source.
    fn local_stream_name(&self, name: Option<&str>) -> Option<StreamName>;

    /// Whether opening it needs the SDK's settings.
    fn needs_aws(&self) -> bool {
        false
    }

    /// Whether a KCL application could read the stream, so that its leases may be in KCL's own format.
    fn is_kcl_stream(&self) -> bool {
        false
    }

    /// Whether the source can tell how many bytes are left to read.
    fn counts_bytes(&self) -> bool {
        false
    }

    /// Checks that the source can be used with a lake in this folder, if the lake is in one. Asks no service.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check(&self, _lake: Option<&Path>) -> Result<(), String> {
        Ok(())
    }

    /// Opens the source.
    async fn open(&self, context: OpenSource<'_>) -> Result<OpenedSource, SourceError>;

    /// Tries the actions that a worker needs.
    async fn try_permissions(&self, _: &Aws, _: &SourceOptions, _: &mut Trials) {}

    /// Makes the stream for a development account, if it does not exist. `None`: there is nothing to make.
    ///
    /// # Errors
    /// A sentence for the user.
    async fn create(&self, _: &Aws, _shards: u32) -> Result<Option<Created>, String> {
        Ok(None)
    }
}

/// What opening a source needs.
pub struct OpenSource<'a> {
    /// The stream's name in the lake, if the configuration gives one.
    pub name: Option<&'a str>,
    /// The options.
    pub options: &'a SourceOptions,
    /// Bytes that a record may have.
    pub record_bytes_max: usize,
    /// Whether the files of a source are complete as they are.
    pub complete: bool,
    /// The time of day.
    pub clock: &'a SharedClock,
    /// The lake, which keeps what all workers must agree on.
    pub lake: &'a Arc<dyn ObjectStore>,
    /// The SDK's settings, for a source that needs them.
    pub aws: Option<&'a Aws>,
}

/// An open source.
pub struct OpenedSource {
    /// The source.
    pub source: Arc<dyn ShardSource>,
    /// The stream's name in a lease table that a KCL application of several streams shares.
    pub kcl_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_or_refused_with_what_to_write() {
        assert_eq!(SourceUrl::parse("./in"), Ok(SourceUrl::files("./in")));
        assert_eq!(SourceUrl::parse("file:///in/a.ndjson"), Ok(SourceUrl::files("/in/a.ndjson")));
        assert_eq!(SourceUrl::parse("kinesis://orders.v1").unwrap().to_string(), "kinesis://orders.v1");
        assert!(SourceUrl::parse("kinesis://a/b").unwrap_err().contains("expected kinesis://STREAM"));
        assert_eq!(
            SourceUrl::parse("ftp://x").unwrap_err(),
            "'ftp://x' is not a valid source: expected kinesis://STREAM or a file or folder"
        );
        for url in ["https://me:hush@host/a", "s3://me:hush@bucket/a", "kinesis://me:hush@s", "x://h/a?Signature=hush"]
        {
            let message = SourceUrl::parse(url).unwrap_err();
            assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
        }
    }
}
