//! Objects of another program, as this source sees them.
//!
//! Owns: what a place of objects must be able to do. Does not own: the places (`s3`, `folder`), which objects are read (`keys`).

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::source::SourceError;

/// An object as it was listed. Its ETag says which content the key has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its key below the source's prefix.
    pub key: String,
    /// What changes whenever its content changes.
    pub etag: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub modified_ms: i64,
}

/// What reading an object came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The bytes that were requested.
    Bytes(Bytes),
    /// There is no such object any more.
    Gone,
    /// The key has another content than was listed.
    Changed,
}

/// A place of objects.
#[async_trait]
pub trait Place: Send + Sync + 'static {
    /// Lists all objects once.
    fn list(&self) -> Box<dyn Pages>;

    /// Reads an object, or a part of it, if its content is the one that was listed.
    async fn get(&self, object: &Object, range: Option<Range<u64>>) -> Result<Part, SourceError>;
}

/// A list of objects in pages, none of which is held for long.
#[async_trait]
pub trait Pages: Send {
    /// The next page; `None` after the last one. After an error the list must be begun again.
    async fn next(&mut self) -> Result<Option<Vec<Object>>, SourceError>;
}
