//! Where things come from and go: the URLs of sources, lakes and checkpoint stores.

use std::fmt;
use std::path::PathBuf;

use crate::source::Start;

/// A bucket and what keys in it begin with: empty, or ending with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    /// The bucket.
    pub bucket: String,
    /// The prefix.
    pub prefix: String,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// A file, or a folder of files.
    Files(PathBuf),
    /// A Kinesis stream, by name.
    Kinesis(String),
}

/// Where the lake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeUrl {
    /// A folder.
    Local(PathBuf),
    /// A bucket, or a prefix in one.
    S3(BucketUrl),
}

/// Where checkpoints are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointsUrl {
    /// A SQLite database.
    Sqlite(PathBuf),
    /// A DynamoDB table, by name.
    DynamoDb(String),
}

/// Splits `scheme://rest`; a text without a scheme is a path.
fn scheme(url: &str) -> (&str, &str) {
    url.split_once("://").unwrap_or(("file", url))
}

/// A URL as messages show it: without a user's name and password, and without what stands behind a `?`, which may be a
/// signature; of several lines the first.
pub(crate) fn shown(url: &str) -> String {
    let url = &url[..url.find(['\n', '\r']).unwrap_or(url.len())];
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?…"));
    let Some((scheme, rest)) = url.split_once("://") else { return format!("{url}{query}") };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("…@{host}"));
    format!("{scheme}://{host}{path}{query}")
}

/// Whether `name` has only such characters as AWS allows in names of streams and tables.
fn is_aws_name(name: &str, range: std::ops::RangeInclusive<usize>) -> bool {
    range.contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Reads `trim_horizon`, `latest` or a time.
///
/// # Errors
/// A sentence for the user.
pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    match text.to_ascii_lowercase().replace('-', "_").as_str() {
        "trim_horizon" => Ok(Start::TrimHorizon),
        "latest" => Ok(Start::Latest),
        _ => match pipeline::time::parse_rfc3339(text.as_bytes()).map(u64::try_from) {
            Some(Ok(ms)) => Ok(Start::At { ms }),
            _ => Err(format!("start is trim_horizon, latest or a time such as 2025-01-13T10:30:00Z, not '{text}'")),
        },
    }
}

impl BucketUrl {
    fn parse(url: &str, rest: &str) -> Result<Self, String> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        let url = shown(url);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
            return Err(format!(
                "'{url}' names no bucket: s3://BUCKET/PREFIX, the bucket 3 to 63 of a-z, 0-9, '.', '-'"
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let bad = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
        if !prefix.is_empty()
            && (prefix.len() > 512 || prefix.split('/').any(bad) || prefix.chars().any(char::is_control))
        {
            return Err(format!("'{url}': the prefix must have no empty, '.' or '..' segments, and 512 bytes at most"));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(BucketUrl { bucket: bucket.to_owned(), prefix })
    }
}

impl SourceUrl {
    /// Reads a source's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(url: &str) -> Result<Self, String> {
        match scheme(url) {
            ("file", path) if !path.is_empty() => Ok(SourceUrl::Files(PathBuf::from(path))),
            ("kinesis", name) if is_aws_name(name, 1..=128) => Ok(SourceUrl::Kinesis(name.to_owned())),
            ("kinesis", _) => Err(format!(
                "'{}': write kinesis://STREAM, the stream's name (1 to 128 of a-z, A-Z, 0-9, '.', '_', '-')",
                shown(url)
            )),
            ("s3", _) => {
                Err(format!("'{}': objects can't be read as a source yet; copy them into a folder", shown(url)))
            }
            _ => Err(format!("'{}' is no source: write kinesis://STREAM, or a file or folder", shown(url))),
        }
    }
}

impl LakeUrl {
    /// Reads a lake's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(url: &str) -> Result<Self, String> {
        match scheme(url) {
            ("file", path) if !path.is_empty() => Ok(LakeUrl::Local(PathBuf::from(path))),
            ("s3", rest) => Ok(LakeUrl::S3(BucketUrl::parse(url, rest)?)),
            _ => Err(format!("'{}' is no lake: write a folder, or s3://BUCKET/PREFIX", shown(url))),
        }
    }
}

impl CheckpointsUrl {
    /// Reads a checkpoint store's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => Ok(CheckpointsUrl::Sqlite(PathBuf::from(path))),
            Some(("dynamodb", name)) if is_aws_name(name, 3..=255) => Ok(CheckpointsUrl::DynamoDb(name.to_owned())),
            Some(("dynamodb", _)) => Err(format!(
                "'{}': write dynamodb://TABLE, the table's name (3 to 255 of a-z, A-Z, 0-9, '.', '_', '-')",
                shown(url)
            )),
            _ => Err(format!("'{}' is no checkpoint store: write sqlite://PATH or dynamodb://TABLE", shown(url))),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix.trim_end_matches('/')) }
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceUrl::Files(path) => write!(f, "{}", path.display()),
            SourceUrl::Kinesis(name) => write!(f, "kinesis://{name}"),
        }
    }
}

impl fmt::Display for LakeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LakeUrl::Local(path) => write!(f, "{}", path.display()),
            LakeUrl::S3(place) => write!(f, "{place}"),
        }
    }
}

impl fmt::Display for CheckpointsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointsUrl::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            CheckpointsUrl::DynamoDb(table) => write!(f, "dynamodb://{table}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_others_are_told_what_to_write() {
        assert_eq!(SourceUrl::parse("./in"), Ok(SourceUrl::Files("./in".into())));
        assert_eq!(SourceUrl::parse("file:///in/a.ndjson"), Ok(SourceUrl::Files("/in/a.ndjson".into())));
        assert_eq!(SourceUrl::parse("kinesis://orders.v1"), Ok(SourceUrl::Kinesis("orders.v1".into())));
        assert_eq!(LakeUrl::parse("/lake"), Ok(LakeUrl::Local("/lake".into())));
        let place = |bucket: &str, prefix: &str| BucketUrl { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(LakeUrl::parse("s3://the-lake"), Ok(LakeUrl::S3(place("the-lake", ""))));
        assert_eq!(LakeUrl::parse("s3://the-lake/a/b/"), Ok(LakeUrl::S3(place("the-lake", "a/b/"))));
        assert_eq!(CheckpointsUrl::parse("sqlite://c.db"), Ok(CheckpointsUrl::Sqlite("c.db".into())));
        assert_eq!(CheckpointsUrl::parse("dynamodb://leases"), Ok(CheckpointsUrl::DynamoDb("leases".into())));
        assert!(SourceUrl::parse("kinesis://a/b").unwrap_err().contains("write kinesis://STREAM"));
        assert!(LakeUrl::parse("s3://X").is_err() && LakeUrl::parse("s3://abc/../d").is_err());
        assert!(LakeUrl::parse("ftp://x").unwrap_err().starts_with("'ftp://x' is no lake"));
        assert!(CheckpointsUrl::parse("c.db").is_err() && CheckpointsUrl::parse("sqlite://").is_err());
    }

    #[test]
    fn messages_show_no_password_and_no_signature() {
        for url in ["https://me:hush@host/a", "s3://me:hush@bucket/a", "kinesis://me:hush@s", "x://h/a?Signature=hush"]
        {
            for message in [
                SourceUrl::parse(url).map(|_| ()).unwrap_err(),
                LakeUrl::parse(url).map(|_| ()).unwrap_err(),
                CheckpointsUrl::parse(url).map(|_| ()).unwrap_err(),
            ] {
                assert!(!message.contains("hush") && message.starts_with('\''), "{message}");
            }
        }
        assert_eq!(shown("https://me:hush@host/a?b=c"), "https://…@host/a?…");
        assert_eq!(shown("s3://x\n[anonymize]\nkey = me@hush"), "s3://x");
        assert_eq!((shown("a/b"), shown("s3://the-lake/a@b")), ("a/b".to_owned(), "s3://the-lake/a@b".to_owned()));
    }

    #[test]
    fn a_url_reads_back_as_it_is_shown() {
        for url in ["s3://the-lake/a/b", "s3://the-lake", "folder/lake"] {
            assert_eq!(LakeUrl::parse(url).unwrap().to_string(), url);
        }
        assert_eq!(SourceUrl::parse("kinesis://x").unwrap().to_string(), "kinesis://x");
        assert_eq!(CheckpointsUrl::parse("dynamodb://the-table").unwrap().to_string(), "dynamodb://the-table");
    }
}
