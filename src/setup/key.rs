//! The pseudonym key: read from where the configuration says, or made on the first start.
//!
//! Owns: reading the key from the environment, a file or Secrets Manager, making the key file of a local lake (mode 0600), and
//! the fingerprint by which a lake recognizes its key. Does not own: how a pseudonym is computed (the pipeline crate), where
//! the fingerprint is stored (`lake::identity`).
//!
//! No error text contains the key or a part of it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use pipeline::anonymize::PseudonymKey;

use crate::aws::Aws;
use crate::clock::random_bytes;
use crate::config::KeySource;
use crate::setup::OpenError;

/// A key, and the file that was made for it, if it was made just now.
pub struct OpenedKey {
    /// The key.
    pub key: PseudonymKey,
    /// The new key file.
    pub made: Option<PathBuf>,
}

/// Reads the pseudonym key. Makes the key file if the configuration allows it and there is none.
///
/// # Errors
/// [`OpenError::Key`]: there is no key, it cannot be read, or it is too short.
pub async fn open_key(source: &KeySource, aws: Option<&Aws>) -> Result<OpenedKey, OpenError> {
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
        KeySource::SecretsManager(id) => (read_secret(id, Aws::required(aws)).await?, format!("the secret {id}"), None),
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

async fn read_secret(id: &str, aws: &Aws) -> Result<Vec<u8>, OpenError> {
    let failed = |problem: String| OpenError::Key(format!("the secret {id}: {problem}"));
    let secret = aws.secrets().get_secret_value().secret_id(id).send().await.map_err(|error| {
        failed(match error.code() {
            Some("AccessDeniedException") => {
                "access is denied: the worker needs secretsmanager:GetSecretValue, and kms:Decrypt if the secret has a key of its own"
                    .to_owned()
            }
            Some("ResourceNotFoundException") => "there is no such secret".to_owned(),
            // Only the code: the error's full context may contain an answer that could not be parsed, and with it the secret.
            Some(code) => code.to_owned(),
            None => error.to_string(),
        })
    })?;
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

    async fn open(source: KeySource) -> Result<OpenedKey, OpenError> {
        open_key(&source, None).await
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
}
