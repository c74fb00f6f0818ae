//! JSON Pointers (RFC 6901) as dataset definitions use them: paths through objects, never into arrays by index.
//!
//! Owns: parsing, joining and writing them. Does not own: the values they point at.
//!
//! Limits: 30 keys. The pointers of a struct and of its field are joined, and the JSON Schema has two levels for each key.
//! With this limit it stays within the 128 levels at which many readers of JSON stop.

use std::fmt;

/// The most keys in a pointer.
const KEYS_MAX: usize = 30;

/// A path from the top of a record to a field, by object keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// Parses `/a/b`. In a key, `~1` means `/` and `~0` means `~` (RFC 6901).
    ///
    /// # Errors
    /// A sentence for the user: the empty pointer, a missing leading slash, a stray `~`, too many keys.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("'{text}' is not a JSON Pointer: write '/{}'", text.trim_start_matches(['$', '.'])));
        };
        let mut keys = Vec::new();
        for token in rest.split('/') {
            let bare = token.replace("~1", "").replace("~0", "");
            if bare.contains('~') {
                return Err(format!("'{text}': in a JSON Pointer write '~0' for '~' and '~1' for '/'"));
            }
            keys.push(token.replace("~1", "/").replace("~0", "~"));
        }
        if keys.len() > KEYS_MAX {
            return Err(format!("a pointer has {} keys; the most is {KEYS_MAX}", keys.len()));
        }
        Ok(Pointer(keys))
    }

    /// The pointer to a field of the record itself.
    pub(crate) fn of_key(key: &str) -> Self {
        Pointer(vec![key.to_owned()])
    }

    /// The keys from the top down; at least one.
    pub(crate) fn keys(&self) -> &[String] {
        &self.0
    }

    /// Whether it points inside the value that `other` points at.
    pub(crate) fn is_below(&self, other: &Pointer) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// This pointer, followed by another one.
    #[must_use]
    pub(crate) fn join(&self, below: &Pointer) -> Pointer {
        Pointer(self.0.iter().chain(&below.0).cloned().collect())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|key| write!(f, "/{}", key.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_and_written_as_rfc_6901_has_it() {
        for text in ["/a", "/a/b", "/a~1b/c~0d", "/"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pointer::parse("/a~1b").unwrap().keys(), ["a/b"]);
    }

    #[test]
    fn a_path_in_another_notation_is_refused_with_what_to_write() {
        assert_eq!(Pointer::parse("$.score").unwrap_err(), "'$.score' is not a JSON Pointer: write '/score'");
        assert!(Pointer::parse("/a~").is_err());
    }

    #[test]
    fn a_pointer_has_thirty_keys_at_most() {
        assert!(Pointer::parse(&"/a".repeat(30)).is_ok());
        assert_eq!(Pointer::parse(&"/a".repeat(31)).unwrap_err(), "a pointer has 31 keys; the most is 30");
    }
}
