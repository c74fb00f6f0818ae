//! The kinds of sources: every one is registered here, and nothing outside this file names one.
//!
//! A source's own folder has a `backend` file, which reads its URL, opens it, tries the permissions it needs and says how the
//! commands show it. To add a source: its folder, the variant and the entries below, and the `mod` line in `source`.

use std::fmt;

use crate::aws::arn;
use crate::aws::permissions::Permission;
use crate::settings::url::Url;
use crate::settings::{Setting, Within};
use crate::source::backend::SourceBackend;
use crate::source::files::backend::{self as files, FilesOptions, FilesUrl};
use crate::source::kinesis::backend::{self as kinesis, KinesisOptions, KinesisUrl};
use crate::source::objects::backend::{self as objects, ObjectsOptions, ObjectsUrl};

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// A file, or a folder of files.
    Files(FilesUrl),
    /// A Kinesis stream.
    Kinesis(KinesisUrl),
    /// Objects in a bucket or in a folder.
    Objects(ObjectsUrl),
}

/// The options of all kinds of sources; each kind reads its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceOptions {
    /// Of a Kinesis stream.
    pub kinesis: KinesisOptions,
    /// Of files.
    pub files: FilesOptions,
    /// Of objects.
    pub objects: ObjectsOptions,
}

impl AsRef<FilesOptions> for SourceOptions {
    fn as_ref(&self) -> &FilesOptions {
        &self.files
    }
}

impl AsRef<KinesisOptions> for SourceOptions {
    fn as_ref(&self) -> &KinesisOptions {
        &self.kinesis
    }
}

impl AsRef<ObjectsOptions> for SourceOptions {
    fn as_ref(&self) -> &ObjectsOptions {
        &self.objects
    }
}

impl AsMut<KinesisOptions> for SourceOptions {
    fn as_mut(&mut self) -> &mut KinesisOptions {
        &mut self.kinesis
    }
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
            "" if arn::is_arn(text) => match arn::service(text) {
                Some(KinesisUrl::SERVICE) => KinesisUrl::parse(&url).map(SourceUrl::Kinesis),
                _ => Err(format!("'{url}' is the ARN of something else than a stream of Kinesis")),
            },
            ObjectsUrl::SCHEME | ObjectsUrl::FOLDER_SCHEME => ObjectsUrl::parse(&url).map(SourceUrl::Objects),
            _ => match url.path() {
                Some(path) => Ok(SourceUrl::files(path)),
                None => {
                    let forms = [KinesisUrl::FORM, ObjectsUrl::FORM, FilesUrl::FORM].join(" or ");
                    Err(format!("'{url}' is not a valid source: expected {forms}"))
                }
            },
        }
    }

    /// The kind of source.
    pub fn backend(&self) -> &dyn SourceBackend<SourceOptions> {
        match self {
            SourceUrl::Files(url) => url,
            SourceUrl::Kinesis(url) => url,
            SourceUrl::Objects(url) => url,
        }
    }
}

/// The keys of `[[source]]` that belong to one kind of source, each with the kind's name.
pub(crate) fn keys() -> Vec<(&'static str, Box<dyn Setting<SourceOptions>>)> {
    let kinesis = kinesis::keys().into_iter().map(|key| {
        let setting = Within { key, part: |options: &mut SourceOptions| &mut options.kinesis, only: None };
        (KinesisUrl::NAME, Box::new(setting) as Box<dyn Setting<SourceOptions>>)
    });
    let files = files::keys().into_iter().map(|key| {
        let setting = Within { key: Box::new(key), part: |options: &mut SourceOptions| &mut options.files, only: None };
        (files::NAME, Box::new(setting) as Box<dyn Setting<SourceOptions>>)
    });
    let objects = objects::keys().into_iter().map(|key| {
        let setting = Within { key, part: |options: &mut SourceOptions| &mut options.objects, only: None };
        (ObjectsUrl::NAME, Box::new(setting) as Box<dyn Setting<SourceOptions>>)
    });
    kinesis.chain(files).chain(objects).collect()
}

/// The permissions that any kind of source may need.
pub fn permissions() -> Vec<Permission> {
    [kinesis::PERMISSIONS, objects::PERMISSIONS].concat()
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend().fmt(f)
    }
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
        let arn = "arn:aws:kinesis:eu-west-1:222222222222:stream/orders";
        for text in [arn.to_owned(), format!("kinesis://{arn}")] {
            let url = SourceUrl::parse(&text).unwrap();
            assert_eq!(url.to_string(), format!("kinesis://{arn}"));
            assert_eq!(url.backend().stream_name(), Some("orders"), "the stream's own name");
        }
        for text in ["arn:aws:s3:::bucket", "arn:aws:dynamodb:eu-west-1:222222222222:table/t", "arn:"] {
            let message = SourceUrl::parse(text).unwrap_err();
            assert!(message.contains("is the ARN of something else"), "an ARN is never a path: {message}");
        }
        for text in ["s3://old-events/2024", "s3://old-events", "objects:///data/old", "objects://old"] {
            assert_eq!(SourceUrl::parse(text).unwrap().to_string(), text);
        }
        for (text, problem) in [("s3://X", "lower-case"), ("objects://", "expected"), ("s3://abc//d", "without empty")]
        {
            let message = SourceUrl::parse(text).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
        assert_eq!(
            SourceUrl::parse("ftp://x").unwrap_err(),
            "'ftp://x' is not a valid source: expected kinesis://STREAM or s3://BUCKET/PREFIX or objects://FOLDER or a file or folder"
        );
        for url in ["https://me:hush@host/a", "s3://me:hush@bucket/a", "kinesis://me:hush@s", "x://h/a?Signature=hush"]
        {
            let message = SourceUrl::parse(url).unwrap_err();
            assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
        }
    }
}
