//! Objects as a kind of source: URL, keys of the configuration, permissions, checks and opening.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use checkpoints::StreamName;
use pipeline::layout::is_of_lake;

use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Aws, access};
use crate::lake::backends::LakeUrl;
use crate::lake::places::resolved;
use crate::lake::{S3Location, S3Options, S3Store};
use crate::retry::RetryPolicy;
use crate::settings::url::Url;
use crate::settings::{Fallback, Key, Kind, Setting};
use crate::source::SourceError;
use crate::source::backend::{OpenSource, OpenedSource, SourceBackend};
use crate::source::objects::folder::Folder;
use crate::source::objects::s3::{Bucket, source_error};
use crate::source::objects::store::Place;
use crate::source::objects::{ObjectsConfig, ObjectsSource};
use crate::source::text::complete::TextConfig;

/// The IAM actions that reading a bucket needs. With a KMS key it also needs `kms:Decrypt`.
pub(crate) const PERMISSIONS: &[Permission] = &[
    Permission { action: "s3:ListBucket", requests: &["S3.ListObjectsV2"] },
    Permission { action: "s3:GetObject", requests: &["S3.GetObject"] },
];

/// Where the objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Location {
    /// Below a prefix of a bucket.
    S3(S3Location),
    /// Below a folder of this machine.
    Folder(PathBuf),
}

/// Objects in a bucket or in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsUrl {
    location: Location,
    shown: String,
}

/// How objects are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectsOptions {
    /// Into how many shards the objects are divided, if that was not decided before.
    pub shards: usize,
    /// The time between two lists of the place.
    pub list_every: Duration,
    /// How the bucket is reached, and who must own it.
    pub s3: S3Options,
}

impl Default for ObjectsOptions {
    fn default() -> Self {
        ObjectsOptions { shards: 8, list_every: Duration::from_secs(30), s3: S3Options::default() }
    }
}

/// The keys of `[[source]]` for objects.
pub(crate) fn keys() -> Vec<Box<dyn Setting<ObjectsOptions>>> {
    let own = own_keys().into_iter().map(|key| Box::new(key) as Box<dyn Setting<ObjectsOptions>>);
    own.chain(access::keys_of(|options: &mut ObjectsOptions| &mut options.s3.access)).collect()
}

fn own_keys() -> Vec<Key<ObjectsOptions>> {
    vec![
        Key {
            name: "shards",
            kind: Kind::Count(|options| &mut options.shards, 1..=1_000),
            default: Fallback::Is("8"),
            doc: "Into how many shards the objects are divided, which workers share. The first worker decides it permanently.",
        },
        Key {
            name: "list_every",
            kind: Kind::Time(|options| &mut options.list_every, Duration::from_secs(1)),
            default: Fallback::Is("30s"),
            doc: "The time between two lists, which find new objects. A list of a million objects is 1,000 requests.",
        },
        Key {
            name: "bucket_owner",
            kind: Kind::Text {
                form: "account id",
                read: |options, text| {
                    options.s3.expected_bucket_owner = Some(text.to_owned());
                    Ok(())
                },
                show: |options| options.s3.expected_bucket_owner.clone(),
            },
            default: Fallback::Depends("any"),
            doc: "The account that must own the bucket. A bucket of another account is refused.",
        },
    ]
}

impl ObjectsUrl {
    /// The name of this kind of source.
    pub const NAME: &'static str = "object";
    /// The scheme of a bucket.
    pub const SCHEME: &'static str = "s3";
    /// The scheme of a folder of objects.
    pub const FOLDER_SCHEME: &'static str = "objects";
    /// What a URL looks like.
    pub const FORM: &'static str = "s3://BUCKET/PREFIX or objects://FOLDER";

    /// Reads a URL of these schemes.
    pub(crate) fn parse(url: &Url<'_>) -> Result<Self, String> {
        let location = match url.scheme {
            Self::SCHEME => Location::S3(S3Location::parse(url)?),
            _ if url.rest.is_empty() => return Err(format!("'{url}' names no folder: expected objects://FOLDER")),
            _ => Location::Folder(PathBuf::from(url.rest)),
        };
        let shown = match &location {
            Location::S3(location) => location.to_string(),
            Location::Folder(folder) => format!("objects://{}", folder.display()),
        };
        Ok(ObjectsUrl { location, shown })
    }

    /// The stream of a folder, whose name is its URL by default, and its path without links.
    fn stream_of(folder: &Path, name: Option<&str>) -> Result<(StreamName, PathBuf), SourceError> {
        let place = folder.display().to_string();
        let unreadable = |problem: String| SourceError::Unreadable { place: place.clone(), problem };
        let root = folder.canonicalize().map_err(|error| unreadable(error.to_string()))?;
        let shown = root.to_str().ok_or_else(|| unreadable("its path is not UTF-8".to_owned()))?;
        let url = format!("objects://{shown}");
        let stream = StreamName::new(name.unwrap_or(&url)).map_err(|error| unreadable(error.to_string()))?;
        Ok((stream, root))
    }
}

impl fmt::Display for ObjectsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Whether a source has objects of a lake. Each prefix is empty or ends with `/`.
fn overlap(source: &S3Location, lake: &S3Location) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).map(is_of_lake);
    source.bucket() == lake.bucket()
        && (lake.prefix().starts_with(source.prefix()) || below(source.prefix(), lake.prefix()) == Some(true))
}

/// The same of folders, whose paths have no links.
fn overlap_of_folders(source: &Path, lake: &Path) -> bool {
    let below = |below: &Path| below.to_str().is_none_or(|below| is_of_lake(&format!("{below}/")));
    lake.starts_with(source) || source.strip_prefix(lake).is_ok_and(below)
}

#[async_trait]
impl<Options: AsRef<ObjectsOptions> + Sync> SourceBackend<Options> for ObjectsUrl {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn stream_name(&self) -> Option<&str> {
        match &self.location {
            Location::S3(_) => Some(&self.shown),
            Location::Folder(_) => None,
        }
    }

    fn local_stream_name(&self, name: Option<&str>) -> Option<StreamName> {
        match &self.location {
            Location::S3(_) => StreamName::new(name.unwrap_or(&self.shown)).ok(),
            Location::Folder(folder) => Self::stream_of(folder, name).ok().map(|(stream, _)| stream),
        }
    }

    fn needs_aws(&self) -> bool {
        matches!(self.location, Location::S3(_))
    }

    fn check(&self, lake: &LakeUrl) -> Result<(), String> {
        let is_inside = match (&self.location, lake) {
            (Location::S3(location), LakeUrl::S3(lake)) => overlap(location, lake),
            (Location::Folder(folder), _) if !folder.is_dir() => {
                return Err(format!("source {self}: there is no such folder"));
            }
            (Location::Folder(folder), lake) => {
                lake.backend().folder().is_some_and(|lake| overlap_of_folders(&resolved(folder), &resolved(lake)))
            }
            (Location::S3(_), LakeUrl::Local(_)) => false,
        };
        if is_inside {
            return Err(format!(
                "the source {self} and the lake {lake} overlap: the worker would read its own output; to read the `raw/` of a lake, \
                 write into another lake"
            ));
        }
        Ok(())
    }

    fn check_options(&self, options: &Options) -> Result<(), String> {
        options.as_ref().s3.validate().map_err(|problem| problem.to_string())
    }

    async fn open(&self, context: OpenSource<'_, Options>) -> Result<OpenedSource, SourceError> {
        let OpenSource { name, options, record_bytes_max, documents, complete, clock, lake, aws, retry_within, .. } =
            context;
        let options = options.as_ref();
        let retry = RetryPolicy::within(retry_within);
        let (stream, place): (StreamName, Arc<dyn Place>) = match &self.location {
            Location::S3(location) => {
                let stream = StreamName::new(name.unwrap_or(&self.shown));
                let stream = stream.map_err(|error| SourceError::Unreadable {
                    place: self.shown.clone(),
                    problem: error.to_string(),
                })?;
                let store = S3Store::open_foreign(location, &options.s3, Aws::required(aws)).await;
                let store = store.map_err(|error| source_error(&self.shown, error))?;
                (stream, Arc::new(Bucket::new(store, &self.shown, retry)))
            }
            Location::Folder(folder) => {
                let (stream, root) = Self::stream_of(folder, name)?;
                (stream, Arc::new(Folder { root, complete, clock: Arc::clone(clock) }))
            }
        };
        let config = ObjectsConfig {
            complete,
            shards: u32::try_from(options.shards).unwrap_or(u32::MAX),
            list_every: options.list_every,
            text: TextConfig { record_bytes_max, documents },
            retry,
            clock: Arc::clone(clock),
        };
        let source = ObjectsSource::new(stream, place, Arc::clone(lake), config);
        Ok(OpenedSource { source: Arc::new(source), kcl_id: None })
    }

    async fn try_permissions(&self, aws: &Aws, options: &Options, trials: &mut Trials) {
        if let Location::S3(location) = &self.location {
            S3Store::try_reading(location, &options.as_ref().s3, aws, trials).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(url: &str) -> S3Location {
        S3Location::parse(&Url::new(url)).unwrap()
    }

    #[test]
    fn a_source_may_be_beside_the_areas_of_the_lake_in_its_bucket_but_not_in_them() {
        for (source, lake, expected) in [
            ("s3://bucket/landing", "s3://bucket", false),
            ("s3://bucket/prod/landing/2025", "s3://bucket/prod", false),
            ("s3://bucket/old", "s3://bucket/prod", false),
            ("s3://other-bucket/raw", "s3://bucket", false),
            ("s3://bucket/raw", "s3://bucket", true),
            ("s3://bucket/prod/raw/events", "s3://bucket/prod", true),
            ("s3://bucket/prod/_log", "s3://bucket/prod", true),
            ("s3://bucket/prod", "s3://bucket/prod", true),
            ("s3://bucket", "s3://bucket/prod", true),
            ("s3://bucket", "s3://bucket", true),
        ] {
            assert_eq!(overlap(&location(source), &location(lake)), expected, "{source} {lake}");
            let [source_folder, lake_folder] = [source, lake].map(|url| PathBuf::from(url.replace("s3:/", "")));
            assert_eq!(overlap_of_folders(&source_folder, &lake_folder), expected, "{source} {lake} as folders");
        }
    }
}
