//! Which raw objects carry the identities of their records.
//!
//! Owns: asking the objects of a lake. Does not own: the format.

use std::sync::Arc;

use async_trait::async_trait;

use crate::lake::{LakeError, ObjectKey, ObjectStore};
use crate::replay::planning::Identities;
use crate::source::replay::raw_slice::has_identities;

/// The raw objects of a lake.
pub struct RawIdentities {
    lake: Arc<dyn ObjectStore>,
}

impl RawIdentities {
    /// Those of this lake.
    pub fn new(lake: Arc<dyn ObjectStore>) -> Self {
        RawIdentities { lake }
    }
}

#[async_trait]
impl Identities for RawIdentities {
    async fn has(&self, key: &ObjectKey) -> Result<bool, LakeError> {
        Ok(has_identities(&*self.lake, key).await?.unwrap_or(false))
    }
}
