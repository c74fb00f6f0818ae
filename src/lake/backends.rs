//! The kinds of lakes: every one is registered here, and nothing outside this file names one.
//!
//! A lake's own folder has a `backend` file, which reads its URL, opens it, tries the permissions it needs and says how the
//! commands show it. To add a lake: its folder, the variant and the entries below, and the `mod` line in `lake`.

use std::fmt;

use crate::aws::arn;
use crate::aws::permissions::Permission;
use crate::lake::backend::LakeBackend;
use crate::lake::local::backend::LocalUrl;
use crate::lake::s3::backend as s3;
use crate::lake::s3::{S3Location, S3Options};
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

impl AsRef<S3Options> for LakeOptions {
    fn as_ref(&self) -> &S3Options {
        &self.s3
    }
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
            // It is refused with what to write.
            "" if arn::is_arn(text) => S3Location::parse(&url).map(LakeUrl::S3),
            _ => match url.path() {
                Some(path) => Ok(LakeUrl::local(path)),
                None => Err(format!("'{url}' is not a valid lake: expected {} or {}", LocalUrl::FORM, s3::FORM)),
            },
        }
    }

    /// The kind of lake.
    pub fn backend(&self) -> &dyn LakeBackend<LakeOptions> {
        match self {
            LakeUrl::Local(url) => url,
            LakeUrl::S3(location) => location,
        }
    }
}

/// The keys of `[lake]` that belong to one kind of lake, each with the kind's name.
pub(crate) fn keys() -> Vec<(&'static str, Box<dyn Setting<LakeOptions>>)> {
    let s3 = s3::keys().into_iter().map(|key| {
        let setting = Within { key, part: |options: &mut LakeOptions| &mut options.s3, only: None };
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
        for url in ["arn:aws:s3:::bucket", "s3://arn:aws:s3:eu-west-1:222222222222:accesspoint/a"] {
            assert!(LakeUrl::parse(url).unwrap_err().contains("s3://BUCKET/PREFIX, and not by an ARN"));
        }
        for url in ["s3://X", "s3://abc/../d", "s3://abc//d", ""] {
            assert!(LakeUrl::parse(url).is_err(), "{url}");
        }
        for url in ["https://me:hush@host/a", "s3://me:hush@bucket/a", "x://h/a?Signature=hush"] {
            let message = LakeUrl::parse(url).unwrap_err();
            assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
        }
    }
}
