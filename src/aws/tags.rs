//! Tags of resources of AWS.
//!
//! Owns: which tags AWS accepts. Does not own: how many a kind of resource may have (its backend).
//!
//! Limits, which are AWS's: keys of 1 to 128 characters, values of up to 256
//! (<https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html>).

use std::collections::BTreeMap;

/// Checks tags.
///
/// # Errors
/// What is wrong with the first bad one, as the rest of a sentence that begins with a service's name.
pub(crate) fn check(tags: &BTreeMap<String, String>) -> Result<(), String> {
    for (key, value) in tags {
        let allowed = |c: char| c.is_alphanumeric() || " +-=._:/@".contains(c);
        let good = (1..=128).contains(&key.chars().count())
            && value.chars().count() <= 256
            && key.chars().chain(value.chars()).all(allowed)
            && !key.to_ascii_lowercase().starts_with("aws:");
        if !good {
            return Err(format!(
                "does not accept the tag '{key}' = '{value}': keys have 1 to 128 characters and values up to 256, of \
                 letters, digits, spaces and + - = . _ : / @, and no key begins with 'aws:'"
            ));
        }
    }
    Ok(())
}
