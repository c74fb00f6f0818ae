//! The pseudonym key: read from where the configuration says, or made on the first start.
//!
//! Owns: reading the key from the environment, a file or Secrets Manager, making the key file of a local lake (mode 0600), and
//! the fingerprint by which a lake recognizes its key. Does not own: how a pseudonym is computed (the pipeline crate), where
//! the fingerprint is stored (`lake::identity`).
//!
//! No error text contains the key or a part of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use checkpoints::is_retryable;
use pipeline::anonymize::PseudonymKey;

use crate::aws::{Access, Aws, arn};
use crate::clock::random_bytes;
use crate::config::KeySource;
use crate::retry::RetryPolicy;
use crate::setup::OpenError;

/// A key, and the file that was made for it, if it was made just now.
pub struct OpenedKey {
    /// The key.
    pub key: PseudonymKey,
    /// The new key file.
    pub made: Option<PathBuf>,
}

/// Reads the pseudonym key. Makes the key file if the configuration allows it and there is none. Trouble of the service that keeps it is
/// waited for, for `retry_within`.
///
/// # Errors
/// [`OpenError::Key`]: there is no key, it cannot be read, or it is too short. [`OpenError::Unavailable`]: the service fails.
pub async fn open_key(source: &KeySource, aws: Option<&Aws>, retry_within: Duration) -> Result<OpenedKey, OpenError> {
    let (bytes, place, made) = match source {
        KeySource::Env(name) => {
            let place = format!("the environment variable {name}");
            let value = std::env::var(name).map_err(|_| OpenError::Key(format!("{place} is not set")))?;
            (value.into_bytes(), place, None)
        }
        KeySource::File(path) => (read_file(path)?, path.display().to_string(), None),
        KeySource::MadeFile(path) => {
            let made = make_file(path)?;
            (read_file(path)?, path.display().to_string(), made.then(|| path.clone()))
        }
        KeySource::SecretsManager(id) => {
            (read_secret(id, Aws::required(aws), retry_within).await?, format!("the secret {id}"), None)
        }
        KeySource::Missing => {
            return Err(OpenError::Key("none is configured; set key in [anonymize]".to_owned()));
        }
    };
    let key = key_of(&bytes).map_err(|problem| OpenError::Key(format!("{place}: {problem}")))?;
    Ok(OpenedKey { key, made })
}

/// A text that is the same for the same key and says nothing else about it: the pseudonym of a fixed value.
pub(super) fn fingerprint(key: &PseudonymKey) -> String {
    String::from_utf8_lossy(&key.pseudonym(b"shardlake key fingerprint")).into_owned()
}

/// The key in a file or a variable, without the line end at its end.
fn key_of(bytes: &[u8]) -> Result<PseudonymKey, String> {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    PseudonymKey::new(&bytes[..end])
}

async fn read_secret(id: &str, aws: &Aws, retry_within: Duration) -> Result<Vec<u8>, OpenError> {
    let failed = |problem: String| OpenError::Key(format!("the secret {id}: {problem}"));
    let aws = aws.reach(&Access::default(), arn::region(id)).await.map_err(|error| failed(error.problem))?;
    let client = aws.secrets();
    let get = async || {
        client.get_secret_value().secret_id(id).send().await.map_err(|error| {
            // Only the code: the error's full context may contain an answer that could not be parsed, and with it the secret.
            let code = error.code().map(str::to_owned);
            let problem = code.clone().unwrap_or_else(|| error.to_string());
            match code.as_deref() {
                _ if is_retryable(&error) => OpenError::Unavailable(format!("the secret {id}: {problem}")),
                Some("AccessDeniedException") => {
                    failed(
                        "access is denied: the worker needs secretsmanager:GetSecretValue, and kms:Decrypt if the secret has a key of its own"
                            .to_owned(),
                    )
                }
                Some("ResourceNotFoundException") => failed("there is no such secret".to_owned()),
                _ => failed(problem),
            }
        })
    };
    let secret = RetryPolicy::within(retry_within).run("reading the pseudonym key", get).await?;
    match (secret.secret_string(), secret.secret_binary()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(blob)) => Ok(blob.as_ref().to_vec()),
        (None, None) => Err(failed("it is empty".to_owned())),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, OpenError> {
    std::fs::read(path).map_err(|error| OpenError::Key(format!("failed to read {}: {error}", path.display())))
}

/// Makes a key file that only its owner may read, unless there is one. Returns whether it was made.
fn make_file(path: &Path) -> Result<bool, OpenError> {
    if path.exists() {
        return Ok(false);
    }
    let failed = |error: io::Error| OpenError::Key(format!("failed to create {}: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let key: [u8; 32] = random_bytes().map_err(failed)?;
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    // Temporary files are created with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{hex}").map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(true),
        // Another process was first: its key is the key.
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use aws_sdk_s3::config::retry::RetryConfig;
    use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_types::body::SdkBody;

    async fn open(source: KeySource) -> Result<OpenedKey, OpenError> {
        open_key(&source, None, Duration::ZERO).await
    }

    #[tokio::test]
    async fn a_key_file_is_made_once_with_mode_0600_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/lake.pseudonym.key");
        let first = open(KeySource::MadeFile(path.clone())).await.unwrap();
        assert_eq!(first.made.as_deref(), Some(path.as_path()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let second = open(KeySource::MadeFile(path.clone())).await.unwrap();
        assert_eq!(second.made, None);
        assert_eq!(fingerprint(&first.key), fingerprint(&second.key));
        let third = open(KeySource::File(path)).await.unwrap();
        assert_eq!(first.key.pseudonym(b"x"), third.key.pseudonym(b"x"));
    }

    #[tokio::test]
    async fn a_missing_or_short_key_is_reported_with_its_place() {
        let message = async |source| open(source).await.err().unwrap().to_string();
        assert_eq!(
            message(KeySource::Env("SHARDLAKE_TEST_NO_SUCH_KEY".into())).await,
            "the pseudonym key: the environment variable SHARDLAKE_TEST_NO_SUCH_KEY is not set"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "short\n").unwrap();
        assert!(message(KeySource::File(path)).await.ends_with("the key has 5 bytes; it needs at least 16"));
        assert_eq!(message(KeySource::Missing).await, "the pseudonym key: none is configured; set key in [anonymize]");
    }

    /// Secrets Manager as a script: each request takes the next response, a status and a code or a secret.
    #[derive(Debug, Clone)]
    struct Script(Arc<Mutex<VecDeque<(u16, &'static str)>>>);

    impl HttpConnector for Script {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let (status, text) = self.0.lock().unwrap().pop_front().expect("a response to every request");
            let name = if status == 200 { "SecretString" } else { "__type" };
            let body = serde_json::json!({ name: text, "Name": "pseudonyms" }).to_string();
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))))
        }
    }

    /// Opens the key in a secret whose requests are answered so. Returns the error's text, and how many responses are left.
    async fn open_secret(answers: &[(u16, &'static str)], within: Duration) -> (Result<OpenedKey, OpenError>, usize) {
        let script = Script(Arc::new(Mutex::new(answers.iter().copied().collect())));
        let connector = SharedHttpConnector::new(script.clone());
        let config = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("eu-central-1"))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("id", "key", None, None, "test")))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build();
        let source = KeySource::SecretsManager("pseudonyms".to_owned());
        let opened = open_key(&source, Some(&Aws::with(config)), within).await;
        (opened, script.0.lock().unwrap().len())
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_of_secrets_manager_is_waited_for_and_a_refusal_is_not() {
        let passing = [(500, "InternalServiceError"), (400, "ExpiredTokenException"), (400, "ThrottlingException")];
        let answers = [&passing[..], &[(200, "a key of sixteen bytes or more")]].concat();
        let (opened, left) = open_secret(&answers, Duration::from_secs(300)).await;
        assert!(opened.is_ok() && left == 0);
        let (refused, left) = open_secret(&[(400, "AccessDeniedException"), (200, "")], Duration::from_secs(300)).await;
        let refused = refused.err().unwrap();
        assert!(refused.is_usage() && left == 1 && refused.to_string().contains("secretsmanager:GetSecretValue"));
        let (failed, _) = open_secret(&[(500, "InternalServiceError"); 200], Duration::from_secs(20)).await;
        let failed = failed.err().unwrap();
        assert!(!failed.is_usage() && matches!(failed, OpenError::Unavailable(_)), "{failed}");
    }
}
