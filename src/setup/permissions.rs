//! Trying what a worker will have to do, so that a missing permission is reported before it is needed.
//!
//! Owns: that everything the configuration names is tried. Does not own: the trials of one backend (its `try_permissions`), creating
//! what is missing (`shardlake init`).

use crate::aws::permissions::{Permission, Trials, Tried};
use crate::aws::{Access, Aws, arn};
use crate::config::{Config, KeySource};
use crate::{lake, lease_stores, raw, source};

/// Tries everything that the configuration needs.
pub async fn try_all(config: &Config, aws: &Aws) -> Vec<Tried> {
    let mut trials = Trials::default();
    for source in &config.sources {
        source.url.backend().try_permissions(aws, &source.options, &mut trials).await;
    }
    config.checkpoints().backend().try_permissions(aws, &config.checkpoints_options, &mut trials).await;
    config.lake.backend().try_permissions(aws, &config.lake_options, &mut trials).await;
    config.worker.output.raw_to.try_permissions(aws, &mut trials).await;
    if let KeySource::SecretsManager(id) = &config.key {
        match aws.reach(&Access::default(), arn::region(id)).await {
            Ok(aws) => {
                let read = aws.secrets().get_secret_value().secret_id(id).send().await;
                trials.note(SECRET.action, id, read, &[], ("ResourceNotFoundException", "the secret"));
            }
            Err(error) => trials.fail(SECRET.action, id, error.problem),
        }
    }
    trials.into_vec()
}

const SECRET: Permission =
    Permission { action: "secretsmanager:GetSecretValue", requests: &["Secrets Manager.GetSecretValue"] };

/// Every permission that a worker may need, whatever the configuration.
pub fn all() -> Vec<Permission> {
    let mut all = source::backends::permissions();
    all.extend(lake::backends::permissions());
    all.extend(lease_stores::permissions());
    all.extend(raw::permissions());
    all.push(SECRET);
    all
}
