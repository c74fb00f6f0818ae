//! What a bucket has that would hurt the lake in it: rules of its lifecycle, public access, no versions.
//!
//! Owns: judging them for the lake's prefix. Does not own: the permissions, which `trials` tries.
//!
//! A rule without a status `Enabled`, or for objects that have a tag or a size, is left out: it is not about the lake as a whole.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::types::{AbortIncompleteMultipartUpload, BucketVersioningStatus, ExpirationStatus, LifecycleRule};
use checkpoints::error_chain;
use pipeline::layout::Area;

use crate::findings::{self, Findings};
use crate::lake::{S3Location, S3Options};

/// Uploads of an epoch that is decided may be needed for so many days.
const ABORT_AFTER_DAYS_MIN: i32 = 7;

pub(super) async fn examine(client: &Client, location: &S3Location, options: &S3Options) -> Findings {
    let mut all = Findings::default();
    let (bucket, owner) = (location.bucket(), options.expected_bucket_owner.clone());
    let lifecycle = client.get_bucket_lifecycle_configuration().bucket(bucket);
    match lifecycle.set_expected_bucket_owner(owner.clone()).send().await {
        Ok(found) => judge_rules(found.rules(), location, &mut all),
        Err(error) if error.code() == Some("NoSuchLifecycleConfiguration") => judge_rules(&[], location, &mut all),
        Err(error) => all.unknown("the lifecycle of the bucket (s3:GetLifecycleConfiguration)", &error_chain(&error)),
    }
    let versioning = client.get_bucket_versioning().bucket(bucket).set_expected_bucket_owner(owner.clone());
    match versioning.send().await {
        Ok(found) if found.status() == Some(&BucketVersioningStatus::Enabled) => {}
        Ok(_) => all.add(&findings::NO_VERSIONING, format!("bucket {bucket}")),
        Err(error) => all.unknown("the versioning of the bucket (s3:GetBucketVersioning)", &error_chain(&error)),
    }
    let public = client.get_public_access_block().bucket(bucket).set_expected_bucket_owner(owner).send().await;
    let is_blocked = match public {
        Ok(found) => found.public_access_block_configuration().is_some_and(|block| {
            let parts = [
                block.block_public_acls(),
                block.block_public_policy(),
                block.ignore_public_acls(),
                block.restrict_public_buckets(),
            ];
            parts.into_iter().all(|part| part == Some(true))
        }),
        Err(error) if error.code() == Some("NoSuchPublicAccessBlockConfiguration") => false,
        Err(error) => {
            all.unknown("the public access of the bucket (s3:GetBucketPublicAccessBlock)", &error_chain(&error));
            true
        }
    };
    if !is_blocked {
        all.add(&findings::PUBLIC, format!("bucket {bucket} does not block all public access"));
    }
    all
}

fn judge_rules(rules: &[LifecycleRule], location: &S3Location, all: &mut Findings) {
    let mut aborts = false;
    for rule in rules.iter().filter(|rule| *rule.status() == ExpirationStatus::Enabled) {
        let Some(prefix) = prefix_of(rule) else { continue };
        let name = rule.id().unwrap_or("without a name");
        // What of the lake the rule is about: the part of its prefix below the lake's, or all of it.
        let Some(within) = within_lake(prefix, location.prefix()) else { continue };
        let abort = rule.abort_incomplete_multipart_upload();
        if let Some(days) = abort.and_then(AbortIncompleteMultipartUpload::days_after_initiation) {
            aborts |= within.is_empty();
            if days < ABORT_AFTER_DAYS_MIN {
                all.add(&findings::LIFECYCLE_ABORTS_EARLY, format!("rule '{name}' aborts uploads after {days} days"));
            }
        }
        let moves = !rule.transitions().is_empty();
        if rule.expiration().is_none() && !moves {
            continue;
        }
        let does = if moves { "archives" } else { "expires" };
        if within.is_empty() || within.starts_with('_') {
            all.add(&findings::LIFECYCLE_INTERNAL, format!("rule '{name}' {does} '{prefix}*'"));
        } else if !moves && Area::of(within) == Some(Area::Processed) {
            all.add(&findings::LIFECYCLE_DATA, format!("rule '{name}' expires '{prefix}*'"));
        } else if Area::of(within).is_none() {
            all.add(&findings::LIFECYCLE_INTERNAL, format!("rule '{name}' {does} '{prefix}*'"));
        }
    }
    if !aborts {
        all.add(&findings::NO_ABORT_RULE, format!("bucket {}", location.bucket()));
    }
}

/// The prefix that a rule is for; `None` if it is also limited to a tag or a size.
fn prefix_of(rule: &LifecycleRule) -> Option<&str> {
    #[expect(deprecated, reason = "old rules have their prefix there")]
    let old = rule.prefix();
    let Some(filter) = rule.filter() else { return Some(old.unwrap_or_default()) };
    if let Some(and) = filter.and() {
        let is_limited = and.object_size_greater_than().is_some() || and.object_size_less_than().is_some();
        return (!is_limited && and.tags().is_empty()).then(|| and.prefix().unwrap_or_default());
    }
    let is_limited = filter.tag().is_some()
        || filter.object_size_greater_than().is_some()
        || filter.object_size_less_than().is_some();
    (!is_limited).then(|| filter.prefix().unwrap_or_default())
}

/// What of a lake a rule's prefix covers: empty for all of it, otherwise the beginning of keys in it. `None`: nothing.
fn within_lake<'p>(prefix: &'p str, lake: &str) -> Option<&'p str> {
    if lake.starts_with(prefix) { Some("") } else { prefix.strip_prefix(lake) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_covers_a_lake_a_part_of_it_or_nothing() {
        assert_eq!(within_lake("", "prod/"), Some(""));
        assert_eq!(within_lake("prod/", "prod/"), Some(""));
        assert_eq!(within_lake("pr", "prod/"), Some(""));
        assert_eq!(within_lake("prod/raw/", "prod/"), Some("raw/"));
        assert_eq!(within_lake("other/", "prod/"), None);
        assert_eq!(within_lake("raw/", ""), Some("raw/"));
    }
}
