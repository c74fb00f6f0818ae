//! What is wrong with the bucket of a lake: lifecycle rules, versions, public access.
//!
//! Owns: reading the bucket's settings, and judging them. Changes nothing. Does not own: the table of findings (`diagnosis`), whether the
//! bucket can be written (`trials`), what is in it.

use std::collections::BTreeMap;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{BucketVersioningStatus, ExpirationStatus, LifecycleRule, Tag, TransitionStorageClass};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use checkpoints::error_chain;
use pipeline::layout::{self, Area};

use crate::diagnosis::{Diagnosis, FindingKind};
use crate::lake::s3::{S3Store, code};

/// Days after which aborting an upload cannot disturb an epoch that was decided before an outage.
const ABORT_DAYS_MIN: i32 = 3;
/// Prefixes of what the lake knows about itself, and what operations still need.
const STATE: [&str; 13] = [
    layout::COMMITS,
    layout::LAKE_LOG,
    layout::LAKE_IDENTITY,
    layout::LAKE_KEY,
    layout::OPERATIONS,
    layout::SOURCES,
    layout::SCHEMAS,
    layout::DEFINITIONS,
    layout::INTENTS,
    layout::LOSSES,
    layout::CHECKPOINTS,
    layout::ROLL_UPS,
    layout::REPLAYS,
];

impl S3Store {
    /// Notes what is wrong with the bucket.
    pub(super) async fn diagnose(&self, tags: &BTreeMap<String, String>, diagnosis: &mut Diagnosis) {
        let bucket = self.bucket().to_owned();
        let client = &self.client;
        let owner = || self.owner();
        let asked =
            client.get_bucket_lifecycle_configuration().bucket(&bucket).set_expected_bucket_owner(owner()).send().await;
        let rules = match read(asked, "NoSuchLifecycleConfiguration") {
            Ok(found) => Some(found.and_then(|found| found.rules).unwrap_or_default()),
            Err(why) => {
                let what = format!("the lifecycle rules of bucket {bucket}");
                diagnosis.cannot_check(what, advised(&why, "s3:GetLifecycleConfiguration"));
                None
            }
        };
        let rules: Option<Vec<Rule>> =
            rules.map(|rules| rules.into_iter().filter_map(|rule| Rule::of(rule, tags)).collect());
        if let Some(rules) = &rules {
            judge_rules(rules, &bucket, self.location.prefix(), diagnosis);
        }
        let asked = client.get_bucket_versioning().bucket(&bucket).set_expected_bucket_owner(owner()).send().await;
        match (read(asked, ""), &rules) {
            (Err(why), _) => {
                diagnosis.cannot_check(
                    format!("whether bucket {bucket} keeps versions"),
                    advised(&why, "s3:GetBucketVersioning"),
                );
            }
            (Ok(found), rules) => {
                let is_on = found.and_then(|found| found.status) == Some(BucketVersioningStatus::Enabled);
                let removes = |rules: &Vec<Rule>| {
                    rules.iter().any(|rule| rule.removes_versions && rule.covers(self.location.prefix()))
                };
                if !is_on {
                    diagnosis.find(FindingKind::BucketNotVersioned, format!("bucket {bucket} keeps no versions"));
                } else if rules.as_ref().is_some_and(|rules| !removes(rules)) {
                    let what =
                        format!("bucket {bucket} keeps versions, and no rule removes those that are not current");
                    diagnosis.find(FindingKind::OldVersionsKept, what);
                }
            }
        }
        let asked = client.get_public_access_block().bucket(&bucket).set_expected_bucket_owner(owner()).send().await;
        match read(asked, "NoSuchPublicAccessBlockConfiguration") {
            Ok(found) => {
                let blocks = found.and_then(|found| found.public_access_block_configuration).is_some_and(|all| {
                    [
                        all.block_public_acls,
                        all.ignore_public_acls,
                        all.block_public_policy,
                        all.restrict_public_buckets,
                    ]
                    .iter()
                    .all(|one| *one == Some(true))
                });
                if !blocks {
                    let what = format!("bucket {bucket} does not block all public access");
                    diagnosis.find(FindingKind::BucketMayBePublic, what);
                }
            }
            Err(why) => {
                let what = format!("whether bucket {bucket} blocks public access");
                diagnosis.cannot_check(what, advised(&why, "s3:GetBucketPublicAccessBlock"));
            }
        }
    }
}

/// What a request that could not be answered says, and what to allow if it was refused.
fn advised(why: &str, action: &str) -> String {
    if why.contains("AccessDenied") { format!("{why}; allow {action}") } else { why.to_owned() }
}

/// The answer; `None` if the error has the code that says that there is nothing.
fn read<T, E>(answer: Result<T, SdkError<E, HttpResponse>>, nothing: &str) -> Result<Option<T>, String>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if !nothing.is_empty() && code(&error) == Some(nothing) => Ok(None),
        Err(error) => Err(error_chain(&error)),
    }
}

/// A lifecycle rule that is on, in what matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rule {
    id: String,
    prefix: String,
    expires: bool,
    /// The class that must be restored, if the rule moves objects there.
    archives: Option<String>,
    removes_versions: bool,
    aborts_after_days: Option<i32>,
}

impl Rule {
    /// `None` if the rule is off, or only for objects with other tags than the lake's.
    fn of(rule: LifecycleRule, tags: &BTreeMap<String, String>) -> Option<Self> {
        let is_on = rule.status == ExpirationStatus::Enabled;
        #[expect(deprecated, reason = "rules of old buckets have it")]
        let own_prefix = rule.prefix.clone();
        let filter = rule.filter.as_ref();
        let and = filter.and_then(|filter| filter.and.as_ref());
        let prefix = own_prefix
            .or_else(|| filter.and_then(|filter| filter.prefix.clone()))
            .or_else(|| and.and_then(|and| and.prefix.clone()))
            .unwrap_or_default();
        let wanted: Vec<&Tag> = filter
            .and_then(|filter| filter.tag.as_ref())
            .into_iter()
            .chain(and.and_then(|and| and.tags.as_ref()).into_iter().flatten())
            .collect();
        let has = |tag: &Tag| tags.get(&tag.key) == Some(&tag.value);
        if !is_on || !wanted.into_iter().all(has) {
            return None;
        }
        let is_archive = |class: &TransitionStorageClass| {
            matches!(class, TransitionStorageClass::Glacier | TransitionStorageClass::DeepArchive)
        };
        let classes = rule.transitions.iter().flatten().filter_map(|transition| transition.storage_class.as_ref());
        Some(Rule {
            id: rule.id.unwrap_or_else(|| "without a name".to_owned()),
            prefix,
            expires: rule.expiration.is_some_and(|expiration| expiration.days.is_some() || expiration.date.is_some()),
            archives: classes.into_iter().find(|class| is_archive(class)).map(|class| class.as_str().to_owned()),
            removes_versions: rule.noncurrent_version_expiration.is_some(),
            aborts_after_days: rule.abort_incomplete_multipart_upload.and_then(|abort| abort.days_after_initiation),
        })
    }

    /// Whether the rule is for everything with this prefix.
    fn covers(&self, prefix: &str) -> bool {
        prefix.starts_with(&self.prefix)
    }

    /// Whether the rule is for something with this prefix.
    fn touches(&self, prefix: &str) -> bool {
        self.covers(prefix) || self.prefix.starts_with(prefix)
    }
}

/// Notes rules that hurt the lake with this prefix, and rules that are missing.
fn judge_rules(rules: &[Rule], bucket: &str, prefix: &str, diagnosis: &mut Diagnosis) {
    let touched = |rule: &Rule, parts: &[&str]| {
        let of_lake = parts.iter().filter(|part| rule.touches(&format!("{prefix}{part}")));
        of_lake.map(|part| (*part).to_owned()).collect::<Vec<String>>()
    };
    let data = Area::ALL.map(Area::prefix);
    for rule in rules {
        let name = format!("rule '{}' of bucket {bucket}", rule.id);
        if rule.expires {
            diagnosis.find_all(FindingKind::LakeStateExpires, &touched(rule, &STATE), |parts| {
                format!("{name} deletes {parts}")
            });
            let rows = touched(rule, &[Area::Processed.prefix()]);
            diagnosis.find_all(FindingKind::RowsExpire, &rows, |parts| format!("{name} deletes {parts}"));
        }
        if let Some(class) = &rule.archives {
            let says = |parts: &str| format!("{name} moves {parts} to {class}");
            diagnosis.find_all(FindingKind::LakeStateArchived, &touched(rule, &STATE), says);
            diagnosis.find_all(FindingKind::DataArchived, &touched(rule, &data), says);
        }
        let early = rule.aborts_after_days.filter(|days| *days < ABORT_DAYS_MIN);
        if let Some(days) = early.filter(|_| rule.touches(prefix)) {
            let what = format!("{name} aborts uploads after {days} day{}", if days == 1 { "" } else { "s" });
            diagnosis.find(FindingKind::UploadsAbortedEarly, what);
        }
    }
    if !rules.iter().any(|rule| rule.aborts_after_days.is_some() && rule.covers(prefix)) {
        let what = format!("no rule of bucket {bucket} aborts incomplete uploads below s3://{bucket}/{prefix}");
        diagnosis.find(FindingKind::UploadsNotAborted, what);
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{
        LifecycleExpiration, LifecycleRuleAndOperator, LifecycleRuleFilter, NoncurrentVersionExpiration, Transition,
    };

    use super::*;

    fn found(rules: &[Rule], prefix: &str) -> Vec<FindingKind> {
        let mut diagnosis = Diagnosis::default();
        judge_rules(rules, "b", prefix, &mut diagnosis);
        diagnosis.findings.into_iter().map(|finding| finding.kind).collect()
    }

    fn aborting() -> Rule {
        Rule { aborts_after_days: Some(7), removes_versions: true, ..Rule::default() }
    }

    #[test]
    fn a_rule_hurts_only_what_its_prefix_has_of_the_lake() {
        let expiring = |prefix: &str| Rule { prefix: prefix.to_owned(), expires: true, ..Rule::default() };
        let with = |rule: Rule| found(&[aborting(), rule], "main/");
        for harmless in ["main/raw/", "main/error/", "other/", "landing/", "main/_trash/", "main/archive/"] {
            assert_eq!(with(expiring(harmless)), [], "{harmless}");
        }
        for of_state in ["main/_commits/", "main/_", "main/_log/snapshots/", "main/_c"] {
            assert_eq!(with(expiring(of_state)), [FindingKind::LakeStateExpires], "{of_state}");
        }
        assert_eq!(with(expiring("main/processed/events/")), [FindingKind::RowsExpire]);
        assert_eq!(with(expiring("")), [FindingKind::LakeStateExpires, FindingKind::RowsExpire]);
        let archiving =
            |prefix: &str| Rule { prefix: prefix.to_owned(), archives: Some("GLACIER".to_owned()), ..Rule::default() };
        assert_eq!(with(archiving("main/processed/")), [FindingKind::DataArchived]);
        assert_eq!(with(archiving("main/")), [FindingKind::LakeStateArchived, FindingKind::DataArchived]);
    }

    #[test]
    fn uploads_are_aborted_neither_too_early_nor_never() {
        let after =
            |days, prefix: &str| Rule { aborts_after_days: Some(days), prefix: prefix.to_owned(), ..Rule::default() };
        assert_eq!(found(&[], "main/"), [FindingKind::UploadsNotAborted]);
        assert_eq!(found(&[after(7, "other/")], "main/"), [FindingKind::UploadsNotAborted]);
        assert_eq!(found(&[after(7, "main/")], "main/"), []);
        assert_eq!(found(&[after(1, "")], ""), [FindingKind::UploadsAbortedEarly]);
    }

    #[test]
    fn rules_that_are_off_or_for_other_tags_do_not_count() {
        let rule = |status| {
            let transition = Transition::builder().days(1).storage_class(TransitionStorageClass::DeepArchive).build();
            LifecycleRule::builder()
                .status(status)
                .expiration(LifecycleExpiration::builder().days(3).build())
                .transitions(transition)
                .noncurrent_version_expiration(NoncurrentVersionExpiration::builder().noncurrent_days(1).build())
        };
        let on = rule(ExpirationStatus::Enabled).build().unwrap();
        let read = Rule::of(on, &BTreeMap::new()).unwrap();
        assert!(read.expires && read.removes_versions && read.prefix.is_empty());
        assert_eq!(read.archives.as_deref(), Some("DEEP_ARCHIVE"));
        assert_eq!(Rule::of(rule(ExpirationStatus::Disabled).build().unwrap(), &BTreeMap::new()), None);
        let tag = Tag::builder().key("team").value("data").build().unwrap();
        let and = LifecycleRuleAndOperator::builder().prefix("main/").tags(tag).build();
        let filter = LifecycleRuleFilter::builder().and(and).build();
        let tagged = rule(ExpirationStatus::Enabled).filter(filter).build().unwrap();
        assert_eq!(Rule::of(tagged.clone(), &BTreeMap::new()), None);
        let own = [("team".to_owned(), "data".to_owned())].into();
        assert_eq!(Rule::of(tagged, &own).unwrap().prefix, "main/");
        let marker = LifecycleExpiration::builder().expired_object_delete_marker(true).build();
        let markers = LifecycleRule::builder().status(ExpirationStatus::Enabled).expiration(marker).build().unwrap();
        assert!(!Rule::of(markers, &BTreeMap::new()).unwrap().expires, "a rule for delete markers removes no object");
    }
}
