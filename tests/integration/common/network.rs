//! Ways to a server: a proxy, and TLS under a certificate authority of these tests.
//!
//! Owns: an HTTP proxy on loopback that notes what it is asked for, and a TLS server in front of another one. Everything is on
//! threads of its own, which end with their connections. The keys in `tls/` are made for these tests and protect nothing:
//! `server.pem` is for `aws.test.internal` and 127.0.0.1, and `ca.pem` has signed it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The certificate authority.
pub(crate) const CA: &str = include_str!("tls/ca.pem");
/// The host that only the proxy can reach.
pub(crate) const HOST: &str = "aws.test.internal";

/// How often a copying thread looks at its other side.
const TURN: Duration = Duration::from_millis(2);

/// A proxy. Whatever host it is asked for, it connects to one address.
pub(crate) struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// A proxy to this address.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let address = listen(move |client| {
            let noted = Arc::clone(&noted);
            std::thread::spawn(move || proxied(client, server, &noted));
        });
        Proxy { address, asked }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The first lines of the requests that it got, without the version.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Accepts connections for as long as the process runs.
fn listen(serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().flatten().for_each(serve));
    address
}

/// A server that accepts connections and never answers.
pub(crate) fn silent_server() -> SocketAddr {
    let kept = Mutex::new(Vec::new());
    listen(move |client| kept.lock().unwrap().push(client))
}

fn proxied(mut client: TcpStream, server: SocketAddr, asked: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        match client.read(&mut piece) {
            Ok(bytes @ 1..) => head.extend_from_slice(&piece[..bytes]),
            _ => return,
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let line = text.lines().next().unwrap_or_default();
    asked.lock().unwrap().push(line.trim_end_matches(" HTTP/1.1").to_owned());
    let mut server = TcpStream::connect(server).unwrap();
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    } else {
        // A request in the absolute form, which the server understands as well. Further ones on this connection are not noted.
        server.write_all(&head).unwrap();
    }
    copy_both(client, server);
}

/// A TLS server in front of another server.
pub(crate) fn tls_to(server: SocketAddr) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(include_bytes!("tls/server.pem")).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    listen(move |client| {
        let config = Arc::clone(&config);
        std::thread::spawn(move || {
            let client = StreamOwned::new(ServerConnection::new(config).unwrap(), client);
            if let Ok(server) = TcpStream::connect(server) {
                copy_both(client, server);
            }
        });
    })
}

/// A side of a connection whose reads end after a while.
trait Side: Read + Write {
    fn set_turn(&self);
}

impl Side for TcpStream {
    fn set_turn(&self) {
        self.set_read_timeout(Some(TURN)).unwrap();
    }
}

impl Side for StreamOwned<ServerConnection, TcpStream> {
    fn set_turn(&self) {
        self.sock.set_turn();
    }
}

/// Copies in both directions until one side ends.
fn copy_both(mut one: impl Side, mut other: impl Side) {
    one.set_turn();
    other.set_turn();
    while copy_some(&mut one, &mut other) && copy_some(&mut other, &mut one) {}
}

/// Copies what is there; false if one side has ended.
fn copy_some(from: &mut impl Side, to: &mut impl Side) -> bool {
    let mut bytes = vec![0; 1 << 16];
    match from.read(&mut bytes) {
        Ok(0) => false,
        Ok(read) => to.write_all(&bytes[..read]).and_then(|()| to.flush()).is_ok(),
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}
