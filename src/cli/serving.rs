//! The status page of a command that runs workers.
//!
//! Owns: binding the address, and saying where the page is. Does not own: what is served (`server`).

use std::io::IsTerminal;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cli::Usage;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::lease_stores::CheckpointsUrl;
use crate::server::{Bound, Listen, Server, Site, bind};

/// A page that is served until this is dropped, or none.
pub(crate) struct Serving {
    pub(crate) site: Arc<Site>,
    _server: Option<Server>,
}

impl Serving {
    /// Serves at an address. `stop` is cancelled once the process was asked to end.
    pub(crate) async fn start(listen: Listen, clock: &SharedClock, stop: &CancellationToken) -> anyhow::Result<Self> {
        let bound = bind(listen).await.map_err(|error| Usage(error.to_string()))?;
        let is_loopback = bound.as_ref().is_none_or(|bound| bound.address.ip().is_loopback());
        let site = Site::new(Arc::clone(clock), is_loopback, stop.clone());
        let server = bound.map(|bound| {
            say_where(&bound);
            Server::start(bound, Arc::clone(&site))
        });
        Ok(Serving { site, _server: server })
    }
}

fn say_where(bound: &Bound) {
    let address = bound.address;
    tracing::info!(%address, "serving the status page, metrics and health checks");
    // Nobody knows a port that the system has chosen.
    if bound.is_chosen || std::io::stderr().is_terminal() {
        eprintln!("status page: http://{address}/");
    }
}

/// The flags by which other commands find the lake and the leases of a configuration.
pub(crate) fn place_of(config: &Config) -> String {
    let own = config.lake.backend().folder().map(CheckpointsUrl::in_lake);
    if own.as_ref() == Some(config.checkpoints()) {
        format!("--lake {}", config.lake)
    } else {
        format!("--lake {} --checkpoints {}", config.lake, config.checkpoints())
    }
}
