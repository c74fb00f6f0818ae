//! Secrets: the account's keys, the pseudonym key, passwords in URLs. No command prints or logs them, whatever fails.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::common::folder::Folder;
use crate::common::services::KEY;
use crate::security::cloud::Cloud;
use crate::security::lake::files_below;

const ACCESS_KEY: &str = "AKIAHUSHHUSHHUSH0001";
const SECRET_KEY: &str = "hushSecretAccessKey0123456789abcdefghijk";
const TOKEN: &str = "hushSessionToken//////////0123456789";
const PSEUDONYMS: &str = "hush-the-key-of-pseudonyms-0123456789";
const PASSWORD: &str = "hushPassword";

/// What must never be printed, in every form.
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

/// A secret in some bytes, with the text around it.
fn leak_in(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes).to_lowercase();
    secrets().into_iter().find(|secret| text.contains(secret)).map(|secret| {
        let at = text.find(&secret).unwrap();
        String::from_utf8_lossy(&text.as_bytes()[at.saturating_sub(200)..]).chars().take(400).collect()
    })
}

fn check_no_secret_was_printed(folder: &Folder) {
    for printed in folder.printed() {
        assert_eq!(leak_in(&printed.bytes), None, "'{}' prints a secret", printed.command);
    }
}

fn set_keys_of_an_account(folder: &mut Folder) {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", TOKEN),
        ("AWS_REGION", "us-east-1"),
        ("RUST_LOG", "trace"),
        (KEY, PSEUDONYMS),
    ] {
        folder.set(name, value);
    }
}

/// The address of a service that responds to every request with this, for as long as the test runs.
fn responding(status: &'static str, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut request = [0; 16 << 10];
            // A request of this size arrives in one read.
            let _ = connection.read(&mut request);
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\nconnection: close\r\n");
            let _ = write!(connection, "{head}content-length: {}\r\n\r\n{body}", body.len());
        }
    });
    address.to_string()
}

fn write_assessment(folder: &Folder) {
    folder.write("in/a.ndjson", r#"{"id":"a","user_id":"u","type":"t","score":1,"timestamp":"2025-01-13T10:00:00Z"}"#);
}

#[test]
fn a_worker_on_aws_never_prints_its_keys_whether_it_succeeds_or_fails() {
    let cloud = Cloud::new();
    let mut folder = Folder::new();
    cloud.configure(&mut folder, "");
    set_keys_of_an_account(&mut folder);
    for format in ["text", "json"] {
        cloud.fail_some_calls();
        folder.ok(&["run", "--until-caught-up", "--log-format", format]);
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
            folder.run(&[&args[..], &["--log-format", format]].concat());
        }
    }
    // No service, a service with malformed responses, and a service that denies everything.
    let echo = format!("<Error><Code>AccessDenied</Code><Message>{ACCESS_KEY}</Message></Error>");
    let malformed = responding("200 OK", "malformed".to_owned());
    let refusing =
        responding("403 Forbidden", json!({ "__type": "AccessDeniedException", "message": "no" }).to_string());
    for host in ["127.0.0.1:1".to_owned(), malformed, refusing] {
        let url = format!("http://user:{PASSWORD}@{host}");
        folder.set("AWS_ENDPOINT_URL", &url);
        let output = folder.run(&["config", "check"]);
        assert_ne!(output.status.code(), Some(0));
        let output =
            folder.run(&["status", "--lake", "s3://lake-of-people/main", "--checkpoints", "dynamodb://leases"]);
        assert_ne!(output.status.code(), Some(0));
    }
    assert!(folder.printed().len() >= 20 && leak_in(echo.as_bytes()).is_some());
    check_no_secret_was_printed(&folder);
}

#[test]
fn the_key_of_pseudonyms_is_never_printed_wherever_it_comes_from() {
    // From the environment.
    let mut folder = Folder::new();
    set_keys_of_an_account(&mut folder);
    write_assessment(&folder);
    let run = ["run", "--source", "in", "--lake", "lake", "--until-caught-up"];
    folder.write("shardlake.toml", format!("[anonymize]\nkey = \"env:{KEY}\"\n"));
    folder.ok(&run);
    folder.ok(&["config", "check", "--source", "in", "--lake", "lake"]);
    folder.ok(&["verify", "--lake", "lake"]);
    // From a file: the right key, another one, one that is too short, and a missing file.
    folder.write("right.key", format!("{PSEUDONYMS}\n"));
    folder.write("wrong.key", format!("{PSEUDONYMS}-and-more\n"));
    folder.write("short.key", &PSEUDONYMS[..8]);
    for (file, code) in [("right", 0), ("wrong", 2), ("short", 2), ("none", 2)] {
        folder.write("shardlake.toml", format!("[anonymize]\nkey = \"file:{file}.key\"\n"));
        folder.exits(code, &run);
        folder.ok(&["config", "check", "--source", "in", "--lake", "lake"]);
    }
    // The key itself instead of a reference to it, with and without another mistake.
    for text in [
        format!("[anonymize]\nkey = \"{PSEUDONYMS}\"\n"),
        format!("[anonymize]\nkey = {PSEUDONYMS}\n"),
        format!("[anonymize]\nkeys = \"{PSEUDONYMS}\"\n"),
        format!("[anonymize]\nkey = [\"{PSEUDONYMS}\"]\n"),
        format!("[anonymize]\nkey = \"{PSEUDONYMS}\n"),
    ] {
        folder.write("shardlake.toml", text);
        folder.exits(2, &run);
        folder.exits(2, &["config", "check", "--source", "in", "--lake", "lake"]);
    }
    check_no_secret_was_printed(&folder);
    for (name, bytes) in files_below(&folder.path("lake")) {
        assert_eq!(leak_in(&bytes), None, "{name} holds the key");
    }
}

#[test]
fn a_secret_of_the_secrets_manager_is_never_printed_even_if_the_response_is_malformed() {
    let mut folder = Folder::new();
    set_keys_of_an_account(&mut folder);
    write_assessment(&folder);
    folder.write("shardlake.toml", "[anonymize]\nkey = \"secretsmanager:the-key\"\n[retry]\nwithin = \"1s\"\n");
    let secret = |name: &str| json!({ "Name": "the-key", "SecretString": name }).to_string();
    for (status, body, code) in [
        ("200 OK", secret(PSEUDONYMS), 0),
        ("200 OK", json!({ "SecretBinary": base64_simd::STANDARD.encode_to_string(PSEUDONYMS) }).to_string(), 0),
        ("200 OK", secret(&PSEUDONYMS[..12]), 2),
        ("200 OK", secret(PSEUDONYMS).replace('}', ""), 2),
        ("200 OK", json!({ "SecretString": [PSEUDONYMS] }).to_string(), 2),
        ("400 Bad Request", json!({ "__type": "DecryptionFailure", "Message": PSEUDONYMS }).to_string(), 2),
        // This may pass, and is waited for.
        ("500 Internal Server Error", format!("<html>{PSEUDONYMS}</html>"), 1),
    ] {
        folder.set("AWS_ENDPOINT_URL_SECRETS_MANAGER", &format!("http://{}", responding(status, body.clone())));
        let output = folder.run(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
        assert_eq!(output.status.code(), Some(code), "{body}: {}", folder.last_printed());
    }
    check_no_secret_was_printed(&folder);
}

#[test]
fn a_password_in_a_url_is_never_printed() {
    let folder = Folder::new();
    write_assessment(&folder);
    for url in [
        format!("https://user:{PASSWORD}@host/path"),
        format!("s3://user:{PASSWORD}@bucket/path"),
        format!("kinesis://user:{PASSWORD}@stream"),
        format!("https://bucket.example.com/path?X-Amz-Signature={PASSWORD}"),
    ] {
        folder.exits(2, &["run", "--source", &url]);
        folder.exits(2, &["run", "--source", "in", "--lake", &url]);
        folder.exits(2, &["run", "--source", "in", "--checkpoints", &url]);
        folder.exits(2, &["status", "--lake", &url]);
        folder.run(&["produce", "--to", &url, "--count", "1"]);
        folder.write(
            "bad.toml",
            format!("[[source]]\nurl = \"{url}\"\n[lake]\nurl = \"{url}\"\n[checkpoints]\nurl = \"{url}\"\n"),
        );
        folder.exits(2, &["config", "check", "--config", "bad.toml"]);
        folder.exits(2, &["graph", "--source", &url]);
    }
    // The part before the '@' is replaced.
    let first = folder.printed()[0].text();
    assert!(first.contains("https://…@host/path"), "{first}");
    check_no_secret_was_printed(&folder);
}

#[test]
fn a_created_key_is_readable_by_its_owner_only() {
    let folder = Folder::new();
    write_assessment(&folder);
    folder.ok(&["run", "--source", "in", "--lake", "lake", "--until-caught-up"]);
    let key = folder.path("lake.pseudonym.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(key).unwrap();
    assert_eq!(key.trim().len(), 64);
    for (name, bytes) in files_below(&folder.path("lake")) {
        assert!(memchr::memmem::find(&bytes, key.trim().as_bytes()).is_none(), "{name} holds the key");
    }
    for printed in folder.printed() {
        assert!(!printed.text().contains(key.trim()), "'{}' prints the key", printed.command);
    }
}
