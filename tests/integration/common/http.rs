//! Requests to a worker's own server.
//!
//! Owns: a client of a few lines, and finding the port of a worker that was started with `--listen 127.0.0.1:0`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::common::wait_for;
use crate::common::worker::Worker;

/// A free port, which the worker prints.
pub(crate) const LISTEN: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Status line and headers, in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// The address of a worker's server, once it listens.
pub(crate) fn address_of(worker: &Worker) -> String {
    let mut address = None;
    wait_for("the address of the status page", 20, || {
        let log = worker.log();
        let line = log.lines().find_map(|line| line.strip_prefix("status page: http://"));
        address = line.map(|line| line.trim_end_matches('/').to_owned());
        address.is_some()
    });
    address.unwrap()
}

/// Sends a request, and leaves the response to be read.
pub(crate) fn send(address: &str, method: &str, path: &str, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// A request, and its whole response.
pub(crate) fn ask(address: &str, method: &str, path: &str, host: &str) -> Answer {
    let mut bytes = Vec::new();
    send(address, method, path, host).read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer { code: head[9..12].parse().unwrap(), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

pub(crate) fn get(address: &str, path: &str) -> Answer {
    ask(address, "GET", path, address)
}

/// What the page shows.
pub(crate) fn fleet(address: &str) -> Value {
    let answer = get(address, "/api/fleet");
    assert_eq!(answer.code, 200, "{}", answer.body);
    answer.json()
}
