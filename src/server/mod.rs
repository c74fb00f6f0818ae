//! What a worker serves by HTTP: the status page, its JSON, metrics and health.
//!
//! Owns: the address, connections and their limits, the routes, and what the page shows ([`fleet`]). Does not own: the figures
//! (`worker`, `inspect`, `commit`), the text of `/metrics` (`telemetry`), whether the worker runs.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | the status page, one HTML file without any other asset |
//! | `/api/fleet`, `/api/status` | what the page shows, as one JSON value |
//! | `/events` | the same by server-sent events, every two seconds |
//! | `/metrics` | metrics for Prometheus |
//! | `/healthz` | 503 only if a restart can help |
//! | `/readyz` | 503 unless the worker does its work |
//!
//! Rules:
//!
//! 1. Nothing can be changed by a request, and no content of a record is ever in a response.
//! 2. The worker waits for no request. What the page shows is read in the background, once for all who watch, and only while somebody
//!    watches.
//! 3. Connections, their buffers and the time that they may take are bounded. A client that does not read holds one value at most,
//!    which all clients share.

mod connections;
pub mod fleet;
mod guard;
pub mod health;
mod listen;
mod page;
mod routes;
mod site;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

pub use listen::{Bound, Listen, ListenError, bind};
pub use site::{MetricsText, Mode, Site, View};

/// A server that runs. It ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    // Aborts the tasks when it is dropped.
    _tasks: JoinSet<()>,
}

impl Server {
    /// Serves a site on an address. Must be called within a runtime.
    pub fn start(bound: Bound, site: Arc<Site>) -> Self {
        let Bound { listener, address, .. } = bound;
        let mut tasks = JoinSet::new();
        tasks.spawn(connections::serve(listener, routes::router(Arc::clone(&site))));
        tasks.spawn(fleet::keep_fresh(site));
        Server { address, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
