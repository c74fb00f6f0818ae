//! What other services need to find a lake's data.
//!
//! - `quicksight`: manifests by which QuickSight reads files from S3.
//!
//! Does not own: the tables of Athena and Glue, which follow from the definitions alone (the pipeline crate).

mod quicksight;

pub use quicksight::{FILES_MAX, ManifestArea, ManifestError, ManifestScope, QuickSightManifest, TOTAL_BYTES_MAX};
