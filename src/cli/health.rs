//! `health`: asks a worker whether it is alive or ready, for health checks of containers that have no other HTTP client.
//!
//! Owns: one request, and the exit code. Does not own: the judgement (`server::health`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use crate::cli::Usage;

#[derive(Debug, ClapArgs)]
pub(crate) struct HealthArgs {
    /// Where the worker listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8470")]
    pub(crate) url: String,

    /// Ask whether it does its work, and not only whether it is alive
    #[arg(long)]
    pub(crate) ready: bool,
}

/// How long the worker may take for each step.
const WITHIN: Duration = Duration::from_secs(4);
/// The largest answer.
const ANSWER_MAX: u64 = 64 << 10;

pub(crate) async fn health(args: HealthArgs, json: bool) -> anyhow::Result<ExitCode> {
    let place = Place::parse(&args.url, args.ready).map_err(Usage)?;
    let asked = tokio::task::spawn_blocking(move || place.ask()).await?;
    let (ok, report) = match asked {
        Ok((ok, report)) => (ok, report),
        Err(problem) => (false, json!({ "ok": false, "reasons": [problem] })),
    };
    if json {
        println!("{report}");
    } else {
        let reasons = report["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let reasons: Vec<&str> = reasons.collect();
        let state = report["state"].as_str().map_or_else(String::new, |state| format!(" ({state})"));
        println!("{}{state}", if ok { "ok" } else { "failing" });
        reasons.iter().for_each(|reason| println!("  {reason}"));
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where to ask, and what for.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    path: String,
}

impl Place {
    /// Reads a URL. Without a path it is the one of the check.
    fn parse(url: &str, ready: bool) -> Result<Self, String> {
        let invalid = || format!("'{url}' is not a valid URL of a worker: expected http://HOST:PORT");
        let rest = url.strip_prefix("http://").ok_or_else(invalid)?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port =
            host.rsplit_once(':').is_some_and(|(name, port)| !name.is_empty() && port.parse::<u16>().is_ok());
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if !has_port || !is_plain {
            return Err(invalid());
        }
        let check = if ready { "readyz" } else { "healthz" };
        let path = if path.is_empty() { check } else { path };
        Ok(Place { host: host.to_owned(), path: format!("/{path}") })
    }

    /// Whether the check passes, and the answer.
    fn ask(&self) -> Result<(bool, Value), String> {
        let Place { host, path } = self;
        let failed = |error: std::io::Error| format!("no worker answers at http://{host}: {error}");
        let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(failed)?.collect();
        let address = addresses.first().ok_or_else(|| format!("{host} has no address"))?;
        let mut stream = TcpStream::connect_timeout(address, WITHIN).map_err(failed)?;
        stream.set_read_timeout(Some(WITHIN)).map_err(failed)?;
        stream.set_write_timeout(Some(WITHIN)).map_err(failed)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not HTTP")?;
        let code = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok()).ok_or("the answer is not HTTP")?;
        let report = serde_json::from_str(body)
            .unwrap_or_else(|_| json!({ "ok": code == 200, "reasons": [format!("HTTP {code}: {}", body.trim())] }));
        Ok((code == 200, report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_means_the_check() {
        let place = |host: &str, path: &str| Ok(Place { host: host.to_owned(), path: path.to_owned() });
        assert_eq!(Place::parse("http://127.0.0.1:8470", false), place("127.0.0.1:8470", "/healthz"));
        assert_eq!(Place::parse("http://127.0.0.1:8470/", true), place("127.0.0.1:8470", "/readyz"));
        assert_eq!(Place::parse("http://[::1]:1/api/fleet", true), place("[::1]:1", "/api/fleet"));
        for url in ["", "127.0.0.1:8470", "https://a:1", "http://a", "http://:1", "http://a:x", "http://a:1/b\r\nc"] {
            assert!(Place::parse(url, false).is_err(), "{url}");
        }
    }

    #[test]
    fn a_worker_that_does_not_listen_is_not_healthy() {
        // Port 1 of loopback: nobody listens there.
        let problem = Place::parse("http://127.0.0.1:1", false).unwrap().ask().unwrap_err();
        assert!(problem.starts_with("no worker answers at http://127.0.0.1:1: "), "{problem}");
    }
}
