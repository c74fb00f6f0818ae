//! S3 as a kind of lake: URL, keys of the configuration, permissions, opening, and making a bucket for development.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, BucketLocationConstraint, CreateBucketConfiguration,
    ExpirationStatus, LifecycleRule, LifecycleRuleFilter,
};
use checkpoints::error_chain;

use crate::aws::permissions::{PROBE, Permission, Trials};
use crate::aws::{Aws, Created};
use crate::lake::backend::LakeBackend;
use crate::lake::{Encryption, LakeError, ObjectStore, S3Location, S3Options, S3Store};
use crate::settings::{Fallback, Key, Kind};

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
        requests: &["S3.PutObject", "S3.CreateMultipartUpload", "S3.UploadPart", "S3.CompleteMultipartUpload"],
    },
    Permission { action: "s3:AbortMultipartUpload", requests: &["S3.AbortMultipartUpload"] },
    Permission { action: "s3:DeleteObject", requests: &["S3.DeleteObject"] },
    // With tags.
    Permission { action: "s3:PutObjectTagging", requests: &["S3.PutObject", "S3.CreateMultipartUpload"] },
];

/// Days after which a new bucket aborts uploads that nobody completed: far more than an epoch and its recovery may take.
const ABORT_UPLOADS_AFTER_DAYS: i32 = 7;

/// The keys of `[lake]` for a lake on S3.
pub(crate) fn keys() -> Vec<Key<S3Options>> {
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
    async fn store(&self, options: &S3Options, aws: Option<&Aws>) -> Result<Arc<dyn ObjectStore>, LakeError> {
        let client = Aws::required(aws).s3();
        let store = S3Store::new(client, self.clone(), options).map_err(|problem| LakeError::Refused {
            operation: format!("open the lake {self}"),
            problem: problem.to_string(),
        })?;
        store.probe().await?;
        Ok(Arc::new(store))
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
        self.store(options.as_ref(), aws).await
    }

    async fn open_existing(
        &self,
        options: &Options,
        aws: Option<&Aws>,
    ) -> Result<Option<Arc<dyn ObjectStore>>, LakeError> {
        self.store(options.as_ref(), aws).await.map(Some)
    }

    async fn try_permissions(&self, aws: &Aws, trials: &mut Trials) {
        let client = aws.s3();
        let (bucket, prefix) = (self.bucket(), self.prefix());
        let (whole, below) = (format!("s3://{bucket}"), format!("s3://{bucket}/{prefix}*"));
        let key = format!("{prefix}{PROBE}");
        let absent = ("NoSuchBucket", "the bucket (shardlake init makes it)");
        let listed = client.list_objects_v2().bucket(bucket).prefix(prefix).max_keys(1).send().await;
        trials.note("s3:ListBucket", &whole, listed, &[], absent);
        if !trials.last_exists() {
            return;
        }
        let listed = client.list_multipart_uploads().bucket(bucket).prefix(prefix).max_uploads(1).send().await;
        trials.note("s3:ListBucketMultipartUploads", &whole, listed, &[], absent);
        let got = client.get_object().bucket(bucket).key(&key).send().await;
        trials.note("s3:GetObject", &below, got, &["NoSuchKey"], absent);
        let begun = client.create_multipart_upload().bucket(bucket).key(&key).send().await;
        let upload = begun.as_ref().ok().and_then(|answer| answer.upload_id()).map(str::to_owned);
        trials.note("s3:PutObject", &below, begun, &[], absent);
        if let Some(upload) = upload {
            let aborted = client.abort_multipart_upload().bucket(bucket).key(&key).upload_id(upload).send().await;
            trials.note("s3:AbortMultipartUpload", &below, aborted, &["NoSuchUpload"], absent);
        }
        let deleted = client.delete_object().bucket(bucket).key(&key).send().await;
        trials.note("s3:DeleteObject", &below, deleted, &["NoSuchKey"], absent);
    }

    async fn create(&self, aws: &Aws) -> Result<Option<Created>, String> {
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
