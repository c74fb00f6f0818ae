//! Secrets: the account's keys, the key of pseudonyms, passwords in URLs. None of them is ever said, whatever goes wrong.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::lake::files_below;
use crate::place::Place;
use crate::services::{Cloud, KEY};

const ACCESS_KEY: &str = "AKIAHUSHHUSHHUSH0001";
const SECRET_KEY: &str = "hushSecretAccessKey0123456789abcdefghijk";
const TOKEN: &str = "hushSessionToken//////////0123456789";
const PSEUDONYMS: &str = "hush-the-key-of-pseudonyms-0123456789";
const PASSWORD: &str = "hushPassword";

/// What must never be said, in any of these forms.
fn secrets() -> Vec<String> {
    let mut all = Vec::new();
    for secret in [ACCESS_KEY, SECRET_KEY, TOKEN, PSEUDONYMS, PASSWORD] {
        all.push(secret.to_lowercase());
        all.push(base64_simd::STANDARD_NO_PAD.encode_to_string(secret).to_lowercase());
        all.push(base64_simd::URL_SAFE_NO_PAD.encode_to_string(secret).to_lowercase());
        all.push(secret.bytes().map(|byte| format!("{byte:02x}")).collect());
    }
    all
}

fn message_of(said: &[u8]) -> Option<String> {
    let said = String::from_utf8_lossy(said).to_lowercase();
    secrets().into_iter().find(|secret| said.contains(secret)).map(|secret| {
        let at = said.find(&secret).unwrap();
        said[at.saturating_sub(200)..].chars().take(400).collect()
    })
}

fn tells_no_secret(place: &Place) {
    for (command, said) in &place.said {
        assert_eq!(message_of(said), None, "'{command}' tells a secret");
    }
}

fn keys_of_an_account(place: &mut Place) {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
        ("AWS_REGION", "us-east-1"),
        ("RUST_LOG", "trace"),
        (KEY, PSEUDONYMS),
    ] {
        place.environment.0.push((name.to_owned(), value.to_owned()));
    }
}

/// A service that answers every request with this, for as long as the test runs: its address.
fn answering(status: &'static str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut request = [0; 16 << 10];
            // One read holds a whole request of this size.
            let _ = connection.read(&mut request);
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n");
            let _ = write!(connection, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    address.to_string()
}

fn assessment(place: &Place) {
    place.write("in/a.ndjson", r#"{"id":"a","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z"}"#);
}

#[test]
fn a_worker_on_aws_says_nothing_of_its_keys_when_all_goes_well_nor_when_all_fails() {
    let cloud = Cloud::new();
    let mut place = Place::new();
    cloud.configure(&mut place, "");
    keys_of_an_account(&mut place);
    for format in ["text", "json"] {
        cloud.fail_sometimes();
        place.ok(&["run", "--until-caught-up", "--log-format", format]);
        cloud.fail_no_more();
        for command in [
            "config check",
            "config check --json",
            "config check --offline",
            "status",
            "init",
            "leases list --watch 50ms",
        ] {
            let args: Vec<&str> = command.split(' ').collect();
            place.run(&[&args[..], &["--log-format", format]].concat());
        }
    }
    // Nobody answers; somebody answers nonsense, and what was sent with it.
    let echo = format!("<Error><Code>AccessDenied</Code><Message>{ACCESS_KEY}</Message></Error>");
    let malformed = answering("200 OK", "nonsense".to_owned());
    let refusing =
        answering("403 Forbidden", json!({ "__type": "AccessDeniedException", "message": "no" }).to_string());
    for host in ["127.0.0.1:1".to_owned(), malformed, refusing] {
        let url = format!("http://user:{PASSWORD}@{host}");
        place.environment.0.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        place.environment.0.push(("AWS_ENDPOINT_URL".to_owned(), url));
        let output = place.run(&["config", "check"]);
        assert_ne!(output.status.code(), Some(0));
        let output = place.run(&["status", "--lake", "s3://lake-of-people/main", "--checkpoints", "dynamodb://leases"]);
        assert_ne!(output.status.code(), Some(0));
    }
    assert!(place.said.len() >= 20 && message_of(echo.as_bytes()).is_some());
    tells_no_secret(&place);
}

#[test]
fn the_key_of_pseudonyms_is_never_said_wherever_it_comes_from() {
    // From the environment.
    let mut place = Place::new();
    keys_of_an_account(&mut place);
    assessment(&place);
    let run = ["run", "--source", "in", "--lake", "lake", "--until-caught-up"];
    place.write("shardlake.toml", format!("[anonymize]\nkey = \"env:{KEY}\"\n"));
    place.ok(&run);
    place.ok(&["config", "check", "--source", "in", "--lake", "lake"]);
    place.ok(&["verify", "--lake", "lake"]);
    // From a file, of the right key and of another one, too short, and missing.
    place.write("right.key", format!("{PSEUDONYMS}\n"));
    place.write("wrong.key", format!("{PSEUDONYMS}-and-more\n"));
    place.write("short.key", &PSEUDONYMS[..8]);
    for (file, code) in [("right", 0), ("wrong", 2), ("short", 2), ("none", 2)] {
        place.write("shardlake.toml", format!("[anonymize]\nkey = \"file:{file}.key\"\n"));
        place.ends(code, &run);
        place.ok(&["config", "check", "--source", "in", "--lake", "lake"]);
    }
    // Written where its place should be, with and without a mistake beside it.
    for text in [
        format!("[anonymize]\nkey = \"{PSEUDONYMS}\"\n"),
        format!("[anonymize]\nkey = {PSEUDONYMS}\n"),
        format!("[anonymize]\nkeys = \"{PSEUDONYMS}\"\n"),
        format!("[anonymize]\nkey = [\"{PSEUDONYMS}\"]\n"),
        format!("[anonymize]\nkey = \"{PSEUDONYMS}\n"),
    ] {
        place.write("shardlake.toml", text);
        place.ends(2, &run);
        place.ends(2, &["config", "check", "--source", "in", "--lake", "lake"]);
    }
    tells_no_secret(&place);
    for (name, bytes) in files_below(&place.path("lake")) {
        assert_eq!(message_of(&bytes), None, "{name} holds the key");
    }
}

#[test]
fn a_secret_of_the_secrets_manager_is_not_said_even_if_the_answer_makes_no_sense() {
    let mut place = Place::new();
    keys_of_an_account(&mut place);
    assessment(&place);
    place.write("shardlake.toml", "[anonymize]\nkey = \"secretsmanager:the-key\"\n");
    let secret = |name: &str| json!({ "Name": "the-key", "SecretString": name }).to_string();
    for (status, body, code) in [
        ("200 OK", secret(PSEUDONYMS), 0),
        ("200 OK", json!({ "SecretBinary": base64_simd::STANDARD.encode_to_string(PSEUDONYMS) }).to_string(), 0),
        ("200 OK", secret(&PSEUDONYMS[..12]), 2),
        ("200 OK", secret(PSEUDONYMS).replace('}', ""), 2),
        ("200 OK", json!({ "SecretString": [PSEUDONYMS] }).to_string(), 2),
        ("400 Bad Request", json!({ "__type": "DecryptionFailure", "Message": PSEUDONYMS }).to_string(), 2),
        ("500 Internal Server Error", format!("<html>{PSEUDONYMS}</html>"), 2),
    ] {
        place.environment.0.retain(|(name, _)| name != "AWS_ENDPOINT_URL_SECRETS_MANAGER");
        let url = format!("http://{}", answering(status, body.clone()));
        place.environment.0.push(("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), url));
        let output = place.run(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
        let (_, said) = place.said.last().unwrap();
        assert_eq!(output.status.code(), Some(code), "{body}: {}", String::from_utf8_lossy(said));
    }
    tells_no_secret(&place);
}

#[test]
fn a_password_in_a_url_is_not_said() {
    let mut place = Place::new();
    assessment(&place);
    for url in [
        format!("https://user:{PASSWORD}@host/path"),
        format!("s3://user:{PASSWORD}@bucket/path"),
        format!("kinesis://user:{PASSWORD}@stream"),
        format!("https://bucket.example.com/path?X-Amz-Signature={PASSWORD}"),
    ] {
        place.ends(2, &["run", "--source", &url]);
        place.ends(2, &["run", "--source", "in", "--lake", &url]);
        place.ends(2, &["run", "--source", "in", "--checkpoints", &url]);
        place.ends(2, &["status", "--lake", &url]);
        place.run(&["produce", "--to", &url, "--count", "1"]);
        place.write(
            "bad.toml",
            format!("[[source]]\nurl = \"{url}\"\n[lake]\nurl = \"{url}\"\n[checkpoints]\nurl = \"{url}\"\n"),
        );
        place.ends(2, &["config", "check", "--config", "bad.toml"]);
        place.ends(2, &["graph", "--source", &url]);
    }
    // An address as in a commit message of a package index is shown without what is before the '@'.
    let (_, said) = &place.said[0];
    assert!(String::from_utf8_lossy(said).contains("https://…@host/path"), "{}", String::from_utf8_lossy(said));
    tells_no_secret(&place);
}

#[test]
fn a_key_that_is_made_is_for_its_owner_only() {
    let mut place = Place::new();
    assessment(&place);
    place.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let key = place.path("lake.pseudonym.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(key).unwrap();
    assert_eq!(key.trim().len(), 64);
    for (name, bytes) in files_below(&place.path("lake")) {
        assert!(memchr::memmem::find(&bytes, key.trim().as_bytes()).is_none(), "{name} holds the key");
    }
    for (command, said) in &place.said {
        assert!(!String::from_utf8_lossy(said).contains(key.trim()), "'{command}' tells the key");
    }
}
