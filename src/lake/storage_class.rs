//! The storage class of an object, in S3's words.
//!
//! Owns: the names. Does not own: what a class costs (`cost`), which class new objects get (`s3::options`).

/// A storage class of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageClass {
    /// `STANDARD`
    Standard,
    /// `STANDARD_IA`
    StandardIa,
    /// `ONEZONE_IA`
    OneZoneIa,
    /// `INTELLIGENT_TIERING`
    IntelligentTiering,
    /// `GLACIER_IR`: S3 Glacier Instant Retrieval.
    GlacierInstantRetrieval,
    /// `GLACIER`: S3 Glacier Flexible Retrieval. An object must be restored before it can be read.
    Glacier,
    /// `DEEP_ARCHIVE`. An object must be restored before it can be read.
    DeepArchive,
    /// Any other, such as `REDUCED_REDUNDANCY`.
    Other,
}

impl StorageClass {
    /// All classes, the most expensive first.
    pub const ALL: [StorageClass; 8] = [
        StorageClass::Standard,
        StorageClass::IntelligentTiering,
        StorageClass::StandardIa,
        StorageClass::OneZoneIa,
        StorageClass::GlacierInstantRetrieval,
        StorageClass::Glacier,
        StorageClass::DeepArchive,
        StorageClass::Other,
    ];

    /// S3's name of it.
    pub fn name(self) -> &'static str {
        match self {
            StorageClass::Standard => "STANDARD",
            StorageClass::StandardIa => "STANDARD_IA",
            StorageClass::OneZoneIa => "ONEZONE_IA",
            StorageClass::IntelligentTiering => "INTELLIGENT_TIERING",
            StorageClass::GlacierInstantRetrieval => "GLACIER_IR",
            StorageClass::Glacier => "GLACIER",
            StorageClass::DeepArchive => "DEEP_ARCHIVE",
            StorageClass::Other => "other",
        }
    }

    /// The class of this name. Services that have only one class list objects without a name: that is `STANDARD`.
    pub fn of(name: &str) -> Self {
        if name.is_empty() {
            return StorageClass::Standard;
        }
        StorageClass::ALL.into_iter().find(|class| class.name() == name).unwrap_or(StorageClass::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_name_that_s3_lists() {
        for class in StorageClass::ALL {
            assert_eq!(StorageClass::of(class.name()), class);
        }
        assert_eq!(StorageClass::of(""), StorageClass::Standard);
        assert_eq!(StorageClass::of("REDUCED_REDUNDANCY"), StorageClass::Other);
    }
}
