//! URLs as users write them, before a backend reads them.
//!
//! Owns: splitting off the scheme, and how a message shows a URL. Does not own: what is a valid URL of a source, a lake or a
//! lease store (their backends).

use std::ops::RangeInclusive;

/// A URL as the user wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Url<'t> {
    /// The whole text.
    pub(crate) text: &'t str,
    /// What precedes `://`; empty for a plain path.
    pub(crate) scheme: &'t str,
    /// What follows it.
    pub(crate) rest: &'t str,
}

impl<'t> Url<'t> {
    /// Splits a text.
    pub(crate) fn new(text: &'t str) -> Self {
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        Url { text, scheme, rest }
    }

    /// A path of this machine: a text without a scheme, or `file://PATH`. An empty path is `None`.
    pub(crate) fn path(&self) -> Option<&'t str> {
        matches!(self.scheme, "" | "file").then_some(self.rest).filter(|path| !path.is_empty())
    }
}

/// The URL as messages show it: only the first line, and without user name, password and query. A query may be a signature.
impl std::fmt::Display for Url<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&shown(self.text))
    }
}

/// See [`Url`]'s `Display`.
pub(crate) fn shown(url: &str) -> String {
    let url = &url[..url.find(['\n', '\r']).unwrap_or(url.len())];
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, _)| (url, "?…"));
    let Some((scheme, rest)) = url.split_once("://") else { return format!("{url}{query}") };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or_else(|| host.to_owned(), |(_, host)| format!("…@{host}"));
    format!("{scheme}://{host}{path}{query}")
}

/// Whether `name` has only characters that AWS allows in names of streams and tables, and as many of them as it allows.
pub(crate) fn is_aws_name(name: &str, length: RangeInclusive<usize>) -> bool {
    length.contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_path_and_a_file_url_are_paths() {
        for (text, path) in
            [("./in", Some("./in")), ("file:///in", Some("/in")), ("s3://a", None), ("", None), ("file://", None)]
        {
            assert_eq!(Url::new(text).path(), path, "{text}");
        }
        assert_eq!(Url::new("kinesis://a/b"), Url { text: "kinesis://a/b", scheme: "kinesis", rest: "a/b" });
    }

    #[test]
    fn messages_show_no_password_and_no_signature() {
        assert_eq!(shown("https://me:hush@host/a?b=c"), "https://…@host/a?…");
        assert_eq!(shown("s3://x\n[anonymize]\nkey = me@hush"), "s3://x");
        assert_eq!((shown("a/b"), shown("s3://the-lake/a@b")), ("a/b".to_owned(), "s3://the-lake/a@b".to_owned()));
    }
}
