//! S3 as a kind of lake: URL, keys of the configuration, permissions, opening, and making a bucket for development.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration,
    ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
};
use checkpoints::error_chain;

use crate::aws::permissions::{Permission, Trials};
use crate::aws::{Access, AccessError, Aws, Created, access};
use crate::diagnosis::Diagnosis;
use crate::lake::backend::LakeBackend;
use crate::lake::s3::trials::LIST;
use crate::lake::{Encryption, LakeError, ObjectStore, S3Location, S3Options, S3Store};
use crate::settings::{Fallback, Key, Kind, Setting};

/// The name of this kind of lake.
pub(crate) const NAME: &str = "S3";
/// The scheme of its URLs.
pub(crate) const SCHEME: &str = "s3";
/// What a URL looks like.
pub(crate) const FORM: &str = "s3://BUCKET/PREFIX";

/// The IAM actions that a lake needs. With a KMS key it also needs `kms:GenerateDataKey` and `kms:Decrypt`.
pub(crate) const PERMISSIONS: &[Permission] = &[
    Permission { action: "s3:ListBucket", requests: &["S3.ListObjectsV2"] },
    Permission { action: "s3:ListBucketMultipartUploads", requests: &["S3.ListMultipartUploads"] },
    Permission { action: "s3:GetObject", requests: &["S3.GetObject", "S3.HeadObject"] },
    Permission {
        action: "s3:PutObject",
        requests: &[
            "S3.PutObject",
            "S3.CreateMultipartUpload",
            "S3.UploadPart",
            "S3.UploadPartCopy",
            "S3.CompleteMultipartUpload",
        ],
    },
    Permission { action: "s3:AbortMultipartUpload", requests: &["S3.AbortMultipartUpload"] },
    Permission { action: "s3:DeleteObject", requests: &["S3.DeleteObject"] },
    // With tags.
    Permission { action: "s3:PutObjectTagging", requests: &["S3.PutObject", "S3.CreateMultipartUpload"] },
    // For `doctor`.
    Permission { action: "s3:GetLifecycleConfiguration", requests: &["S3.GetBucketLifecycleConfiguration"] },
    Permission { action: "s3:GetBucketVersioning", requests: &["S3.GetBucketVersioning"] },
    Permission { action: "s3:GetBucketPublicAccessBlock", requests: &["S3.GetPublicAccessBlock"] },
];

/// Days after which a new bucket aborts uploads that nobody completed: far more than an epoch and its recovery may take.
const ABORT_UPLOADS_AFTER_DAYS: i32 = 7;

/// The keys of `[lake]` for a lake on S3.
pub(crate) fn keys() -> Vec<Box<dyn Setting<S3Options>>> {
    let own = own_keys().into_iter().map(|key| Box::new(key) as Box<dyn Setting<S3Options>>);
    own.chain(access::keys_of(|options: &mut S3Options| &mut options.access)).collect()
}

fn own_keys() -> Vec<Key<S3Options>> {
    vec![
        Key {
            name: "encryption",
            kind: Kind::Text {
                form: "`AES256` or `aws:kms`",
                read: |options, text| {
                    options.encryption = match text {
                        "AES256" => Encryption::Aes256,
                        "aws:kms" => Encryption::Kms { key: None, bucket_key: true },
                        other => return Err(format!("encryption must be AES256 or aws:kms, not '{other}'")),
                    };
                    Ok(())
                },
                show: |options| {
                    let name = match &options.encryption {
                        Encryption::BucketDefault => return None,
                        Encryption::Aes256 => "AES256",
                        Encryption::Kms { .. } => "aws:kms",
                    };
                    Some(name.to_owned())
                },
            },
            default: Fallback::Depends("the bucket's own"),
            doc: "How objects are encrypted at rest.",
        },
        Key {
            name: "kms_key",
            kind: Kind::Text {
                form: "id, ARN or alias",
                read: |options, text| match &mut options.encryption {
                    Encryption::Kms { key, .. } => {
                        *key = Some(text.to_owned());
                        Ok(())
                    }
                    _ => Err("kms_key is only for encryption = \"aws:kms\"".to_owned()),
                },
                show: |options| match &options.encryption {
                    Encryption::Kms { key, .. } => key.clone(),
                    _ => None,
                },
            },
            default: Fallback::Depends("the account's key for S3"),
            doc: "The key of KMS.",
        },
        Key {
            name: "bucket_key",
            kind: Kind::Flag {
                read: |options, value| {
                    if let Encryption::Kms { bucket_key, .. } = &mut options.encryption {
                        *bucket_key = value;
                    }
                },
                show: |options| match options.encryption {
                    Encryption::Kms { bucket_key, .. } => Some(bucket_key),
                    _ => None,
                },
            },
            default: Fallback::Is("true"),
            doc: "With `aws:kms`: whether S3 derives a key for the bucket, which needs far fewer calls of KMS.",
        },
        Key {
            name: "storage_class",
            kind: Kind::Text {
                form: "a storage class of S3",
                read: |options, text| {
                    options.storage_class = Some(text.to_owned());
                    Ok(())
                },
                show: |options| options.storage_class.clone(),
            },
            default: Fallback::Depends("`STANDARD`"),
            doc: "The storage class of data objects. Small objects, such as commit records, are always `STANDARD`.",
        },
        Key {
            name: "bucket_owner",
            kind: Kind::Text {
                form: "account id",
                read: |options, text| {
                    options.expected_bucket_owner = Some(text.to_owned());
                    Ok(())
                },
                show: |options| options.expected_bucket_owner.clone(),
            },
            default: Fallback::Depends("any"),
            doc: "The account that must own the bucket. A bucket of another account is refused.",
        },
        Key {
            name: "tags",
            kind: Kind::Texts(|options| &mut options.tags),
            default: Fallback::Depends("none"),
            doc: "Tags of all objects, as in `tags = { team = \"data\" }`.",
        },
    ]
}

impl S3Location {
    /// A store whose client is in the bucket's region. Where neither the configuration nor an ARN says the region, S3 is asked
    /// in the SDK's region; if the bucket is elsewhere, S3 says where.
    pub(super) async fn store(&self, options: &S3Options, aws: &Aws) -> Result<S3Store, LakeError> {
        let store = |aws: &Aws| {
            S3Store::new(aws.s3(), self.clone(), options).map_err(|problem| self.not_opened(problem.to_string()))
        };
        let reached = aws.reach(&options.access, None).await.map_err(|error| self.not_reached(error))?;
        let found = store(&reached)?;
        let Err(error) = found.probe().await else { return Ok(found) };
        let elsewhere = match (&error, &options.access.region) {
            (LakeError::Refused { .. }, None) => found.region_of_bucket().await,
            _ => None,
        };
        let Some(region) = elsewhere.filter(|region| reached.region() != Some(region)) else { return Err(error) };
        tracing::info!(bucket = self.bucket(), region, "the bucket is in another region than AWS_REGION");
        let access = Access { region: Some(region), ..options.access.clone() };
        let there = store(&aws.reach(&access, None).await.map_err(|error| self.not_reached(error))?)?;
        there.probe().await?;
        Ok(there)
    }

    fn not_opened(&self, problem: String) -> LakeError {
        LakeError::Refused { operation: format!("open the lake {self}"), problem }
    }

    fn not_reached(&self, AccessError { problem, passing }: AccessError) -> LakeError {
        match passing {
            true => LakeError::Unavailable { operation: format!("open the lake {self}"), problem },
            false => self.not_opened(problem),
        }
    }
}

#[async_trait]
impl<Options: AsRef<S3Options> + Sync> LakeBackend<Options> for S3Location {
    fn name(&self) -> &'static str {
        NAME
    }

    fn needs_aws(&self) -> bool {
        true
    }

    fn check_options(&self, options: &Options) -> Result<(), String> {
        options.as_ref().validate().map_err(|problem| problem.to_string())
    }

    async fn open(&self, options: &Options, aws: Option<&Aws>, _: bool) -> Result<Arc<dyn ObjectStore>, LakeError> {
        Ok(Arc::new(self.store(options.as_ref(), Aws::required(aws)).await?))
    }

    async fn open_existing(
        &self,
        options: &Options,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn ObjectStore>>, LakeError> {
        Ok(Some(Arc::new(self.store(options.as_ref(), Aws::required(aws)).await?)))
    }

    async fn try_permissions(&self, aws: &Aws, options: &Options, trials: &mut Trials) {
        match self.store(options.as_ref(), aws).await {
            Ok(store) => store.try_permissions(trials, None).await,
            // What cannot be opened is tried as it is, which shows which permission is missing, if one is.
            Err(error) => match aws.reach(&options.as_ref().access, None).await {
                Ok(reached) => match S3Store::new(reached.s3(), self.clone(), options.as_ref()) {
                    Ok(store) => store.try_permissions(trials, Some(error)).await,
                    Err(problem) => trials.fail(LIST, &self.to_string(), problem.to_string()),
                },
                Err(_) => trials.fail(LIST, &self.to_string(), error.to_string()),
            },
        }
    }

    async fn diagnose(&self, options: &Options, aws: Option<&Aws>, diagnosis: &mut Diagnosis) {
        let options = options.as_ref();
        // What cannot be opened is reported by whoever opens it.
        if let Ok(store) = self.store(options, Aws::required(aws)).await {
            store.diagnose(&options.tags, diagnosis).await;
        }
    }

    async fn create(&self, aws: &Aws, options: &Options) -> Result<Option<Created>, String> {
        let aws = aws.reach(&options.as_ref().access, None).await.map_err(|error| error.problem)?;
        let (client, bucket) = (aws.s3(), self.bucket());
        if client.head_bucket().bucket(bucket).send().await.is_ok() {
            return Ok(Some(Created::Existed));
        }
        let region = aws.region().filter(|region| *region != "us-east-1");
        let location = region.map(|region| {
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build()
        });
        let created = client.create_bucket().bucket(bucket).set_create_bucket_configuration(location).send().await;
        created.map_err(|error| error_chain(&error))?;
        let rules = BucketLifecycleConfiguration::builder().rules(abort_old_uploads(self.prefix())).build();
        let rules = rules.expect("it has a rule");
        let put =
            client.put_bucket_lifecycle_configuration().bucket(bucket).lifecycle_configuration(rules).send().await;
        put.map_err(|error| error_chain(&error))?;
        Ok(Some(Created::Made))
    }
}

fn abort_old_uploads(prefix: &str) -> LifecycleRule {
    let abort = AbortIncompleteMultipartUpload::builder().days_after_initiation(ABORT_UPLOADS_AFTER_DAYS).build();
    LifecycleRule::builder()
        .id("abort uploads that nobody completed")
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix(prefix).build())
        .abort_incomplete_multipart_upload(abort)
        .build()
        .expect("it has a status")
}
