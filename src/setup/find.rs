//! Opening what a search needs: lake and leases that exist, the ids of columns, and the pseudonym key if it is at hand.
//!
//! Owns: what follows from a key that is missing, or that is not the lake's. Does not own: the search (`inspect::find`).

use pipeline::anonymize::PseudonymKey;

use crate::commit::Stores;
use crate::config::{Config, KeySource};
use crate::lake::{Retrying, identity, preview_fields};
use crate::retry::RetryPolicy;
use crate::setup::key::{self, OpenedKey, open_key};
use crate::setup::{OpenError, load_aws, open_existing};

/// Opens a lake for a search, and the pseudonym key if `wants_key` and the definitions need one. Without a key, which not everybody may
/// read, pseudonyms are found by themselves only; why is the last value. The configuration's datasets get the ids of the lake.
///
/// # Errors
/// Lake or leases do not exist or cannot be opened, or the key is not the one of the lake.
pub async fn open_for_find(
    config: &mut Config,
    wants_key: bool,
) -> Result<(Stores, Option<PseudonymKey>, Option<OpenError>), OpenError> {
    let stores = open_existing(config).await?;
    let retried = Retrying::new(std::sync::Arc::clone(&stores.lake_once), RetryPolicy::CALL);
    preview_fields(&retried, &mut config.datasets).await?;
    if !wants_key || !config.datasets.need_key() {
        return Ok((stores, None, None));
    }
    // A key that does not exist is not made: no row has its pseudonyms.
    let source = match &config.key {
        KeySource::MadeFile(path) => KeySource::File(path.clone()),
        other => other.clone(),
    };
    match open_key(&source, load_aws(config).await?.as_ref(), config.worker.retry.within).await {
        Ok(OpenedKey { key, .. }) => {
            identity::check_key(&retried, &key::fingerprint(&key)).await?;
            Ok((stores, Some(key), None))
        }
        Err(error) => Ok((stores, None, Some(error))),
    }
}
