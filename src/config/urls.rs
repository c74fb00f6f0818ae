//! Where things come from and go: the URLs of sources, lakes and checkpoint stores.

use std::path::PathBuf;

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceUrl {
    /// A file, or a folder of files.
    Files(PathBuf),
}

/// Where the lake is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeUrl {
    /// A folder.
    Local(PathBuf),
}

/// Where checkpoints are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointsUrl {
    /// A SQLite database.
    Sqlite(PathBuf),
}

/// Splits `scheme://rest`; a text without a scheme is a path.
fn scheme(url: &str) -> (&str, &str) {
    url.split_once("://").unwrap_or(("file", url))
}

impl SourceUrl {
    /// Reads a source's URL.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(url: &str) -> Result<Self, String> {
        match scheme(url) {
            ("file", path) if !path.is_empty() => Ok(SourceUrl::Files(PathBuf::from(path))),
            ("kinesis" | "s3", _) => {
                Err(format!("'{url}': this version reads files and folders; AWS sources are not in it yet"))
            }
            _ => Err(format!("'{url}' is no source: write a file or a folder")),
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
            ("s3", _) => Err(format!("'{url}': this version writes to a folder; S3 is not in it yet")),
            _ => Err(format!("'{url}' is no lake: write a folder")),
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
            Some(("dynamodb", _)) => {
                Err(format!("'{url}': this version keeps checkpoints in SQLite; DynamoDB is not in it yet"))
            }
            _ => Err(format!("'{url}' is no checkpoint store: write sqlite://PATH")),
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
        assert_eq!(LakeUrl::parse("/lake"), Ok(LakeUrl::Local("/lake".into())));
        assert_eq!(CheckpointsUrl::parse("sqlite://c.db"), Ok(CheckpointsUrl::Sqlite("c.db".into())));
        assert!(SourceUrl::parse("kinesis://orders").unwrap_err().contains("AWS sources are not in it yet"));
        assert_eq!(LakeUrl::parse("ftp://x").unwrap_err(), "'ftp://x' is no lake: write a folder");
        assert!(CheckpointsUrl::parse("c.db").is_err() && CheckpointsUrl::parse("sqlite://").is_err());
    }
}
