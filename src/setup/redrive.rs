//! Opening what a redrive needs.
//!
//! Owns: the order in which that is opened. Does not own: opening each (the parent module).

use std::sync::Arc;

use pipeline::anonymize::PseudonymKey;

use crate::clock::SharedClock;
use crate::commit::Stores;
use crate::config::Config;
use crate::lake::{check_definitions, identity, number_fields};
use crate::setup::key::{fingerprint, open_key};
use crate::setup::{
    Consents, OpenError, check_lake, load_aws, open_existing_lake, open_existing_leases, policies, stream_names,
};

/// Opens a lake and a lease store that must exist, and the pseudonym key, for making rows of what the lake has. The fields of the
/// configuration's datasets get their ids in this lake.
///
/// # Errors
/// One does not exist or cannot be opened; the lake has another format or key; or a definition does not fit what it has.
pub async fn open_for_redrive(
    config: &mut Config,
    clock: &SharedClock,
) -> Result<(Stores, Option<PseudonymKey>), OpenError> {
    let aws = load_aws(config).await?;
    // With the leases of another lake, nothing would keep two operations apart.
    check_lake(config, aws.as_ref(), Consents::default()).await?;
    let lake = open_existing_lake(config, aws.as_ref()).await?;
    let leases = open_existing_leases(config, aws.as_ref()).await?;
    let (policy, of_leases) = policies(config);
    let stores = Stores::with_policies((lake, policy), (leases, of_leases)).with_clock(Arc::clone(clock));
    let stores = stores.with_streams(stream_names(config));
    check_definitions(&*stores.lake, &config.datasets, false).await?;
    let key = match config.datasets.need_key() {
        true => Some(open_key(&config.key, aws.as_ref(), config.worker.retry.within).await?.key),
        false => None,
    };
    identity::claim(&*stores.lake, key.as_ref().map(fingerprint).as_deref()).await?;
    number_fields(&*stores.lake, &mut config.datasets).await?;
    Ok((stores, key))
}
