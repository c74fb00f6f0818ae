//! `shardlake.toml`.

use std::collections::BTreeSet;

use shardlake::config::{Config, ConfigFile, KeySource};

use super::is_one_of;

/// The minimal length of a word that must not be in a message.
const SECRET_MIN: usize = 8;

/// The text of a configuration file. It is refused with a list of problems, or becomes a configuration that works.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ConfigFile::parse("shardlake.toml", text) {
        Ok(file) => {
            let shown = format!("{file:?}");
            assert!(!shown.is_empty());
            // This compiles every shipped dataset.
            if is_one_of(data, 256)
                && let Some(resolved) = shardlake::fuzzing::resolve(file)
            {
                match resolved {
                    Ok(config) => assert_works(&config),
                    Err(problems) => assert_message(&problems.to_string(), text, "[]cl"),
                }
            }
        }
        Err(problems) => {
            let lines = text.split('\n').count();
            assert!(!problems.is_empty(), "a refusal without a reason");
            for problem in problems.iter() {
                assert!(problem.line <= lines, "{problem}: the text has {lines} lines");
                assert!(!problem.message.is_empty());
            }
            assert_message(&problems.to_string(), text, "s");
        }
    }
}

/// Asserts that a message begins with one of these characters, and contains no word of a pseudonym key in the file.
fn assert_message(message: &str, text: &str, begin: &str) {
    assert!(message.starts_with(|first: char| begin.contains(first)), "{message}");
    for secret in secrets(text) {
        assert!(!message.contains(secret), "the message contains the secret '{secret}': {message}");
    }
}

/// Words after `key =` in `[anonymize]` that are nowhere else in the text.
fn secrets(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut section = "";
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
        }
        if section == "[anonymize]"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == "key"
        {
            // A word without a digit may be a word of the message itself.
            let is_secret = |word: &&str| {
                let has = |kind: fn(char) -> bool| word.contains(kind);
                word.len() >= SECRET_MIN && has(char::is_alphabetic) && has(|c| c.is_ascii_digit())
            };
            let words = value.split(|c: char| !c.is_alphanumeric()).filter(is_secret);
            found.extend(words.filter(|word| text.matches(word).count() == 1));
        }
    }
    found
}

fn assert_works(config: &Config) {
    assert!(!config.sources.is_empty(), "there must be a source");
    assert!(config.worker.limits.record_bytes <= config.worker.limits.memory / 8);
    assert!(config.key != KeySource::Missing || !config.datasets.need_key(), "a key is required");
    let names: BTreeSet<&str> = config.datasets.names().collect();
    for source in &config.sources {
        assert!(source.dataset.as_deref().is_none_or(|name| names.contains(name)));
    }
    // The bounds of every key are checked again when it is read back.
    if let Err(problem) = shardlake::fuzzing::reads_back(config) {
        panic!("{problem}");
    }
}
