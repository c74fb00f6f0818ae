//! Where a worker listens.
//!
//! Owns: the forms of the address in flags and the configuration, and binding it. Does not own: serving connections.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpListener;

/// The default address. Nobody else can reach it.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8470);

/// Where to listen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// At the default address, or at a free port if that is taken.
    #[default]
    Default,
    /// At this address, and at no other.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl Listen {
    /// What an address looks like, for the documentation.
    pub const FORM: &'static str = "`off`, or an address such as `127.0.0.1:8470`";

    /// Reads an address.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Listen::Off);
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address: Result<SocketAddr, _> = numeric.as_deref().unwrap_or(text).parse();
        address.map(Listen::At).map_err(|_| {
            format!("listen must be off, or an address and a port such as 127.0.0.1:8470 or 0.0.0.0:8470, not '{text}'")
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Default => DEFAULT.fmt(f),
            Listen::At(address) => address.fmt(f),
            Listen::Off => f.write_str("off"),
        }
    }
}

/// An address that was given and cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {problem}. Choose another address with --listen or [server] listen, or turn the status page off with \
     --listen off"
)]
pub struct ListenError {
    address: SocketAddr,
    problem: io::Error,
}

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether the system has chosen the port: the default one was taken, or port 0 was asked for.
    pub is_chosen: bool,
}

/// Binds the address. `None`: nothing is served. If the default address cannot be used at all, that is a warning, since nobody asked for
/// it.
///
/// # Errors
/// An address that was given cannot be bound.
pub async fn bind(listen: Listen) -> Result<Option<Bound>, ListenError> {
    match listen {
        Listen::Off => Ok(None),
        Listen::At(address) => {
            let bound = bind_to(address).await.map_err(|problem| ListenError { address, problem })?;
            Ok(Some(bound))
        }
        Listen::Default => {
            let bound = match bind_to(DEFAULT).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    bind_to(SocketAddr::new(DEFAULT.ip(), 0)).await
                }
                bound => bound,
            };
            if let Err(error) = &bound {
                tracing::warn!(%error, "cannot listen on {DEFAULT}; there is no status page, and no health check by HTTP");
            }
            Ok(bound.ok())
        }
    }
}

async fn bind_to(address: SocketAddr) -> io::Result<Bound> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok(Bound { is_chosen: bound.port() != address.port(), listener, address: bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_shown_in_one_form() {
        for (text, shown) in [
            ("127.0.0.1:8470", "127.0.0.1:8470"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]:8470", "[::1]:8470"),
            ("off", "off"),
        ] {
            assert_eq!(Listen::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "on", "8470", ":8470", "example.org:80", "127.0.0.1", "127.0.0.1:70000"] {
            let problem = Listen::parse(text).unwrap_err();
            assert!(problem.contains("127.0.0.1:8470") && problem.contains(&format!("'{text}'")), "{problem}");
        }
        assert_eq!(Listen::default().to_string(), "127.0.0.1:8470");
    }

    #[tokio::test]
    async fn a_given_address_that_is_taken_is_an_error_and_off_is_nothing() {
        assert!(bind(Listen::Off).await.unwrap().is_none());
        let first = bind(Listen::parse("127.0.0.1:0").unwrap()).await.unwrap().unwrap();
        assert!(first.address.port() > 0 && first.is_chosen);
        let error = bind(Listen::At(first.address)).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {}", first.address)) && error.contains("--listen off"));
    }

    #[tokio::test]
    async fn two_workers_of_one_machine_get_a_port_each() {
        let one = bind(Listen::Default).await.unwrap().unwrap();
        let other = bind(Listen::Default).await.unwrap().unwrap();
        assert_ne!(one.address, other.address);
        assert!(other.is_chosen && other.address.ip().is_loopback());
    }
}
