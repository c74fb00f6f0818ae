//! The kinds of lakes: every one is registered here, and nothing outside this file names one.
//!
//! A lake's own folder has a `backend` file, which reads its URL, opens it, tries the permissions it needs and says how the
//! commands show it. To add a lake: its folder, the variant and the entries below, and the `mod` line in `lake`.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Aws, Created};
use crate::lake::local::backend::LocalUrl;
use crate::lake::s3::backend as s3;
use crate::lake::s3::{S3Location, S3Options};
use crate::lake::{LakeError, ObjectStore};
use crate::settings::url::Url;
use crate::settings::{Setting, Within};

/// Where the lake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeUrl {
    /// A folder.
    Local(LocalUrl),
    /// A bucket, or a prefix in one.
    S3(S3Location),
}

/// The options of all kinds of lakes; each kind reads its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LakeOptions {
    /// Of a lake on S3.
    pub s3: S3Options,
}

impl LakeUrl {
    /// A lake in a folder.
    pub fn local(folder: impl Into<std::path::PathBuf>) -> Self {
        LakeUrl::Local(LocalUrl::new(folder))
    }

    /// Reads a lake's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::new(text);
        match url.scheme {
            s3::SCHEME => S3Location::parse(&url).map(LakeUrl::S3),
            _ => match url.path() {
                Some(path) => Ok(LakeUrl::local(path)),
                None => Err(format!("'{url}' is not a valid lake: expected {} or {}", LocalUrl::FORM, s3::FORM)),
            },
        }
    }

    /// The kind of lake.
    pub fn backend(&self) -> &dyn LakeBackend {
        match self {
            LakeUrl::Local(url) => url,
            LakeUrl::S3(location) => location,
        }
    }
}

/// The keys of `[lake]` that belong to one kind of lake, each with the kind's name.
pub(crate) fn keys() -> Vec<(&'static str, Box<dyn Setting<LakeOptions>>)> {
    let s3 = s3::keys().into_iter().map(|key| {
        let setting = Within { key: Box::new(key), part: |options: &mut LakeOptions| &mut options.s3, only: None };
        (s3::NAME, Box::new(setting) as Box<dyn Setting<LakeOptions>>)
    });
    s3.collect()
}

/// The permissions that any kind of lake may need.
pub fn permissions() -> Vec<Permission> {
    s3::PERMISSIONS.to_vec()
}

impl fmt::Display for LakeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend().fmt(f)
    }
}

/// A kind of lake, by the URL of one lake.
#[async_trait]
pub trait LakeBackend: fmt::Display + Send + Sync {
    /// Its name in messages and in the documentation.
    fn name(&self) -> &'static str;

    /// The folder of a lake on this machine. Checkpoints and the pseudonym key then have a default place.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// The URL by which a catalogue finds the lake.
    fn catalog_url(&self) -> String {
        self.to_string()
    }

    /// Whether opening it needs the SDK's settings.
    fn needs_aws(&self) -> bool {
        false
    }

    /// Checks that the lake can be there. Asks no service.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Checks the options of this kind of lake.
    ///
    /// # Errors
    /// A sentence for the user.
    fn check_options(&self, _: &LakeOptions) -> Result<(), String> {
        Ok(())
    }

    /// Opens the lake for writing. It is made if it does not exist, unless it is `known` to exist.
    async fn open(
        &self,
        options: &LakeOptions,
        aws: Option<&Aws>,
        known: bool,
    ) -> Result<Arc<dyn ObjectStore>, LakeError>;

    /// Opens the lake for reading; `None` if it does not exist.
    async fn open_existing(
        &self,
        options: &LakeOptions,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn ObjectStore>>, LakeError>;

    /// Tries the actions that a worker needs.
    async fn try_permissions(&self, _: &Aws, _: &mut Trials) {}

    /// Makes what the lake is in, for a development account, if it does not exist. `None`: there is nothing to make.
    ///
    /// # Errors
    /// A sentence for the user.
    async fn create(&self, _: &Aws) -> Result<Option<Created>, String> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_and_shown_as_it_was_written() {
        for url in ["s3://the-lake/a/b", "s3://the-lake", "folder/lake", "/lake"] {
            assert_eq!(LakeUrl::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(LakeUrl::parse("s3://the-lake/a/b/"), LakeUrl::parse("s3://the-lake/a/b"));
        assert_eq!(LakeUrl::parse("file:///lake"), Ok(LakeUrl::local("/lake")));
        assert_eq!(LakeUrl::parse("s3://the-lake").unwrap().backend().folder(), None);
        assert_eq!(LakeUrl::parse("lake").unwrap().backend().folder(), Some(Path::new("lake")));
    }

    #[test]
    fn a_url_that_names_no_lake_is_refused_with_what_to_write() {
        assert_eq!(
            LakeUrl::parse("ftp://x").unwrap_err(),
            "'ftp://x' is not a valid lake: expected a folder or s3://BUCKET/PREFIX"
        );
        for url in ["s3://X", "s3://abc/../d", "s3://abc//d", ""] {
            assert!(LakeUrl::parse(url).is_err(), "{url}");
        }
        for url in ["https://me:hush@host/a", "s3://me:hush@bucket/a", "x://h/a?Signature=hush"] {
            let message = LakeUrl::parse(url).unwrap_err();
            assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
        }
    }
}
